"""The messages of the Key Broker Service protocol 0.1.1: request, challenge, attestation, response, and problems.

Confidential containers' kbs/docs/kbs_attestation_protocol.md defines them; both sides are here, so that what one
writes the other reads. Their own clients and servers say version 0.4.0 today, and bind one more member, the
evidence of further devices (always empty here); both versions are spoken.

Threading: immutable values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sealfs.attestation.binding import RuntimeData
from sealfs.attestation.canonical import Members, canonical, parse_json
from sealfs.attestation.evidence import Evidence
from sealfs.errors import BrokerError, DocumentError

DOCUMENTED = "0.1.1"
DEPLOYED = "0.4.0"
VERSIONS = (DOCUMENTED, DEPLOYED)
COOKIE = "kbs-session-id"
PREFIX = "/kbs/v0"
AUTH_PATH = f"{PREFIX}/auth"
ATTEST_PATH = f"{PREFIX}/attest"
RESOURCE_PATH = f"{PREFIX}/resource"
LATEST = "latest"

MAX_REQUEST_SIZE = 16 << 10
MAX_ATTESTATION_SIZE = 256 << 10  # a quote with its certificates has 5 KiB, a TPM's event log perhaps 100
MAX_ANSWER_SIZE = 2 << 20  # the keys of 10,000 epochs, in hex, in base64
_PROBLEM_NAMESPACE = "https://github.com/confidential-containers/kbs/errors/"
_TEE = r"[a-z0-9-]{1,40}"
_NONCE = r"[A-Za-z0-9+/=_-]{1,1024}"
_SELECTED, _BINDING = "selected-hash-algorithm", "sha384"
_NO_EVIDENCE = ("", "{}")  # of further devices
OWNER = r"[a-z0-9][a-z0-9._-]{0,63}"
DATASET = r"[0-9a-f]{32}"


@dataclass(frozen=True, slots=True)
class Request:
    """The first message: an environment says what it is.

    Attributes:
        version: Of the protocol.
        tee: The kind of evidence that will come.
    """

    version: str
    tee: str

    def to_bytes(self) -> bytes:
        """Return the message."""
        return canonical({"version": self.version, "tee": self.tee, "extra-params": {}})

    @classmethod
    def parse(cls, data: bytes) -> Request:
        """Read the message; extra parameters are for kinds of evidence that are not known here.

        Raises:
            DocumentError: Malformed, or of a version that is not spoken.
        """
        what = "the request"
        members = Members(parse_json(data, what, MAX_REQUEST_SIZE), what)
        version = members.text("version", r"[0-9.]{1,20}")
        if version not in VERSIONS:
            spoken = " and ".join(VERSIONS)
            raise DocumentError(f"protocol version {version} is not spoken here", f"this broker speaks {spoken}")
        return cls(version, members.text("tee", _TEE))


@dataclass(frozen=True, slots=True)
class Challenge:
    """The answer to a request.

    Attributes:
        nonce: What evidence has to be bound to.
    """

    nonce: str

    def to_json(self) -> dict[str, Any]:
        """Return the message."""
        return {"nonce": self.nonce, "extra-params": {}}

    @classmethod
    def parse(cls, data: bytes) -> Challenge:
        """Read the message.

        Raises:
            DocumentError: Malformed, or evidence is to be bound in a way that is not known here.
        """
        what = "the broker's challenge"
        document = parse_json(data, what, MAX_REQUEST_SIZE)
        nonce = Members(document, what).text("nonce", _NONCE)
        extra = document.get("extra-params")
        selected = extra.get(_SELECTED, _BINDING) if isinstance(extra, dict) else _BINDING
        if not isinstance(selected, str) or selected.lower() != _BINDING:
            raise DocumentError(
                "the broker wants evidence that is bound by another digest than SHA-384",
                "Trustee does with Intel Trust Authority behind it: use its own attestation service",
            )
        return cls(nonce)


def bound_data(version: str, runtime: RuntimeData) -> RuntimeData:
    """Return what evidence is bound to in a version of the protocol: the later one adds a member."""
    if version == DOCUMENTED:
        return runtime
    return RuntimeData(runtime.nonce, runtime.tee_pubkey, {**runtime.extra, "additional-evidence": ""})


@dataclass(frozen=True, slots=True)
class Attestation:
    """The answer to a challenge.

    Attributes:
        runtime: Nonce, public key of the run, and what else the evidence is bound to.
        body: The evidence itself; its kind was said in the request.
    """

    runtime: RuntimeData
    body: Mapping[str, Any] = field(repr=False)

    def to_bytes(self) -> bytes:
        """Return the message."""
        evidence = {"primary_evidence": dict(self.body), "additional_evidence": ""}
        return canonical({"runtime-data": self.runtime.to_json(), "tee-evidence": evidence})

    @classmethod
    def parse(cls, data: bytes) -> Attestation:
        """Read the message. "init-data" is passed over: no decision is made by it.

        Raises:
            DocumentError: Malformed, or with evidence of further devices.
        """
        what = "the attestation"
        document = parse_json(data, what, MAX_ATTESTATION_SIZE)
        members = Members(document, what).only("init-data", "runtime-data", "tee-evidence")
        runtime = members.object("runtime-data")
        nonce, public = runtime.text("nonce", _NONCE), runtime.object("tee-pubkey")
        evidence = members.object("tee-evidence").only("primary_evidence", "additional_evidence")
        body = evidence.object("primary_evidence")
        if "additional_evidence" in evidence and evidence.text("additional_evidence") not in _NO_EVIDENCE:
            raise DocumentError(
                "evidence of further devices is not understood here", "send the primary evidence only"
            )
        extra = {name: document["runtime-data"][name] for name in runtime if name not in {"nonce", "tee-pubkey"}}
        return cls(
            RuntimeData(nonce, {name: public.text(name) for name in public}, extra),
            {name: document["tee-evidence"]["primary_evidence"][name] for name in body},
        )

    def evidence(self, tee: str) -> Evidence:
        """Return the evidence, with the kind that the session is about."""
        return Evidence(tee, self.body)


@dataclass(frozen=True, slots=True)
class Resource:
    """What is asked for: `<owner>/<dataset>/<version>`.

    Attributes:
        owner: Whose it is, by the name that the broker knows them by.
        dataset: The dataset's id, 32 hex digits.
        version: Which version; None for the one published last.
    """

    owner: str
    dataset: str
    version: int | None = None

    @property
    def path(self) -> str:
        """Where it is asked for."""
        return f"{RESOURCE_PATH}/{self}"

    def __str__(self) -> str:
        return f"{self.owner}/{self.dataset}/{LATEST if self.version is None else self.version}"

    @classmethod
    def parse(cls, owner: str, dataset: str, version: str) -> Resource:
        """Read the parts of a path.

        Raises:
            DocumentError: No such thing can be here.
        """
        members = Members({"owner": owner, "dataset": dataset, "version": version}, "the resource's path")
        number = members.text("version", rf"{LATEST}|[1-9]\d{{0,8}}")
        return cls(
            members.text("owner", OWNER),
            members.text("dataset", DATASET),
            None if number == LATEST else int(number),
        )


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something was not done (RFC 7807).

    Attributes:
        kind: One of the protocol's words.
        status: HTTP's.
        detail: The reason, for people.
        hint: What they can do.
    """

    kind: str
    status: int
    detail: str
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the message."""
        document = {"type": _PROBLEM_NAMESPACE + self.kind, "status": self.status, "detail": self.detail}
        return {**document, "hint": self.hint} if self.hint else document

    @classmethod
    def parse(cls, data: bytes, status: int) -> Problem:
        """Read what came with an HTTP error.

        Raises:
            BrokerError: It is not in this form.
        """
        try:
            what = "the broker's problem"
            members = Members(parse_json(data, what, MAX_REQUEST_SIZE), what)
            kind = members.text("type", r".{0,300}").removeprefix(_PROBLEM_NAMESPACE)
            detail = members.text("detail", r".{0,8192}")
            hint = members.text("hint") if "hint" in members else ""
        except DocumentError:
            raise BrokerError(
                f"the broker answered with status {status} and no reason", "is it a key broker's address?"
            ) from None
        return cls(kind, status, printable(detail), printable(hint))


def printable(text: str) -> str:
    """Return text that came over the network without what a terminal would obey."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
