"""The members' side: signed calls to a broker.

Each call is a connection of its own, signed for the broker that TLS was made with.

Threading: a client is for one thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sealfs.attestation.canonical import Members, parse_json
from sealfs.attestation.policy import Policy
from sealfs.attestation.verdict import RegisteredManifest
from sealfs.broker.address import BrokerAddress
from sealfs.broker.audit import Checkpoint, Entry, checkpoint_of, verify
from sealfs.broker.calls import CALL_PATH, Call
from sealfs.broker.holdings import manifest_to_json
from sealfs.broker.protocol import MAX_ANSWER_SIZE, OWNER
from sealfs.broker.transport import Connection, ProblemError
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.snapshot import MAX_VERSION
from sealfs.errors import AuditError, BrokerError, ConflictError, DocumentError, KeyRefusedError
from sealfs.keys import Identity, Signer

_PAGE = 500  # records of the log
_MAX_ITEMS = 100_000
_MAX_REVISION = 1 << 40


@dataclass(frozen=True, slots=True)
class Held:
    """What a broker holds of a dataset, as its owner sees it.

    Attributes:
        revision: Counts the changes; 0 if it holds nothing.
        version: The version published last; 0 if none.
        sha256: Digest of that version's snapshot object, hex.
        policy: What it demands; None if it holds nothing.
        withdrawn: Whether nothing is released any more.
    """

    revision: int = 0
    version: int = 0
    sha256: str = ""
    policy: Policy | None = None
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a broker says to a member.

    Attributes:
        name: The member's name there, which is the owner's in resources.
        roles: What the member may do.
        checkpoint: How far the log has come.
    """

    name: str
    roles: tuple[str, ...]
    checkpoint: Checkpoint


