"""The keyring: one random key per epoch, wrapped for every recipient.

A keyring object lists the recipients, each with all epoch keys that it may have, wrapped by HPKE. The object is
pinned by the signed snapshot that names it, so nobody but the provider can add a recipient.

Each epoch key is split by purpose, so that no two kinds of ciphertext ever share a key.

Threading: immutable values.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from sealfs.errors import IntegrityError, KeyAccessError, UsageError
from sealfs.fields import FORMAT_VERSION, Fields, canonical_json
from sealfs.floe import KEY_SIZE
from sealfs.keys import Identity, Recipient

MAX_KEYRING_SIZE = 64 << 20
MAX_RECIPIENTS = 10_000
MAX_EPOCHS = 10_000
DATASET_ID_SIZE = 16
_WRAPPED_SIZE_LIMIT = 1 << 20


class DatasetKeys:
    """The epoch keys that somebody holds for one dataset. Shows nothing of them in its repr.

    Args:
        dataset: The dataset's id, 16 bytes.
        epochs: Epoch number, from 1, to key of 32 bytes.
    """

    __slots__ = ("_epochs", "dataset")

    def __init__(self, dataset: bytes, epochs: Mapping[int, bytes]) -> None:
        self.dataset = dataset
        self._epochs = dict(epochs)

    def __repr__(self) -> str:
        return f"<DatasetKeys for epochs {sorted(self._epochs)}>"

    @classmethod
    def generate(cls, dataset: bytes) -> DatasetKeys:
        """Return a new dataset's keys: one random key, for epoch 1."""
        return cls(dataset, {1: os.urandom(KEY_SIZE)})

    @property
    def latest(self) -> int:
        """The newest epoch that is known."""
        return max(self._epochs)

    def with_new_epoch(self) -> DatasetKeys:
        """Return these keys and a fresh random one for the next epoch."""
        return DatasetKeys(self.dataset, {**self._epochs, self.latest + 1: os.urandom(KEY_SIZE)})

    def includes(self, others: DatasetKeys) -> bool:
        """Whether these are the same dataset's keys, and none of the others is missing or different."""
        return self.dataset == others.dataset and self._epochs.items() >= others._epochs.items()

    def _key_for(self, purpose: bytes, epoch: int) -> bytes:
        if epoch not in self._epochs:
            raise KeyAccessError(
                f"this identity has no key for epoch {epoch} of the dataset",
                "ask its provider for a new grant",
            )
        info = b"sealfs 1 " + purpose + b" " + self.dataset
        return HKDFExpand(SHA384(), KEY_SIZE, info).derive(self._epochs[epoch])

    def pack_key(self, epoch: int) -> bytes:
        """Return the FLOE key of an epoch's packs."""
        return self._key_for(b"pack", epoch)

    def index_key(self, epoch: int) -> bytes:
        """Return the FLOE key of an epoch's indexes."""
        return self._key_for(b"index", epoch)

    def summary_key(self, epoch: int) -> bytes:
        """Return the FLOE key of the sealed summaries in an epoch's snapshots."""
        return self._key_for(b"summary", epoch)

    def pack(self) -> bytes:
        """Return what is wrapped for a recipient: per epoch its number (4 bytes, little-endian) and key."""
        return b"".join(n.to_bytes(4, "little") + key for n, key in sorted(self._epochs.items()))

    @classmethod
    def unpack(cls, dataset: bytes, packed: bytes) -> DatasetKeys:
        """Undo `pack`.

        Raises:
            IntegrityError: It is not what `pack` writes.
        """
        step = 4 + KEY_SIZE
        if not packed or len(packed) % step or len(packed) // step > MAX_EPOCHS:
            raise IntegrityError("a wrapped key has the wrong length")
        records = [packed[i : i + step] for i in range(0, len(packed), step)]
        return cls(dataset, {int.from_bytes(record[:4], "little"): record[4:] for record in records})


def _context(dataset: bytes, recipient: Recipient) -> bytes:
    return b"sealfs 1 keyring " + dataset + recipient.raw


class Keyring:
    """A parsed keyring object.

    Attributes:
        recipients: Who can open the dataset, in the order they were added.
    """

    def __init__(self, dataset: bytes, entries: Mapping[Recipient, bytes]) -> None:
        self._dataset = dataset
        self._wrapped = dict(entries)
        self.recipients: tuple[Recipient, ...] = tuple(self._wrapped)

    @classmethod
    def seal(cls, keys: DatasetKeys, recipients: Iterable[Recipient]) -> Keyring:
        """Wrap all of `keys` for each of `recipients`."""
        unique = dict.fromkeys(recipients)
        return cls(keys.dataset, {r: r.wrap(keys.pack(), _context(keys.dataset, r)) for r in unique})

    def to_bytes(self) -> bytes:
        """Return the object's bytes."""
        entries = [{"recipient": str(r), "wrapped": wrapped.hex()} for r, wrapped in self._wrapped.items()]
        document = {
            "format_version": FORMAT_VERSION,
            "dataset": self._dataset.hex(),
            "recipients": entries,
        }
        return canonical_json(document)

    @classmethod
    def parse(cls, data: bytes, dataset: bytes) -> Keyring:
        """Read a keyring object.

        Raises:
            IntegrityError: Malformed, or another dataset's.
            FormatError: Of a newer format.
        """
        fields = Fields.parse(data, "keyring")
        fields.check_version()
        if fields.hexadecimal("dataset", DATASET_ID_SIZE) != dataset:
            raise IntegrityError("the keyring belongs to another dataset")
        entries: dict[Recipient, bytes] = {}
        for entry in fields.objects("recipients", MAX_RECIPIENTS):
            try:
                recipient = Recipient.parse(entry.text("recipient"))
            except UsageError as error:
                raise IntegrityError(f"keyring: {error.message}") from None
            pattern = f"([0-9a-f]{{2}}){{1,{_WRAPPED_SIZE_LIMIT}}}"
            entries[recipient] = bytes.fromhex(entry.text("wrapped", pattern))
        return cls(dataset, entries)

    def open(self, identity: Identity) -> DatasetKeys:
        """Return the keys that `identity` may have.

        Raises:
            KeyAccessError: It is not among the recipients.
        """
        recipient = identity.recipient
        if recipient not in self._wrapped:
            raise KeyAccessError(
                f"identity {recipient.fingerprint} is not a recipient of this dataset",
                "send its .pub file to the provider, who runs: sealfs grant URI FILE.pub",
            )
        packed = identity.unwrap(self._wrapped[recipient], _context(self._dataset, recipient))
        return DatasetKeys.unpack(self._dataset, packed)
