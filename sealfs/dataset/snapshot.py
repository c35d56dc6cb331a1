"""Snapshots: what a push signs, and the head that points at the newest.

A snapshot object is a DSSE envelope (https://github.com/secure-systems-lab/dsse) around canonical JSON,
signed with the provider's Ed25519 key. The head is a small unsigned pointer: moving it is the one conditional
write that makes a push visible, and what it points at has to authenticate by itself.

Threading: values only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sealfs.dataset.keyring import DATASET_ID_SIZE, MAX_EPOCHS
from sealfs.dataset.objects import INDEXES, KEYRINGS, PACKS, SNAPSHOTS, ObjectRef
from sealfs.dsse import DsseError, Envelope, read_envelope
from sealfs.errors import IntegrityError, TrustError, UsageError
from sealfs.fields import FORMAT_VERSION, Fields, canonical_json
from sealfs.floe import MAX_SEGMENT_LENGTH, MIN_SEGMENT_LENGTH
from sealfs.keys import Identity, Signer

PAYLOAD_TYPE = "application/vnd.sealfs.snapshot+json"
MAX_SNAPSHOT_SIZE = 128 << 20  # parsed before its signature can be checked, so not larger than it must be
MAX_HEAD_SIZE = 4096
MAX_PACKS = 500_000  # 16 TB
MAX_HISTORY = 10_000
MAX_SUMMARY_SIZE = 64 << 10
MAX_VERSION = 1 << 31
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Ancestor:
    """An older snapshot, pinned by its child."""

    version: int
    ref: ObjectRef


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One immutable state of a dataset.

    Attributes:
        dataset: Dataset id, 16 bytes.
        version: 1 for the first push, one more for each that follows.
        time: When it was signed, by the provider's clock.
        signer: Who signed it.
        epoch: Key epoch of the index and summary, and of what the next push seals.
        segment_length: FLOE segment length of new packs, bytes.
        index: The encrypted path table.
        keyring: The wrapped keys.
        summary: FLOE ciphertext of a small JSON document with the push's message and counts.
        history: Older snapshots, oldest first; the last is the parent.
        packs: Every pack that the index refers to.
    """

    dataset: bytes
    version: int
    time: datetime
    signer: Signer
    epoch: int
    segment_length: int
    index: ObjectRef
    keyring: ObjectRef
    summary: bytes = field(repr=False)
    history: tuple[Ancestor, ...] = field(repr=False)
    packs: tuple[ObjectRef, ...] = field(repr=False)

    def sign(self, identity: Identity) -> bytes:
        """Return the snapshot object's bytes."""
        document = {
            "format_version": FORMAT_VERSION,
            "dataset": self.dataset.hex(),
            "version": self.version,
            "time": self.time.strftime(_TIME_FORMAT),
            "signer": str(self.signer),
            "epoch": self.epoch,
            "segment_length": self.segment_length,
            "index": self.index.to_json(),
            "keyring": self.keyring.to_json(),
            "summary": self.summary.hex(),
            "history": [{"version": a.version, **a.ref.to_json()} for a in self.history],
            "packs": [[ref.name, ref.size, ref.sha256.hex()] for ref in self.packs],
        }
        if len(self.packs) > MAX_PACKS:
            raise UsageError(f"a dataset has at most {MAX_PACKS} packs", "push the folder as several datasets")
        envelope = Envelope(canonical_json(document), PAYLOAD_TYPE, {})
        envelope.sign(identity.signing_key())
        return canonical_json(envelope.to_dict())

    @classmethod
    def parse(cls, data: bytes, expected: Signer | None) -> Snapshot:
        """Verify and read a snapshot object.

        Args:
            data: The object's bytes, at most `MAX_SNAPSHOT_SIZE`.
            expected: Whose signature to demand; None believes whom the snapshot names (first use only).

        Raises:
            TrustError: Unsigned, or signed by somebody else.
            IntegrityError: Malformed.
            FormatError: Of a newer format.
        """
        envelope = _open_envelope(data)
        fields = Fields.parse(envelope.payload, "snapshot")
        fields.check_version()
        try:
            named = Signer.parse(fields.text("signer"))
        except UsageError as error:
            raise IntegrityError(f"snapshot: {error.message}") from None
        if expected is not None and named != expected:
            raise TrustError(
                f"the snapshot is signed by {named}, but this dataset is pinned to {expected}",
                "if the provider really has a new key, run: sealfs trust URI --signer NEW",
            )
        _check_signature(envelope, named)
        return cls(
            dataset=fields.hexadecimal("dataset", DATASET_ID_SIZE),
            version=fields.integer("version", 1, MAX_VERSION),
            time=_parse_time(fields.text("time")),
            signer=named,
            epoch=fields.integer("epoch", 1, MAX_EPOCHS),
            segment_length=fields.integer("segment_length", MIN_SEGMENT_LENGTH, MAX_SEGMENT_LENGTH),
            index=ObjectRef.from_fields(fields.object("index"), INDEXES),
            keyring=ObjectRef.from_fields(fields.object("keyring"), KEYRINGS),
            summary=bytes.fromhex(fields.text("summary", f"([0-9a-f]{{2}}){{0,{MAX_SUMMARY_SIZE}}}")),
            history=_parse_history(fields),
            packs=tuple(_parse_pack(member) for member in fields.array("packs", MAX_PACKS)),
        )


