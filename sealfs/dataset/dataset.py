"""Opening a sealed dataset: from an address to a verified snapshot, its keys and its index.

The one place where head, signature, pins, keyring and index come together, in this order, for every verb.

Threading: a `Dataset` is immutable; its store may be shared.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sealfs import floe
from sealfs.dataset.index import MAX_INDEX_SIZE, Index
from sealfs.dataset.keyring import MAX_KEYRING_SIZE, DatasetKeys, Keyring
from sealfs.dataset.objects import HEAD, ObjectRef
from sealfs.dataset.snapshot import MAX_HEAD_SIZE, MAX_SNAPSHOT_SIZE, MAX_SUMMARY_SIZE, Head, Snapshot
from sealfs.dataset.trust import TrustStore
from sealfs.dataset.version import Version, shown_version
from sealfs.errors import (
    IntegrityError,
    KeyAccessError,
    NotADatasetError,
    ObjectNotFoundError,
    ObjectSizeError,
    UsageError,
)
from sealfs.fields import Fields, canonical_json
from sealfs.keys import Identity, Signer
from sealfs.store.base import ObjectStore

_SUMMARY_SEGMENT = 16 << 10
_MAX_MESSAGE_SIZE = MAX_SUMMARY_SIZE - (1 << 10)  # leaves room for the counts and for FLOE


@dataclass(frozen=True, slots=True)
class Summary:
    """What a push says about itself, sealed inside its snapshot.

    Attributes:
        action: Which verb made the snapshot.
        message: The user's words.
        files: Number of regular files.
        size: Bytes in them.
        added: Files that the parent did not have.
        changed: Files with other content than in the parent.
        removed: Files that only the parent has.
    """

    action: str
    message: str = ""
    files: int = 0
    size: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0

    def seal(self, keys: DatasetKeys, epoch: int) -> bytes:
        """Return the ciphertext for a snapshot."""
        document = canonical_json({name: getattr(self, name) for name in self.__slots__})
        return bytes(floe.encrypt(keys.summary_key(epoch), keys.dataset, document, _SUMMARY_SEGMENT))

    def check(self) -> None:
        """Refuse a message that no reader would take.

        Raises:
            UsageError: It is too long.
        """
        if len(canonical_json(self.message)) > _MAX_MESSAGE_SIZE:
            raise UsageError("the message is too long", f"{_MAX_MESSAGE_SIZE // 1024} KiB of JSON text is the most")

    @classmethod
    def open(cls, snapshot: Snapshot, keys: DatasetKeys) -> Summary:
        """Return a snapshot's summary."""
        data = floe.decrypt(keys.summary_key(snapshot.epoch), snapshot.dataset, snapshot.summary)
        fields = Fields.parse(bytes(data), "summary")
        counts = {name: fields.integer(name) for name in ("files", "size", "added", "changed", "removed")}
        return cls(fields.text("action"), fields.text("message", f".{{0,{MAX_SUMMARY_SIZE}}}"), **counts)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A verified snapshot and where it lies.

    Attributes:
        store: Where its objects are.
        snapshot: The version asked for.
        ref: That snapshot's own object.
        newest: The newest snapshot (the same one unless an older was asked for).
        head_etag: The head's state, for the next push's conditional write.
        first_use: Whether this address was never seen before, so that the signer was taken on trust.
    """

    store: ObjectStore
    snapshot: Snapshot
    ref: ObjectRef
    newest: Snapshot
    head_etag: str = field(repr=False)
    first_use: bool

    @classmethod
    def open(
        cls,
        store: ObjectStore,
        trust: TrustStore,
        *,
        version: Version | None = None,
        signer: Signer | None = None,
    ) -> Dataset:
        """Fetch and verify a snapshot.

        Args:
            store: Where the dataset lies.
            trust: The user's pins.
            version: Which snapshot, by its number or its SHA-256; None for the newest.
            signer: Whom to believe at first use; None believes whom the snapshot names.

        Raises:
            NotADatasetError: No dataset there, or no such version.
            TrustError: Unsigned, foreign, or older than already seen.
            IntegrityError: Forged or damaged.
        """
        try:
            data, etag = store.get(HEAD, max_size=MAX_HEAD_SIZE)
        except ObjectNotFoundError:
            raise NotADatasetError(
                f"{store.uri} is not a sealed dataset", "check the address, or seal a folder: sealfs push SRC URI"
            ) from None
        except ObjectSizeError:
            raise IntegrityError(f"{store.uri} has a head that is none") from None
        head = Head.parse(data)
        expected = trust.expected_signer(store.uri, signer)
        newest = Snapshot.parse(head.ref.fetch(store, MAX_SNAPSHOT_SIZE), expected)
        if newest.version != head.version:
            raise IntegrityError("the head names another version than its snapshot")
        first_use = trust.accept(store.uri, newest, head.ref)
        if version is None or version in (newest.version, head.ref.sha256):
            return cls(store, newest, head.ref, newest, etag, first_use)
        snapshot, ref = find_ancestor(store, newest, version)
        return cls(store, snapshot, ref, newest, etag, first_use)

    def ancestor(self, version: int) -> Snapshot:
        """Return an older snapshot of the same dataset (see `find_ancestor`)."""
        return find_ancestor(self.store, self.newest, version)[0]

    def keyring(self) -> Keyring:
        """Fetch the keyring in force: the newest snapshot's."""
        return _fetch_keyring(self.store, self.newest)

    def keys(self, identity: Identity) -> DatasetKeys:
        """Return the keys that `identity` has for this snapshot.

        Who lost access since keeps what the keyring of the snapshot itself gives.

        Raises:
            KeyAccessError: It is not a recipient.
        """
        try:
            return self.keyring().open(identity)
        except KeyAccessError:
            if self.snapshot is self.newest:
                raise
            return _fetch_keyring(self.store, self.snapshot).open(identity)

    def index(self, keys: DatasetKeys) -> Index:
        """Fetch, authenticate and open the path table."""
        data = self.snapshot.index.fetch(self.store, MAX_INDEX_SIZE)
        plaintext = floe.decrypt(keys.index_key(self.snapshot.epoch), self.snapshot.dataset, data)
        del data  # a million files: 110 MB that nobody needs twice
        index = Index(plaintext, self.snapshot.dataset)
        if index.version > self.snapshot.version:
            raise IntegrityError("the index belongs to a later version")
        return index


