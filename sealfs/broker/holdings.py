"""What owners have entrusted to a broker: for each dataset its policy, its keys, sealed, and what was published.

Everything belongs to an owner, by name: what one owner says, of a dataset or of a manifest, binds no other.

Threading: stateless functions within transactions (database.py); values.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

from sealfs.attestation.canonical import Members, canonical
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.attestation.verdict import RegisteredManifest
from sealfs.broker.wrapping import Vault
from sealfs.errors import ConflictError

_MAX_FINDINGS = 200


@dataclass(frozen=True, slots=True)
class Publication:
    """A version of a dataset, as its owner published it.

    Attributes:
        version: Its number.
        sha256: Digest of the snapshot object, hex.
        signer: Signer string of who signed it.
    """

    version: int
    sha256: str
    signer: str


@dataclass(frozen=True, slots=True)
class Holding:
    """What is held of one dataset.

    Attributes:
        owner: Whose it is.
        dataset: Its id, 32 hex digits.
        revision: Counts the changes to this record, from 1.
        policy: What an environment must prove.
        newest: What was published last.
        keys: The sealed keys; None when the owner has withdrawn them.
    """

    owner: str
    dataset: str
    revision: int
    policy: Policy
    newest: Publication
    keys: bytes | None = field(repr=False)

    @property
    def context(self) -> bytes:
        """What the keys are sealed for: no other row opens them."""
        return keys_context(self.owner, self.dataset)


def keys_context(owner: str, dataset: str) -> bytes:
    """Return what the keys of a dataset are sealed for."""
    return f"sealfs 1 broker dataset keys {owner}/{dataset}".encode()


def get_holding(transaction: sqlite3.Connection, owner: str, dataset: str) -> Holding | None:
    """Return what is held of a dataset."""
    row = transaction.execute(
        "SELECT d.revision, d.policy, d.keys, p.version, p.sha256, p.signer FROM datasets d JOIN publications p"
        " USING (owner, dataset, version) WHERE owner = ? AND dataset = ?",
        (owner, dataset),
    ).fetchone()
    if row is None:
        return None
    revision, policy, keys, *newest = row
    return Holding(owner, dataset, revision, Policy.parse(policy.encode()), Publication(*newest), keys)


def holdings_of(transaction: sqlite3.Connection, owner: str) -> Iterator[Holding]:
    """Return all that is held for an owner."""
    rows = transaction.execute("SELECT dataset FROM datasets WHERE owner = ? ORDER BY dataset", (owner,)).fetchall()
    for (dataset,) in rows:
        holding = get_holding(transaction, owner, dataset)
        if holding is not None:
            yield holding


def put_holding(transaction: sqlite3.Connection, holding: Holding) -> None:
    """Write what is held of a dataset; the caller has checked that it may."""
    policy = canonical(holding.policy.to_json()).decode()
    transaction.execute(
        "INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (owner, dataset) DO UPDATE SET"
        " revision = excluded.revision, policy = excluded.policy, version = excluded.version, keys = excluded.keys",
        (holding.owner, holding.dataset, holding.revision, policy, holding.newest.version, holding.keys),
    )
    newest = holding.newest
    transaction.execute(
        "INSERT OR IGNORE INTO publications VALUES (?, ?, ?, ?, ?)",
        (holding.owner, holding.dataset, newest.version, newest.sha256, newest.signer),
    )


def reseal_keys(transaction: sqlite3.Connection, old: Vault, new: Vault) -> int:
    """Seal the keys of all datasets under another master key; return how many there are."""
    rows = transaction.execute("SELECT owner, dataset, keys FROM datasets WHERE keys IS NOT NULL").fetchall()
    for owner, dataset, keys in rows:
        context = keys_context(owner, dataset)
        sealed = new.seal(old.open(keys, context), context)
        transaction.execute(
            "UPDATE datasets SET keys = ? WHERE owner = ? AND dataset = ?", (sealed, owner, dataset)
        )
    return len(rows)


def get_publication(transaction: sqlite3.Connection, owner: str, dataset: str, version: int) -> Publication | None:
    """Return a version as it was published, also one that a newer has replaced since."""
    row = transaction.execute(
        "SELECT version, sha256, signer FROM publications WHERE owner = ? AND dataset = ? AND version = ?",
        (owner, dataset, version),
    ).fetchone()
    return Publication(*row) if row else None


def check_publication(holding: Holding | None, published: Publication) -> None:
    """Refuse to let a dataset go back, or a version mean two things.

    Raises:
        ConflictError: It would.
    """
    if holding is None:
        return
    known = holding.newest
    if published.version < known.version:
        raise ConflictError(
            f"the broker has version {known.version} already, which is newer than {published.version}",
            "a dataset never goes back: push again to make a newer version",
        )
    if published.version == known.version and published.sha256 != known.sha256:
        raise ConflictError(
            f"the broker knows another version {known.version}",
            "the dataset has two histories: find out which store is right before you go on",
        )


def get_manifest(
    transaction: sqlite3.Connection, owner: str, measurement: str
) -> tuple[RegisteredManifest, int] | None:
    """Return what an owner has registered of a measurement, and its revision."""
    row = transaction.execute(
        "SELECT manifest, revision FROM manifests WHERE owner = ? AND measurement = ?", (owner, measurement)
    ).fetchone()
    return (manifest_from_json(Members.parse(row[0].encode(), "the manifest")), row[1]) if row else None


def manifests_of(transaction: sqlite3.Connection, owner: str) -> list[tuple[RegisteredManifest, int]]:
    """Return all that an owner has registered, with revisions."""
    rows = transaction.execute(
        "SELECT manifest, revision FROM manifests WHERE owner = ? ORDER BY measurement", (owner,)
    ).fetchall()
    return [(manifest_from_json(Members.parse(text.encode(), "the manifest")), revision) for text, revision in rows]


def put_manifest(transaction: sqlite3.Connection, owner: str, manifest: RegisteredManifest, revision: int) -> None:
    """Register a manifest for an owner; the caller has checked that it may."""
    transaction.execute(
        "INSERT OR REPLACE INTO manifests VALUES (?, ?, ?, ?)",
        (owner, manifest.measurement, canonical(manifest_to_json(manifest)).decode(), revision),
    )


def remove_manifest(transaction: sqlite3.Connection, owner: str, measurement: str) -> None:
    """Forget a manifest."""
    transaction.execute("DELETE FROM manifests WHERE owner = ? AND measurement = ?", (owner, measurement))


def manifest_to_json(manifest: RegisteredManifest) -> dict[str, object]:
    """Return a registered manifest for the database or the wire."""
    return {
        "measurement": manifest.measurement,
        "level": str(manifest.level),
        "findings": list(manifest.findings[:_MAX_FINDINGS]),
    }


def manifest_from_json(members: Members) -> RegisteredManifest:
    """Undo `manifest_to_json`.

    Raises:
        DocumentError: Malformed.
    """
    members.only("measurement", "level", "findings")
    return RegisteredManifest(
        members.text("measurement", r"(?:[0-9a-f]{2}){16,64}"),
        Level.parse(members.text("level")),
        tuple(members.texts("findings", _MAX_FINDINGS)),
    )