class BrokerMember:
    """A member's dealings with a broker.

    Args:
        address: Which broker.
        identity: Whose calls.

    Attributes:
        verified: How far `log` has verified the broker's log; None before.

    Raises (all methods):
        KeyRefusedError: The broker refuses, and says why.
        ConflictError: Somebody else has changed the same in the meantime.
        BrokerError: It can't be asked, or answers nonsense.
    """

    def __init__(self, address: BrokerAddress, identity: Identity) -> None:
        self.address = address
        self._identity = identity
        self._answered_by: str | None = None
        self.verified: Checkpoint | None = None

    def call(self, name: str, arguments: Mapping[str, Any] | None = None) -> Members:
        """Make any call and return its answer."""
        try:
            with Connection(self.address) as connection:
                if connection.identity is None:
                    raise BrokerError("calls are made over TLS only", "write https://")
                self._answered_by = connection.identity
                call = Call.new(name, arguments or {}, connection.identity, self._identity.signer, int(time.time()))
                answer = connection.ask("POST", CALL_PATH, call.sign(self._identity))
            what = "the broker's answer"
            return Members(parse_json(answer.body, what, MAX_ANSWER_SIZE), what)
        except ProblemError as error:
            problem = error.problem
            if problem.status == 409:
                raise ConflictError(problem.detail, problem.hint) from None
            if problem.status >= 500:
                raise
            raise KeyRefusedError(problem.detail, problem.hint) from None
        except DocumentError as error:
            raise BrokerError(f"the broker at {self.address} answers nonsense: {error.message}") from None

    def hello(self, seen: Checkpoint | None = None) -> Greeting:
        """Find out whether the broker is there, who this identity is to it, and how far its log has come.

        Args:
            seen: How far the log was seen before.

        Raises:
            AuditError: The log no longer has what was seen.
        """
        answer = self.call("hello", {"seen": seen.sequence} if seen else {})
        member = answer.object("member")
        checkpoint = Checkpoint.from_fields(answer.object("checkpoint"))
        if checkpoint.broker != self._answered_by:
            raise AuditError(f"the broker at {self.address} shows the checkpoint of another, {checkpoint.broker}")
        if seen is not None:
            then = Entry.from_fields(answer.object("seen")) if answer.value("seen") is not None else None
            if then is None or then.digest != seen.digest or checkpoint.key != seen.key:
                raise AuditError(
                    f"record {seen.sequence} of the broker's log is not the one that was seen before, or is gone"
                )
            if checkpoint.sequence < seen.sequence:  # kept, it would let the broker forget what came after it
                raise AuditError(
                    f"the broker's log ends with record {checkpoint.sequence}, "
                    f"but record {seen.sequence} was seen before"
                )
        return Greeting(member.text("name", OWNER), tuple(member.texts("roles", 16)), checkpoint)

    def held(self, dataset: bytes) -> Held:
        """Return what the broker holds of a dataset of this member's."""
        answer = self.call("dataset", {"dataset": dataset.hex()})
        if answer.value("holding") is None:
            return Held()
        holding = answer.object("holding")
        return Held(
            holding.integer("revision", 1, _MAX_REVISION),
            holding.integer("version", 1, MAX_VERSION),
            holding.hexadecimal("sha256", 32).hex(),
            Policy.from_json(holding.value("policy")),
            holding.boolean("withdrawn"),
        )

    def publish(
        self, keys: DatasetKeys, version: int, sha256: bytes, signer: Signer, policy: Policy | None, revision: int
    ) -> int:
        """Put a dataset's keys and newest version at the broker; return the new revision.

        Args:
            keys: All of them.
            version: The version that readers have to use from now on.
            sha256: Digest of its snapshot object, 32 bytes.
            signer: Who signed it.
            policy: What is demanded; None leaves it as it is.
            revision: What the caller has seen.
        """
        arguments: dict[str, Any] = {
            "dataset": keys.dataset.hex(),
            "version": version,
            "sha256": sha256.hex(),
            "signer": str(signer),
            "keys": keys.pack().hex(),
            "revision": revision,
        }
        if policy is not None:
            arguments["policy"] = policy.to_json()
        return self.call("publish", arguments).integer("revision", 1, _MAX_REVISION)

    def members(self) -> list[dict[str, Any]]:
        """Return the broker's members."""
        return _plain(self.call("members"), "members")

    def enrolled(self) -> list[dict[str, Any]]:
        """Return the keys that evidence may be signed with."""
        return _plain(self.call("enrolled"), "enrolled")

    def datasets(self) -> list[dict[str, Any]]:
        """Return what the broker holds of this member's."""
        return _plain(self.call("datasets"), "holdings")

    def manifests(self) -> list[dict[str, Any]]:
        """Return the manifests that this member has registered."""
        return _plain(self.call("manifests"), "manifests")

    def set_policy(self, dataset: bytes, policy: Policy, revision: int) -> int:
        """Change what is demanded for a dataset; return the new revision."""
        arguments = {"dataset": dataset.hex(), "policy": policy.to_json(), "revision": revision}
        return self.call("set-policy", arguments).integer("revision", 1, _MAX_REVISION)

    def withdraw(self, dataset: bytes, revision: int) -> None:
        """Let nothing more be released of a dataset; what was released can't be taken back."""
        self.call("withdraw", {"dataset": dataset.hex(), "revision": revision})

    def register(self, manifest: RegisteredManifest) -> int:
        """Tell the broker what a measured manifest may serve; return the new revision."""
        same = [m for m in self.manifests() if m["measurement"] == manifest.measurement]
        revision = same[0]["revision"] if same else 0
        arguments = {"manifest": manifest_to_json(manifest), "revision": revision}
        return self.call("register", arguments).integer("revision", 1, _MAX_REVISION)

    def log(self, seen: Checkpoint | None = None) -> Iterator[dict[str, Any]]:
        """Yield all records of the broker's log, verified, oldest first.

        Args:
            seen: How far the log was seen before; it must still contain that.

        Raises:
            AuditError: Something is missing, was changed, or stands in another order.
        """
        key = seen.key if seen else self.hello().checkpoint.key
        last: Entry | None = None

        def noted() -> Iterator[Entry]:
            nonlocal last
            for entry in self._entries():
                last = entry
                yield entry

        yield from verify(noted(), key, seen)
        if last is not None and self._answered_by is not None:
            self.verified = checkpoint_of(self._answered_by, key, last)

    def _entries(self) -> Iterator[Entry]:
        after = 0
        while True:
            answer = self.call("log", {"after": after, "limit": _PAGE})
            page = [Entry.from_fields(entry) for entry in answer.objects("entries", _PAGE)]
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].sequence


def _plain(answer: Members, name: str) -> list[dict[str, Any]]:
    """Return a list of objects as they are: they came over TLS from a broker that was checked."""
    return [
        dict(answer.array(name, _MAX_ITEMS)[number]) for number, _ in enumerate(answer.objects(name, _MAX_ITEMS))
    ]