def _open_envelope(data: bytes) -> Envelope:
    envelope = read_envelope(Fields.parse(data, "snapshot envelope"), PAYLOAD_TYPE, "snapshot")
    if not envelope.signatures:
        raise TrustError("the snapshot is not signed", "do not use this data; tell its provider")
    return envelope


def _check_signature(envelope: Envelope, signer: Signer) -> None:
    try:
        envelope.verify([signer.verification_key()], 1)
    except (DsseError, ValueError):
        raise TrustError(
            f"the snapshot does not carry a valid signature of {signer}",
            "do not use this data; tell its provider",
        ) from None


def _parse_time(text: str) -> datetime:
    try:
        return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise IntegrityError("snapshot has no valid 'time'") from None


def _parse_history(fields: Fields) -> tuple[Ancestor, ...]:
    history = tuple(
        Ancestor(member.integer("version", 1, MAX_VERSION), ObjectRef.from_fields(member, SNAPSHOTS))
        for member in fields.objects("history", MAX_HISTORY)
    )
    versions = [ancestor.version for ancestor in history]
    following = [*versions[1:], fields.integer("version")] if versions else []
    if any(older + 1 != newer for older, newer in zip(versions, following, strict=True)):
        raise IntegrityError("snapshot has no valid 'history'")
    return history


_PACK_NAME = re.compile(re.escape(PACKS) + r"[0-9a-f]{16}-[0-9a-f]{32}")
_SHA256_HEX = re.compile(r"[0-9a-f]{64}")


def _parse_pack(member: object) -> ObjectRef:
    match member:
        case [str(name), int(size), str(digest)] if (
            size is not True and _PACK_NAME.fullmatch(name) and _SHA256_HEX.fullmatch(digest) and 0 < size < 1 << 48
        ):
            return ObjectRef(name, size, bytes.fromhex(digest))
    raise IntegrityError("snapshot has no valid 'packs'")


@dataclass(frozen=True, slots=True)
class Head:
    """The pointer to the newest snapshot."""

    version: int
    ref: ObjectRef

    def to_bytes(self) -> bytes:
        """Return the head object's bytes."""
        return canonical_json(
            {"format_version": FORMAT_VERSION, "version": self.version, "snapshot": self.ref.to_json()}
        )

    @classmethod
    def parse(cls, data: bytes) -> Head:
        """Read a head object.

        Raises:
            IntegrityError: Malformed.
            FormatError: Of a newer format.
        """
        fields = Fields.parse(data, "head")
        fields.check_version()
        ref = ObjectRef.from_fields(fields.object("snapshot"), SNAPSHOTS)
        return cls(fields.integer("version", 1, MAX_VERSION), ref)
