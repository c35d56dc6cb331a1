"""The broker's log: every decision, in order, chained by SHA-256 and signed record by record.

A record is canonical JSON and names the digest of the one before; its signature covers its own digest. It is
appended in the transaction that decides, so a decision and its record are on disk together or not at all.

Who holds a *checkpoint* (number and digest of a record, as the broker signed it) can tell later that everything up
to there is still as it was. Without one, a log that was cut at its end looks like a shorter log.

Threading: stateless functions within transactions; values.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sealfs.attestation.canonical import Members, canonical, parse_json
from sealfs.errors import AuditError, BrokerError, DocumentError, UsageError
from sealfs.keys import Signer

MAX_RECORD_SIZE = 64 << 10
_DOMAIN = b"sealfs 1 broker log\0"
_START = bytes(32)  # what the first record names as its predecessor
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
_SEQUENCE_LIMIT = 1 << 53
_CLOCK_TOLERANCE = 60.0  # seconds: clocks are corrected in small steps


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log, as it is stored.

    Attributes:
        sequence: From 1.
        record: Canonical JSON.
        signature: Ed25519 over the domain and the record's SHA-256.
    """

    sequence: int
    record: bytes
    signature: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of the record."""
        return hashlib.sha256(self.record).digest()

    def to_json(self) -> dict[str, object]:
        """Return it for the wire."""
        return {"sequence": self.sequence, "record": self.record.decode(), "signature": self.signature.hex()}

    @classmethod
    def from_fields(cls, fields: Members) -> Entry:
        """Read what `to_json` made; nothing of it is verified."""
        record = fields.text("record", f".{{2,{MAX_RECORD_SIZE}}}")
        return cls(
            fields.integer("sequence", 1, _SEQUENCE_LIMIT), record.encode(), fields.hexadecimal("signature", 64)
        )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far somebody has seen a log.

    Attributes:
        broker: Identity of the broker, `sha256:...`.
        key: Who signs its log.
        sequence: Number of the last record seen; 0 before the first.
        digest: SHA-256 of that record, 32 bytes.
        signature: Of that record.
    """

    broker: str
    key: Signer
    sequence: int
    digest: bytes
    signature: bytes

    def to_json(self) -> dict[str, object]:
        """Return it for a file or the wire."""
        return {
            "broker": self.broker,
            "key": str(self.key),
            "sequence": self.sequence,
            "digest": self.digest.hex(),
            "signature": self.signature.hex(),
        }

    @classmethod
    def from_fields(cls, fields: Members) -> Checkpoint:
        """Read what `to_json` made, and verify its signature.

        Raises:
            AuditError: The broker did not sign it.
            DocumentError: Malformed.
            UsageError: It names no key.
        """
        found = cls(
            fields.text("broker", r"sha256:[0-9a-f]{64}"),
            Signer.parse(fields.text("key")),
            fields.integer("sequence", 1, _SEQUENCE_LIMIT),
            fields.hexadecimal("digest", 32),
            fields.hexadecimal("signature", 64),
        )
        _check_signature(found.key, found.digest, found.signature, found.sequence)
        return found