def find_ancestor(store: ObjectStore, newest: Snapshot, version: Version) -> tuple[Snapshot, ObjectRef]:
    """Return an older snapshot and its object.

    Raises:
        NotADatasetError: There is no such version, or it has been deleted.
        IntegrityError: It is not the one that the newest snapshot pins.
    """
    for ancestor in newest.history:
        if version not in (ancestor.version, ancestor.ref.sha256):
            continue
        try:
            store.stat(ancestor.ref.name)
        except ObjectNotFoundError:
            raise NotADatasetError(
                f"version {ancestor.version} is no longer in the store", "'sealfs log' lists the versions that are"
            ) from None
        # the child's signature covers the ancestor's digest, so the signer of that day needs no pin
        snapshot = Snapshot.parse(ancestor.ref.fetch(store, MAX_SNAPSHOT_SIZE), None)
        if (snapshot.dataset, snapshot.version) != (newest.dataset, ancestor.version):
            raise IntegrityError(f"version {ancestor.version} is another snapshot than its children say")
        return snapshot, ancestor.ref
    raise NotADatasetError(
        f"there is no version {shown_version(version)}, the newest is {newest.version}",
        "'sealfs log' lists the versions",
    )


def _fetch_keyring(store: ObjectStore, snapshot: Snapshot) -> Keyring:
    return Keyring.parse(snapshot.keyring.fetch(store, MAX_KEYRING_SIZE), snapshot.dataset)
