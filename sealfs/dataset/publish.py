"""Making a new snapshot visible: the last step of every verb that changes a dataset.

Objects first, the signed snapshot next, the head last and by a conditional write: until that one request
succeeds nothing has happened for anybody else.

Threading: one thread at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sealfs import floe
from sealfs.dataset.dataset import Dataset, Summary
from sealfs.dataset.keyring import DatasetKeys, Keyring
from sealfs.dataset.objects import HEAD, INDEXES, KEYRINGS, SNAPSHOTS, ObjectRef, new_object_id, object_name
from sealfs.dataset.session import PushSession
from sealfs.dataset.snapshot import MAX_HEAD_SIZE, MAX_HISTORY, Ancestor, BrokerHint, Head, Snapshot
from sealfs.dataset.trust import TrustStore
from sealfs.errors import ConflictError, ObjectNotFoundError, PreconditionFailedError, StoreError
from sealfs.keys import Identity
from sealfs.store.base import ObjectStore


@dataclass(frozen=True, slots=True)
class Publisher:
    """Who publishes, where, and on top of what.

    Attributes:
        store: Where the dataset lies.
        trust: The user's pins; moved forward with the head.
        identity: Whose signature the snapshot gets.
        parent: The newest snapshot; None makes version 1.
        session: The marker that protects what has been sent.
        single_writer: The user's word that nobody else writes, for stores without conditional writes.
        broker: Which broker has the keys from now on; None leaves it as the parent has it.
        level: See `Snapshot.level`.
    """

    store: ObjectStore
    trust: TrustStore
    identity: Identity
    parent: Dataset | None
    session: PushSession
    single_writer: bool = False
    broker: BrokerHint | None = None
    level: str | None = None

    @property
    def version(self) -> int:
        """The version that will be published."""
        return self.parent.newest.version + 1 if self.parent else 1

    def check_store(self) -> None:
        """Refuse stores where two writers would overwrite each other unnoticed.

        Raises:
            StoreError: Conditional writes do not hold there and nobody promised to be the only writer.
        """
        if not self.single_writer and not self.store.has_conditional_writes():
            raise StoreError(
                f"{self.store.uri} ignores conditional writes: two pushes at once would lose one of them",
                "if you are sure to be the only writer, say so with --single-writer",
            )

    def put(self, kind: str, data: bytes | bytearray) -> ObjectRef:
        """Write a new object of this push and return the reference to it."""
        ref = ObjectRef.of(object_name(kind, new_object_id(self.session.push)), data)
        self.store.put(ref.name, data)
        return ref

    def put_keyring(self, keyring: Keyring) -> ObjectRef:
        """Write a keyring object."""
        return self.put(KEYRINGS, keyring.to_bytes())

    def put_index(self, index: bytearray, keys: DatasetKeys, epoch: int, segment_length: int) -> ObjectRef:
        """Encrypt and write an index object."""
        return self.put(INDEXES, floe.encrypt(keys.index_key(epoch), keys.dataset, index, segment_length))

    def publish(
        self,
        keys: DatasetKeys,
        *,
        epoch: int,
        segment_length: int,
        index: ObjectRef,
        keyring: ObjectRef,
        packs: Sequence[ObjectRef],
        summary: Summary,
    ) -> Snapshot:
        """Sign the snapshot and move the head to it.

        Raises:
            ConflictError: Somebody else pushed in the meantime; nothing of theirs was touched.
        """
        parent = self.parent
        history = (*parent.newest.history, Ancestor(parent.newest.version, parent.ref)) if parent else ()
        snapshot = Snapshot(
            dataset=keys.dataset,
            version=self.version,
            time=datetime.now(UTC).replace(microsecond=0),
            signer=self.identity.signer,
            epoch=epoch,
            segment_length=segment_length,
            index=index,
            keyring=keyring,
            summary=summary.seal(keys, epoch),
            history=history[-MAX_HISTORY:],
            packs=tuple(packs),
            broker=self.broker or (parent.newest.broker if parent else None),
            level=self.level,
        )
        ref = self.put(SNAPSHOTS, snapshot.sign(self.identity))
        self.session.check()
        self._move_head(Head(snapshot.version, ref))
        self.trust.accept(self.store.uri, snapshot, ref)
        self.session.end()
        return snapshot

    def _move_head(self, head: Head) -> None:
        etag = self.parent.head_etag if self.parent else None
        try:
            if self.single_writer and not self.store.has_conditional_writes():
                if self._current_etag() != etag:
                    raise PreconditionFailedError("the head has moved")
                self.store.put(HEAD, head.to_bytes())
            else:
                self.store.put(HEAD, head.to_bytes(), if_absent=etag is None, if_match=etag)
        except PreconditionFailedError:
            raise ConflictError(
                f"somebody else pushed version {self._current_version()} in the meantime",
                "nothing is lost: run it again to go on from there",
            ) from None

    def _current_etag(self) -> str | None:
        try:
            return self.store.get(HEAD, max_size=MAX_HEAD_SIZE)[1]
        except ObjectNotFoundError:
            return None

    def _current_version(self) -> int:
        return Head.parse(self.store.get(HEAD, max_size=MAX_HEAD_SIZE)[0]).version
