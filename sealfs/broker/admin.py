"""What members can have a broker do: each signed call by name, the role it takes, and the transaction it is.

A call is taken once, also if it fails. What changes something is logged in the transaction that changes it, and
names the revision that the caller had seen: of two conflicting edits the later is refused.

Threading: safe; transactions are the database's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from sealfs.attestation.canonical import Members
from sealfs.attestation.policy import Policy
from sealfs.attestation.tpm_quote import load_key
from sealfs.broker import audit, holdings, members
from sealfs.broker.audit import Log
from sealfs.broker.calls import LIFETIME, Call
from sealfs.broker.carrier import Carrier
from sealfs.broker.database import Database
from sealfs.broker.holdings import Holding, Publication
from sealfs.broker.members import Enrolled, Member, Role, check_revision
from sealfs.broker.protocol import DATASET, OWNER, Problem
from sealfs.broker.release import RefusedError
from sealfs.broker.wrapping import Vault
from sealfs.contracts.task import Task
from sealfs.dataset.keyring import MAX_EPOCHS, DatasetKeys
from sealfs.dataset.snapshot import MAX_VERSION
from sealfs.errors import ConflictError, IntegrityError, SealfsError, TrustError, UsageError
from sealfs.floe import KEY_SIZE
from sealfs.keys import Signer

Change = Callable[[sqlite3.Connection, Member, Members], dict[str, Any]]
Look = Callable[[sqlite3.Connection, Member, Members], dict[str, Any]]

ENROLLED_KINDS = ("sealfs-runner", "tpm")
_MAX_LOG_PAGE = 1000
_MAX_ROLES = len(Role)
_MAX_REVISION = 1 << 40
_HEX_PER_EPOCH = 2 * (4 + KEY_SIZE)


class Admin:
    """Carries out calls.

    Args:
        identity: The broker's, as calls must name it.
        database: Where all is kept.
        vault: Seals keys.
        log: Where changes go.
        clock: Returns the time, with a zone.
        enrolled: Called after what is enrolled has changed.
        carrier: Keeps contracts.
    """

    def __init__(
        self,
        identity: str,
        database: Database,
        vault: Vault,
        log: Log,
        clock: Callable[[], datetime],
        enrolled: Callable[[], None],
        carrier: Carrier,
    ) -> None:
        self._identity = identity
        self._database = database
        self._vault = vault
        self._log = log
        self._clock = clock
        self._enrolled_changed = enrolled
        self._carrier = carrier
        self._looks: Mapping[str, tuple[Role | None, Look]] = {
            "hello": (None, self._hello),
            "dataset": (Role.OWNER, self._dataset),
            "datasets": (Role.OWNER, self._datasets),
            "manifests": (Role.OWNER, self._manifests),
            "members": (None, self._members),
            "enrolled": (None, self._enrolled),
            "log": (Role.AUDITOR, self._read_log),
        }
        self._changes: Mapping[str, tuple[Role, Change]] = {
            "publish": (Role.OWNER, self._publish),
            "set-policy": (Role.OWNER, self._set_policy),
            "withdraw": (Role.OWNER, self._withdraw),
            "register": (Role.OWNER, self._register),
            "unregister": (Role.OWNER, self._unregister),
            "contract": (Role.OWNER, self._contract),
            "set-member": (Role.ADMIN, self._set_member),
            "remove-member": (Role.ADMIN, self._remove_member),
            "enrol": (Role.ADMIN, self._enrol),
            "strike": (Role.ADMIN, self._strike),
        }

    def call(self, data: bytes) -> dict[str, Any]:
        """Carry out a signed call and return its answer.

        Raises:
            RefusedError: It may not be done.
            ConflictError: Somebody else was faster.
            UsageError: It makes no sense.
            ContractError: A contract that is brought has no room for a statement that comes with it.
            TrustError: Such a statement is forged.
        """
        try:
            call = Call.parse(data)
        except TrustError as error:
            raise _denied(error.message) from None
        member = self._admitted(call)
        arguments = Members(call.arguments, f"the call '{call.name}'")
        if call.name in self._looks:
            role, look = self._looks[call.name]
            _check_role(member, role)
            return self._database.read(lambda transaction: look(transaction, member, arguments))
        if call.name not in self._changes:
            raise UsageError(f"there is no call '{call.name}'", "is the broker older than this sealfs?")
        role, change = self._changes[call.name]
        try:
            _check_role(member, role)
            answer = self._database.write(lambda transaction: self._logged(transaction, member, call, change))
        except SealfsError as error:
            self._log_refusal(member, call, error)
            raise
        if call.name in {"enrol", "strike"}:
            self._enrolled_changed()
        return answer

    def _admitted(self, call: Call) -> Member:
        """Take a call, once, and return whose it is."""
        now = int(self._clock().timestamp())
        if call.broker != self._identity:
            raise _denied("the call is meant for another broker")
        if not now < call.expires <= now + 2 * LIFETIME:
            away = call.expires - LIFETIME - now
            hint = f"the caller's clock is {abs(away)} s {'ahead of' if away > 0 else 'behind'} the broker's"
            raise _denied("the call is out of date, or from the future", hint)

        def take(transaction: sqlite3.Connection) -> Member:
            member = members.member_by_signer(transaction, call.signer)
            if member is None:
                raise _denied(
                    f"{call.signer} is no member of this broker", "its admin runs: sealfs broker member NAME SIGNER"
                )
            transaction.execute("DELETE FROM calls WHERE expires < ?", (now - LIFETIME,))
            taken = transaction.execute(
                "INSERT OR IGNORE INTO calls VALUES (?, ?)", (call.identifier, call.expires)
            )
            if taken.rowcount != 1:
                raise _denied("this call was made before", "sign a new one")
            return member

        return self._database.write(take)

    def _logged(
        self, transaction: sqlite3.Connection, member: Member, call: Call, change: Change
    ) -> dict[str, Any]:
        answer = change(transaction, member, Members(call.arguments, f"the call '{call.name}'"))
        said = {name: value for name, value in call.arguments.items() if name in _LOGGED and _is_short(value)}
        self._log.append(
            transaction, self._clock(), "changed", {"member": member.name, "call": call.name, "arguments": said}
        )
        return answer

    def _log_refusal(self, member: Member, call: Call, error: SealfsError) -> None:
        fields = {"member": member.name, "call": call.name, "reason": error.message[:1024]}
        self._database.write(
            lambda transaction: self._log.append(transaction, self._clock(), "call refused", fields)
        )

    # What only looks.

    def _hello(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        arguments.only("seen")
        seen = arguments.integer("seen", 1, 1 << 53) if "seen" in arguments else 0
        entry = next(audit.entries(transaction, seen - 1, 1), None) if seen else None
        return {
            "member": member.to_json(),
            "checkpoint": self._log.checkpoint(transaction).to_json(),
            "seen": entry.to_json() if entry else None,
        }

    def _dataset(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        dataset = arguments.only("dataset").text("dataset", DATASET)
        holding = holdings.get_holding(transaction, member.name, dataset)
        return {"holding": _holding_to_json(holding) if holding else None}

    def _datasets(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        arguments.only()
        return {"holdings": [_holding_to_json(h) for h in holdings.holdings_of(transaction, member.name)]}

    def _manifests(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        arguments.only()
        found = holdings.manifests_of(transaction, member.name)
        return {"manifests": [{**holdings.manifest_to_json(m), "revision": revision} for m, revision in found]}

    def _members(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        del member
        arguments.only()
        return {"members": [found.to_json() for found in members.all_members(transaction)]}

    def _enrolled(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        del member
        arguments.only()
        return {"enrolled": [found.to_json() for found in members.all_enrolled(transaction)]}

    def _read_log(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        del member
        after = arguments.only("after", "limit").integer("after")
        page = audit.entries(transaction, after, arguments.integer("limit", 1, _MAX_LOG_PAGE))
        return {
            "entries": [entry.to_json() for entry in page],
            "checkpoint": self._log.checkpoint(transaction).to_json(),
        }

    # What changes something.

    def _publish(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        arguments.only("dataset", "version", "sha256", "signer", "keys", "policy", "revision")
        dataset = arguments.text("dataset", DATASET)
        published = Publication(
            arguments.integer("version", 1, MAX_VERSION),
            arguments.hexadecimal("sha256", 32).hex(),
            str(Signer.parse(arguments.text("signer"))),
        )
        packed = bytes.fromhex(arguments.text("keys", rf"(?:[0-9a-f]{{{_HEX_PER_EPOCH}}}){{1,{MAX_EPOCHS}}}"))
        known = self._held(transaction, member, dataset, arguments)
        holdings.check_publication(known, published)
        self._check_keys(known, dataset, packed)
        if "policy" in arguments:
            policy = _policy_of(arguments)
        elif known is not None:
            policy = known.policy
        else:
            raise UsageError("this broker has no policy for the dataset yet", "name one: sealfs push --policy FILE")
        sealed: bytes | None = self._vault.seal(packed, holdings.keys_context(member.name, dataset))
        if known is not None and known.keys is None and "policy" not in arguments:
            sealed = None  # it was withdrawn: a push that only goes on does not undo that
        revision = known.revision + 1 if known else 1
        holdings.put_holding(transaction, Holding(member.name, dataset, revision, policy, published, sealed))
        return {"revision": revision}

    def _check_keys(self, known: Holding | None, dataset: str, packed: bytes) -> None:
        """Refuse keys that are none, or that have lost an epoch."""
        try:
            new = DatasetKeys.unpack(bytes.fromhex(dataset), packed)
        except IntegrityError as error:
            raise UsageError(error.message) from None
        if known is not None and known.keys is not None:
            old = DatasetKeys.unpack(bytes.fromhex(dataset), self._vault.open(known.keys, known.context))
            if not new.includes(old):
                raise ConflictError(
                    "the broker has keys of this dataset that the published ones lack",
                    "two datasets with one id? Find out which store is right before you go on",
                )

    def _set_policy(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        arguments.only("dataset", "policy", "revision")
        known = self._known(transaction, member, arguments)
        changed = replace(known, policy=_policy_of(arguments), revision=known.revision + 1)
        holdings.put_holding(transaction, changed)
        return {"revision": changed.revision}

    def _withdraw(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        arguments.only("dataset", "revision")
        known = self._known(transaction, member, arguments)
        holdings.put_holding(transaction, replace(known, keys=None, revision=known.revision + 1))
        return {"revision": known.revision + 1}

    def _held(
        self, transaction: sqlite3.Connection, member: Member, dataset: str, arguments: Members
    ) -> Holding | None:
        known = holdings.get_holding(transaction, member.name, dataset)
        expected = arguments.integer("revision", 0, _MAX_REVISION)
        check_revision(f"dataset {dataset}", known.revision if known else 0, expected)
        return known

    def _known(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> Holding:
        dataset = arguments.text("dataset", DATASET)
        known = self._held(transaction, member, dataset, arguments)
        if known is None:
            raise UsageError(f"this broker holds no dataset {dataset} of {member.name}", "push it first")
        return known

    def _register(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        manifest = holdings.manifest_from_json(arguments.only("manifest", "revision").object("manifest"))
        revision = self._manifest_revision(transaction, member, manifest.measurement, arguments)
        holdings.put_manifest(transaction, member.name, manifest, revision + 1)
        return {"revision": revision + 1}

    def _unregister(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        measurement = arguments.only("measurement", "revision").text("measurement", r"[0-9a-f]{32,128}")
        self._manifest_revision(transaction, member, measurement, arguments)
        holdings.remove_manifest(transaction, member.name, measurement)
        return {}

    def _manifest_revision(
        self, transaction: sqlite3.Connection, member: Member, measurement: str, arguments: Members
    ) -> int:
        known = holdings.get_manifest(transaction, member.name, measurement)
        expected = arguments.integer("revision", 0, _MAX_REVISION)
        check_revision(f"manifest {measurement}", known[1] if known else 0, expected)
        return expected

    def _contract(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        task = Task.from_json(arguments.only("task").value("task"))
        if task.contract.party_of(member.signer) is None:
            raise UsageError(
                f"'{member.name}' is no party of that contract", "its parties bring it to their brokers"
            )
        self._carrier.keep(transaction, task, may_be_new=True)
        return {"contract": task.contract.digest}

    def _set_member(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        del member
        arguments.only("name", "signer", "roles", "revision")
        changed = Member(
            arguments.text("name", OWNER),
            Signer.parse(arguments.text("signer")),
            members.parse_roles(arguments.texts("roles", _MAX_ROLES)),
            arguments.integer("revision", 0, _MAX_REVISION) + 1,
        )
        members.put_member(transaction, changed)
        return {"revision": changed.revision}

    def _remove_member(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        del member
        name = arguments.only("name", "revision").text("name", OWNER)
        members.remove_member(transaction, name, arguments.integer("revision", 1, _MAX_REVISION))
        return {}

    def _enrol(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        del member
        arguments.only("kind", "name", "value", "revision")
        changed = Enrolled(
            arguments.text("kind", "|".join(ENROLLED_KINDS)),
            arguments.text("name", OWNER),
            arguments.text("value"),
            arguments.integer("revision", 0, _MAX_REVISION) + 1,
        )
        if changed.kind == "sealfs-runner":
            Signer.parse(changed.value)
        else:
            load_key(changed.value.encode())
        members.put_enrolled(transaction, changed)
        return {"revision": changed.revision}

    def _strike(self, transaction: sqlite3.Connection, member: Member, arguments: Members) -> dict[str, Any]:
        del member
        arguments.only("kind", "name", "revision")
        kind, name = arguments.text("kind", "|".join(ENROLLED_KINDS)), arguments.text("name", OWNER)
        members.remove_enrolled(transaction, kind, name, arguments.integer("revision", 1, _MAX_REVISION))
        return {}


# What of a call's arguments the log repeats; keys are not among them.
_LOGGED = frozenset(
    {"dataset", "version", "sha256", "signer", "policy", "revision", "measurement", "manifest", "name", "roles",
     "kind", "value"}
)  # fmt: skip


def _is_short(value: object) -> bool:
    return len(repr(value)) <= 8192


def _policy_of(arguments: Members) -> Policy:
    return Policy.from_json(arguments.value("policy"))


def _holding_to_json(holding: Holding) -> dict[str, Any]:
    return {
        "dataset": holding.dataset,
        "revision": holding.revision,
        "policy": holding.policy.to_json(),
        "version": holding.newest.version,
        "sha256": holding.newest.sha256,
        "signer": holding.newest.signer,
        "withdrawn": holding.keys is None,
    }


def _check_role(member: Member, role: Role | None) -> None:
    if role is not None and role not in member.roles:
        raise _denied(f"'{member.name}' is no {role} here", "an admin gives roles: sealfs broker member")


def _denied(detail: str, hint: str = "") -> RefusedError:
    return RefusedError(Problem("AdminAuth", 403, detail, hint))
