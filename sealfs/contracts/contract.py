"""A contract: who lets which code use which data for what, once and for all.

Its name is the SHA-256 of its canonical JSON (RFC 8785), which is what parties sign. So nothing of it can be
changed afterwards: whoever edits it has made another contract, which nobody signed. docs/contracts.md has each
member.

Threading: immutable.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from sealfs.attestation import canonical
from sealfs.attestation.canonical import Members, parse_json
from sealfs.attestation.policy import Policy
from sealfs.contracts import checks, terms
from sealfs.contracts.terms import Function, Input, Output, Party, SealedData, Terms
from sealfs.errors import ContractError, DocumentError, UsageError
from sealfs.keys import Recipient, Signer

FORMAT: Final = "sealfs-contract-1"
MAX_SIZE: Final = 512 << 10  # bytes; a party's keys take 1.7 KiB
MAX_DEPTH: Final = 8
ID_SIZE: Final = 16
NETWORKS: Final = ("services", "open")
STDOUTS: Final = ("none", "sealed", "host")
MAX_RUNS: Final = 1000
MAX_OUTPUT_SIZE: Final = 1 << 50
MAX_VERSION: Final = 1 << 31
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Contract(Terms):
    """What is agreed: terms that make sense, and a name that stands for them."""

    def __post_init__(self) -> None:
        checks.check(self)

    @cached_property
    def digest(self) -> str:
        """What is signed: SHA-256 of the canonical JSON, in hex."""
        return canonical.digest(self.to_json())

    @property
    def is_complete(self) -> bool:
        """Whether every input has its data; nothing else can be approved."""
        return all(entry.data is not None for entry in self.inputs.values())

    @property
    def approvers(self) -> tuple[str, ...]:
        """Who has to sign: the creator, owners of inputs, recipients of outputs, the code's owner unless public."""
        names = {self.creator}
        names.update(owner for entry in self.inputs.values() for owner in entry.owners)
        names.update(recipient for entry in self.outputs.values() for recipient in entry.recipients)
        if not self.function.public:
            names.add(self.function.owner)
        return tuple(sorted(names))

    def party_of(self, signer: Signer) -> str | None:
        """Return who has this signing key."""
        return next((name for name, party in self.parties.items() if party.signer == signer), None)

    def check_time(self, at: datetime) -> None:
        """Refuse a time at which it does not hold.

        Raises:
            ContractError: Too early or too late.
        """
        if at < self.not_before:
            raise ContractError(f"the contract holds from {shown_time(self.not_before)} on", "wait until then")
        if at >= self.expires:
            raise ContractError(
                f"the contract expired at {shown_time(self.expires)}", "agree on a new one: sealfs task new"
            )

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        function = self.function
        return {
            "format": FORMAT,
            "id": self.id,
            "title": self.title,
            "creator": self.creator,
            "operator": self.operator,
            "parties": {
                name: {
                    "signer": str(party.signer),
                    "recipient": str(party.recipient) if party.recipient else None,
                    "broker": party.broker,
                }
                for name, party in self.parties.items()
            },
            "function": {
                "name": function.name,
                "owner": function.owner,
                "public": function.public,
                "executor": function.executor,
                "script": function.script,
                "code": function.code,
                "sha256": function.sha256,
                "arguments": list(function.arguments),
                "environment": dict(function.environment),
            },
            "inputs": {
                name: {
                    "owners": list(entry.owners),
                    "path": entry.path,
                    "prefix": entry.prefix,
                    "data": vars(entry.data).copy() if entry.data else None,
                }
                for name, entry in self.inputs.items()
            },
            "outputs": {
                name: {
                    "recipients": list(entry.recipients),
                    "path": entry.path,
                    "max_size": entry.max_size,
                    "votes": entry.votes,
                    "voters": list(entry.voters),
                }
                for name, entry in self.outputs.items()
            },
            "policy": self.policy.to_json(),
            "network": self.network,
            "stdout": self.stdout,
            "not_before": shown_time(self.not_before),
            "expires": shown_time(self.expires),
            "runs": self.runs,
        }

    def to_bytes(self) -> bytes:
        """Return the canonical JSON."""
        return canonical.canonical(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Contract:
        """Read a contract that anybody may have written.

        Raises:
            DocumentError: It is none, or too big, or makes no sense.
        """
        return cls.from_json(parse_json(data, "the contract", MAX_SIZE, MAX_DEPTH))

    @classmethod
    def from_json(cls, document: Any) -> Contract:
        """Read a parsed one; every member has to be there, and no other.

        Raises:
            DocumentError: It is none, or makes no sense.
        """
        members = Members(document, "the contract").only(
            *("format", "id", "title", "creator", "operator", "parties", "function", "inputs", "outputs"),
            *("policy", "network", "stdout", "not_before", "expires", "runs"),
        )
        if members.text("format", r"[ -~]{1,80}") != FORMAT:
            raise DocumentError("that is no contract of a kind that this sealfs knows", "upgrade sealfs")
        members.object("policy")
        return cls(
            id=members.hexadecimal("id", ID_SIZE).hex(),
            title=members.text("title", terms.WORDS),
            creator=members.text("creator", terms.NAME),
            operator=members.text("operator", terms.NAME),
            parties={name: _party(entry) for name, entry in _named(members, "parties", terms.MAX_PARTIES)},
            function=_function(members.object("function")),
            inputs={name: _input(entry) for name, entry in _named(members, "inputs", terms.MAX_INPUTS)},
            outputs={name: _output(entry) for name, entry in _named(members, "outputs", terms.MAX_OUTPUTS)},
            policy=Policy.from_json(document["policy"]),
            network=members.text("network", "|".join(NETWORKS)),
            stdout=members.text("stdout", "|".join(STDOUTS)),
            not_before=parse_time(members, "not_before"),
            expires=parse_time(members, "expires"),
            runs=members.integer("runs", 1, MAX_RUNS),
        )


def shown_time(at: datetime) -> str:
    """Return a time as contracts and statements write it."""
    return at.astimezone(UTC).strftime(_TIME)


def parse_time(members: Members, name: str) -> datetime:
    """Return such a time.

    Raises:
        DocumentError: It is none.
    """
    text = members.text(name, r"[0-9TZ:-]{20}")
    try:
        return datetime.strptime(text, _TIME).replace(tzinfo=UTC)
    except ValueError:
        raise DocumentError(f"'{name}' is no time", "write it such as 2026-11-30T12:00:00Z") from None


def _named(members: Members, name: str, most: int) -> list[tuple[str, Members]]:
    entries = members.object(name)
    names = list(entries)
    if len(names) > most:
        raise DocumentError(f"the contract has {len(names)} {name}, {most} is the most")
    return [(entry, entries.object(entry)) for entry in names]


def _optional(members: Members, name: str, pattern: str) -> str | None:
    return None if members.value(name) is None else members.text(name, pattern)


def _party(members: Members) -> Party:
    members.only("signer", "recipient", "broker")
    recipient = _optional(members, "recipient", r"[!-~]{1,4096}")
    try:
        return Party(
            Signer.parse(members.text("signer", r"[!-~]{1,200}")),
            Recipient.parse(recipient) if recipient else None,
            _optional(members, "broker", terms.URL),
        )
    except DocumentError:
        raise
    except UsageError as error:
        raise DocumentError(f"a party of the contract: {error.message}") from None


def _function(members: Members) -> Function:
    members.only(
        *("name", "owner", "public", "executor", "script", "code", "sha256", "arguments", "environment"),
    )
    environment = members.object("environment")
    if len(list(environment)) > terms.MAX_VARIABLES:
        raise DocumentError("the contract has too many environment variables")
    return Function(
        name=members.text("name", terms.WORDS),
        owner=members.text("owner", terms.NAME),
        public=members.boolean("public"),
        executor=members.text("executor", r"[a-z0-9_-]{1,40}"),
        script=members.text("script", terms.TEXT),
        code=_optional(members, "code", terms.NAME),
        sha256=_optional(members, "sha256", r"[0-9a-f]{64}"),
        arguments=tuple(members.texts("arguments", terms.MAX_ARGUMENTS, terms.TEXT)),
        environment={name: environment.text(name, terms.TEXT) for name in environment},
    )


def _input(members: Members) -> Input:
    members.only("owners", "path", "prefix", "data")
    data = None
    if members.value("data") is not None:
        entry = members.object("data").only("dataset", "version", "snapshot", "address")
        data = SealedData(
            entry.hexadecimal("dataset", 16).hex(),
            entry.integer("version", 1, MAX_VERSION),
            entry.hexadecimal("snapshot", 32).hex(),
            entry.text("address", terms.URL),
        )
    return Input(
        tuple(members.texts("owners", terms.MAX_PARTIES, terms.NAME)),
        members.text("path", terms.TEXT),
        members.text("prefix", terms.PREFIX),
        data,
    )


def _output(members: Members) -> Output:
    members.only("recipients", "path", "max_size", "votes", "voters")
    return Output(
        tuple(members.texts("recipients", terms.MAX_PARTIES, terms.NAME)),
        members.text("path", terms.TEXT),
        members.integer("max_size", 1, MAX_OUTPUT_SIZE),
        members.integer("votes", 0, terms.MAX_PARTIES),
        tuple(members.texts("voters", terms.MAX_PARTIES, terms.NAME)),
    )
