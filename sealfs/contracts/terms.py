"""What a contract says: its parts as values, and how long and of what letters they may be.

Whether they make sense together is the matter of checks.py, their JSON that of contract.py.

Threading: immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from sealfs.attestation.policy import Policy
from sealfs.keys import Recipient, Signer

MAX_PARTIES: Final = 32
MAX_INPUTS: Final = 64
MAX_OUTPUTS: Final = 16
MAX_ARGUMENTS: Final = 256
MAX_VARIABLES: Final = 128

NAME: Final = r"[a-z0-9][a-z0-9._-]{0,62}"
WORDS: Final = r"[^\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]{1,200}"  # nothing that rewrites a terminal's line
TEXT: Final = r"[^\x00]{0,4096}"
URL: Final = r"[!-~]{1,1024}"
PREFIX: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}|"


@dataclass(frozen=True)
class Party:
    """Somebody who takes part.

    Attributes:
        signer: Whose signature counts as theirs.
        recipient: What results and shares are wrapped for; None if they get neither.
        broker: Address of the broker that releases their keys, with its identity: `https://HOST:PORT#sha256:...`;
            None if they own no input.
    """

    signer: Signer
    recipient: Recipient | None = None
    broker: str | None = None


@dataclass(frozen=True)
class Function:
    """What runs: a Python script.

    Attributes:
        name: For people.
        owner: Whose it is; has to approve unless it is public.
        public: Whether anybody may see and use it.
        executor: Where it runs: "native", "gramine-sgx", ...
        script: Path of the script; in the code's dataset if `code` names one, else for people.
        code: Name of the input that holds it; None if it is no secret.
        sha256: Digest of the script in hex, if `code` is None.
        arguments: What it is called with.
        environment: All of its environment variables.
    """

    name: str
    owner: str
    public: bool
    executor: str
    script: str
    code: str | None = None
    sha256: str | None = None
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SealedData:
    """One exact state of a dataset.

    Attributes:
        dataset: Its id, 32 hex digits.
        version: Which snapshot.
        snapshot: SHA-256 of that snapshot's object, in hex: fixes every byte, and who signed it.
        address: Where it can be found. Any other place will do: the digest says whether it is the right one.
    """

    dataset: str
    version: int
    snapshot: str
    address: str


@dataclass(frozen=True)
class Input:
    """Something that the script reads.

    Attributes:
        owners: Whose it is. Each has to approve, and each one's broker to release.
        path: Folder at which the script sees it. Inputs with the same path are one folder.
        prefix: Put before each name at its top, so that names of several owners do not clash.
        data: Which dataset; None while its owners have not said.
    """

    owners: tuple[str, ...]
    path: str
    prefix: str = ""
    data: SealedData | None = None


@dataclass(frozen=True)
class Output:
    """Something that the script writes.

    Attributes:
        recipients: Who can open it, and nobody else. Each has to approve the contract.
        path: Folder to which the script writes it.
        max_size: Most bytes that may leave by it.
        votes: How many of the voters have to agree before recipients can open it; 0: released at once.
        voters: Who may vote.
    """

    recipients: tuple[str, ...]
    path: str
    max_size: int
    votes: int = 0
    voters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Terms:
    """All that a contract says.

    Attributes:
        id: 32 random hex digits: two contracts with the same words are two.
        title: For people.
        creator: Who wrote it; may cancel it.
        operator: Whose machines run it, who reports its runs; is trusted with neither data nor results.
        parties: Name to party.
        function: What runs.
        inputs: Name to input.
        outputs: Name to output.
        policy: How well the place must be protected; joins what each dataset's own policy demands.
        network: "services": brokers and stores only; "open": whatever the machine lets through.
        stdout: What becomes of what the script prints: "none", "sealed" with each output, or "host".
        not_before: From when on it holds, UTC, whole seconds.
        expires: Until when.
        runs: How often it may be run.
    """

    id: str
    title: str
    creator: str
    operator: str
    parties: Mapping[str, Party]
    function: Function
    inputs: Mapping[str, Input]
    outputs: Mapping[str, Output]
    policy: Policy
    network: str
    stdout: str
    not_before: datetime
    expires: datetime
    runs: int
