"""Who may do what at a broker: members, each with an Ed25519 key and roles; and what its operator has enrolled.

Threading: stateless functions within transactions (database.py); values.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from sealfs.errors import ConflictError, UsageError
from sealfs.keys import Signer


class Role(StrEnum):
    """What a member may do."""

    ADMIN = "admin"  # members, enrolled keys
    OWNER = "owner"  # datasets, policies and manifests under their own name
    AUDITOR = "auditor"  # read the log


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who may call.

    Attributes:
        name: Also the owner's name in resources.
        signer: Whose calls are theirs.
        roles: What they may do.
        revision: Counts the changes to this record, from 1.
    """

    name: str
    signer: Signer
    roles: frozenset[Role]
    revision: int

    def to_json(self) -> dict[str, object]:
        """Return it for the wire."""
        return {
            "name": self.name,
            "signer": str(self.signer),
            "roles": sorted(self.roles),
            "revision": self.revision,
        }


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A key that evidence may be signed with.

    Attributes:
        kind: Of evidence: "sealfs-runner" or "tpm".
        name: For people.
        value: The public key: a signer string, or PEM.
        revision: Counts the changes to this record, from 1.
    """

    kind: str
    name: str
    value: str
    revision: int

    def to_json(self) -> dict[str, object]:
        """Return it for the wire."""
        return {"kind": self.kind, "name": self.name, "value": self.value, "revision": self.revision}


def _member(row: tuple[str, str, str, int]) -> Member:
    name, signer, roles, revision = row
    return Member(name, Signer.parse(signer), parse_roles(roles.split()), revision)


def parse_roles(names: Collection[str]) -> frozenset[Role]:
    """Read roles.

    Raises:
        UsageError: There is no such role.
    """
    try:
        return frozenset(Role(name) for name in names)
    except ValueError:
        raise UsageError(f"there is no such role among {', '.join(names)}", f"roles: {', '.join(Role)}") from None


def all_members(transaction: sqlite3.Connection) -> list[Member]:
    """Return all members, by name."""
    return [_member(row) for row in transaction.execute("SELECT * FROM members ORDER BY name")]


def member_by_signer(transaction: sqlite3.Connection, signer: Signer) -> Member | None:
    """Return whose key this is."""
    row = transaction.execute("SELECT * FROM members WHERE signer = ?", (str(signer),)).fetchone()
    return _member(row) if row else None


def get_member(transaction: sqlite3.Connection, name: str) -> Member | None:
    """Return a member by name."""
    row = transaction.execute("SELECT * FROM members WHERE name = ?", (name,)).fetchone()
    return _member(row) if row else None


def put_member(transaction: sqlite3.Connection, member: Member) -> None:
    """Add a member, or change one; `member.revision` is the new one.

    Raises:
        ConflictError: The record has changed since, or the key is somebody else's.
        UsageError: Nobody would be left who can change members.
    """
    others = [other for other in all_members(transaction) if other.name != member.name]
    same = [other for other in all_members(transaction) if other.name == member.name]
    check_revision(f"member '{member.name}'", same[0].revision if same else 0, member.revision - 1)
    if any(other.signer == member.signer for other in others):
        raise ConflictError("that key belongs to another member", "each member has a key of their own")
    _check_admin_left([*others, member])
    transaction.execute(
        "INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?)",
        (member.name, str(member.signer), " ".join(sorted(member.roles)), member.revision),
    )


def remove_member(transaction: sqlite3.Connection, name: str, revision: int) -> None:
    """Remove a member as they were at a revision; what they own stays.

    Raises:
        ConflictError: The record has changed since.
        UsageError: Nobody would be left who can change members.
    """
    members = all_members(transaction)
    check_revision(f"member '{name}'", next((m.revision for m in members if m.name == name), 0), revision)
    _check_admin_left([member for member in members if member.name != name])
    transaction.execute("DELETE FROM members WHERE name = ?", (name,))


def _check_admin_left(members: Collection[Member]) -> None:
    if not any(Role.ADMIN in member.roles for member in members):
        raise UsageError("that would leave the broker without an admin", "make somebody else admin first")


def all_enrolled(transaction: sqlite3.Connection) -> list[Enrolled]:
    """Return all keys that are enrolled."""
    return [Enrolled(*row) for row in transaction.execute("SELECT * FROM enrolled ORDER BY kind, name")]


def put_enrolled(transaction: sqlite3.Connection, enrolled: Enrolled) -> None:
    """Enrol a key, or change one; `enrolled.revision` is the new one.

    Raises:
        ConflictError: The record has changed since.
    """
    _check_enrolled(transaction, enrolled.kind, enrolled.name, enrolled.revision - 1)
    transaction.execute(
        "INSERT OR REPLACE INTO enrolled VALUES (?, ?, ?, ?)",
        (enrolled.kind, enrolled.name, enrolled.value, enrolled.revision),
    )


def remove_enrolled(transaction: sqlite3.Connection, kind: str, name: str, revision: int) -> None:
    """Forget a key as it was at a revision.

    Raises:
        ConflictError: The record has changed since.
    """
    _check_enrolled(transaction, kind, name, revision)
    transaction.execute("DELETE FROM enrolled WHERE kind = ? AND name = ?", (kind, name))


def _check_enrolled(transaction: sqlite3.Connection, kind: str, name: str, revision: int) -> None:
    query = "SELECT revision FROM enrolled WHERE kind = ? AND name = ?"
    row = transaction.execute(query, (kind, name)).fetchone()
    check_revision(f"{kind} '{name}'", row[0] if row else 0, revision)


def check_revision(what: str, current: int, expected: int) -> None:
    """Refuse to change what somebody else has changed since the caller saw it; revision 0 is "not there".

    Raises:
        ConflictError: They have.
    """
    if current == expected:
        return
    words = f"is at revision {current}" if current else "is not there"
    raise ConflictError(
        f"somebody else has changed the {what} in the meantime: it {words}, you had seen {expected}",
        "look at it again, then decide again",
    )