class Log:
    """Appends to the log.

    Args:
        broker: Identity of the broker.
        key: What signs.
    """

    def __init__(self, broker: str, key: Ed25519PrivateKey) -> None:
        self._broker = broker
        self._key = key
        self.signer = Signer(key.public_key().public_bytes_raw())

    def append(self, transaction: sqlite3.Connection, at: datetime, event: str, fields: Mapping[str, Any]) -> int:
        """Add a record; it is on disk when the transaction is. Returns its number.

        Raises:
            BrokerError: See `check_clock`.
        """
        last = self.check_clock(transaction, at)
        sequence = last.sequence + 1 if last else 1
        document = {
            **fields,
            "sequence": sequence,
            "previous": (last.digest if last else _START).hex(),
            "time": at.astimezone(UTC).strftime(_TIME_FORMAT),
            "event": event,
        }
        record = canonical(document)
        if len(record) > MAX_RECORD_SIZE:
            raise UsageError("that is too long for one record of the log", "send less")
        signature = self._key.sign(_DOMAIN + hashlib.sha256(record).digest())
        transaction.execute("INSERT INTO log VALUES (?, ?, ?)", (sequence, record, signature))
        return sequence

    def check_clock(self, transaction: sqlite3.Connection, at: datetime) -> Entry | None:
        """Return the newest record, after which `at` has to be.

        Raises:
            BrokerError: The clock was moved back: what has expired or was answered could seem good again.
        """
        last = self.last(transaction)
        if last is None:
            return None
        behind = (time_of(_parsed(last, last.sequence)) - at).total_seconds()
        if behind > _CLOCK_TOLERANCE:
            raise BrokerError(
                f"the broker's clock is {behind:.0f} s behind its log",
                "set the clock: until then nothing is released",
            )
        return last

    @staticmethod
    def last(transaction: sqlite3.Connection) -> Entry | None:
        """Return the newest record."""
        row = transaction.execute("SELECT * FROM log ORDER BY sequence DESC LIMIT 1").fetchone()
        return Entry(*row) if row else None

    def checkpoint(self, transaction: sqlite3.Connection) -> Checkpoint:
        """Return a checkpoint of the newest record."""
        last = self.last(transaction)
        if last is None:
            raise AuditError("the broker's log is empty, and its first record is made with it")
        return checkpoint_of(self._broker, self.signer, last)


def checkpoint_of(broker: str, key: Signer, entry: Entry) -> Checkpoint:
    """Return a checkpoint of a record."""
    return Checkpoint(broker, key, entry.sequence, entry.digest, entry.signature)


def entries(transaction: sqlite3.Connection, after: int = 0, limit: int = -1) -> Iterator[Entry]:
    """Return stored records in order, those after a number."""
    query = "SELECT sequence, record, signature FROM log WHERE sequence > ? ORDER BY sequence LIMIT ?"
    for row in transaction.execute(query, (after, limit)):
        yield Entry(*row)


def time_of(record: Mapping[str, Any]) -> datetime:
    """Return when a record was made, by the broker's clock."""
    return datetime.strptime(str(record["time"]), _TIME_FORMAT).replace(tzinfo=UTC)


def verify(
    log: Iterable[Entry], key: Signer, checkpoint: Checkpoint | None = None, after: Checkpoint | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the records of a log, each after it was verified.

    Args:
        log: In order.
        key: Who must have signed it.
        checkpoint: Something seen before: the log must still contain it.
        after: Where `log` starts, if not at the first record.

    Raises:
        AuditError: Something is missing, was changed, or stands in another order.
    """
    previous, sequence = (after.digest, after.sequence) if after else (_START, 0)
    seen = checkpoint is None or (after is not None and after.sequence >= checkpoint.sequence)
    for entry in log:
        sequence += 1
        record = _parsed(entry, sequence)
        if record["previous"] != previous.hex():
            raise AuditError(f"record {sequence} of the broker's log does not follow from the one before it")
        _check_signature(key, entry.digest, entry.signature, sequence)
        previous = entry.digest
        if checkpoint is not None and sequence == checkpoint.sequence:
            if checkpoint.digest != entry.digest:
                raise AuditError(f"record {sequence} of the broker's log is not the one that was seen before")
            seen = True
        yield record
    if not seen and checkpoint is not None:
        raise AuditError(
            f"the broker's log ends with record {sequence}, but record {checkpoint.sequence} was seen before"
        )


def _parsed(entry: Entry, sequence: int) -> dict[str, Any]:
    what = f"record {sequence} of the broker's log"
    try:
        document = parse_json(entry.record, what, MAX_RECORD_SIZE)
        fields = Members(document, what)
        if entry.sequence != sequence or fields.integer("sequence") != sequence:
            raise AuditError(f"{what} is missing")
        fields.hexadecimal("previous", 32)
        datetime.strptime(fields.text("time"), _TIME_FORMAT)
        fields.text("event", "[a-z ]{1,40}")
    except (DocumentError, ValueError) as error:
        raise AuditError(f"{what} is none: {error}") from None
    return dict(document)


def _check_signature(key: Signer, digest: bytes, signature: bytes, sequence: int) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(key.raw).verify(signature, _DOMAIN + digest)
    except InvalidSignature:
        raise AuditError(f"record {sequence} of the broker's log is not signed by {key}") from None
