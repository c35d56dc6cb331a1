"""Fills packs with plaintext, and seals and sends them side by side.

One thread reads and appends; a few workers encrypt, hash and upload whole packs. Memory is bounded by the number
of buffers: nothing is read while all of them are waiting to be sent.

Threading: `PackWriter` belongs to one thread; its workers touch only the pack handed to them.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from sealfs.dataset.content import FileState
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.objects import PACKS, ObjectRef, new_object_id, object_name
from sealfs.floe import SEGMENT_OVERHEAD, Encryptor, encrypt_with
from sealfs.store.base import ObjectStore

PACK_SIZE = 32 << 20  # ciphertext of a full pack: large enough for full speed, small enough to resend
DEFAULT_JOBS = 4

Owner = TypeVar("Owner")


def pack_capacity(segment_length: int) -> int:
    """Return how many plaintext bytes a full pack holds."""
    return max(1, PACK_SIZE // segment_length) * (segment_length - SEGMENT_OVERHEAD)


@dataclass(frozen=True, slots=True)
class SealedPack:
    """A pack that lies in the store.

    Attributes:
        object_id: 24 bytes.
        ref: Name, size and SHA-256 of the object.
        header: FLOE header, 74 bytes.
        epoch: Whose key sealed it.
        plaintext_size: Bytes.
    """

    object_id: bytes
    ref: ObjectRef
    header: bytes
    epoch: int
    plaintext_size: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of a file's bytes in a pack.

    Attributes:
        state: Which file, and in which state it was.
        offset: Where in the file, bytes.
        length: Bytes.
        pack_offset: Where in the pack's plaintext, bytes.
        sha256: Digest of these bytes.
    """

    state: FileState
    offset: int
    length: int
    pack_offset: int
    sha256: bytes


@dataclass(slots=True)
class Draft(Generic[Owner]):
    """A pack that is being filled, sealed or sent.

    Attributes:
        buffer: Its plaintext, and room for more.
        used: How much of it counts, bytes.
        pieces: What it holds, and whose that is.
    """

    buffer: bytearray = field(repr=False)
    used: int = 0
    pieces: list[tuple[Owner, Piece]] = field(default_factory=list)


class PackSealer:
    """Encrypts and uploads packs.

    Args:
        store: Where to.
        keys: The dataset's keys.
        epoch: Which of them seals.
        segment_length: FLOE segment length, bytes.
        push: Id of the push, 8 bytes; part of the packs' names.
    """

    def __init__(self, store: ObjectStore, keys: DatasetKeys, epoch: int, segment_length: int, push: bytes) -> None:
        self._store = store
        self._dataset = keys.dataset
        self._key = keys.pack_key(epoch)
        self._epoch = epoch
        self._push = push
        self.segment_length = segment_length

    def __call__(self, plaintext: memoryview) -> SealedPack:
        """Seal and send one pack."""
        object_id = new_object_id(self._push)
        encryptor = Encryptor(self._key, self._dataset, self.segment_length)
        ciphertext = encrypt_with(encryptor, plaintext)
        name = object_name(PACKS, object_id)
        ref = ObjectRef(name, len(ciphertext), hashlib.sha256(ciphertext).digest())
        self._store.put(name, ciphertext)
        return SealedPack(object_id, ref, encryptor.header, self._epoch, len(plaintext))


class Seals(Protocol):
    """What turns plaintext into a stored pack (a `PackSealer`)."""

    segment_length: int

    def __call__(self, plaintext: memoryview) -> SealedPack:
        """Seal and send one pack."""


class PackWriter(Generic[Owner]):
    """A stream of packs.

    Args:
        seal: Seals and sends one pack; called by workers.
        done: Called in this writer's thread, in order, with each pack that lies in the store and its pieces.
        jobs: How many packs are sealed and sent at once.
    """

    def __init__(
        self,
        seal: Seals,
        done: Callable[[SealedPack, list[tuple[Owner, Piece]]], None],
        jobs: int = DEFAULT_JOBS,
    ) -> None:
        self._seal = seal
        self._done = done
        self.capacity = pack_capacity(seal.segment_length)
        self._jobs = jobs
        self._spare: list[bytearray] = []
        self._sending: deque[tuple[Draft[Owner], Future[SealedPack]]] = deque()
        self._pool = ThreadPoolExecutor(jobs, thread_name_prefix="sealfs-seal")
        self._draft: Draft[Owner] | None = None

    def room(self, wanted: int) -> memoryview:
        """Return free room in a pack, of `wanted` bytes if a pack has so many.

        What is written there counts once `add` has been called; until then the room may be used again.
        """
        if self._draft is not None and self.capacity - self._draft.used < min(wanted, self.capacity):
            self.flush()
        if self._draft is None:
            self._draft = Draft(self._take_buffer())
        return memoryview(self._draft.buffer)[self._draft.used : self.capacity]

    def add(self, owner: Owner, state: FileState, offset: int, length: int, sha256: bytes) -> None:
        """Keep the first `length` bytes of the room as a piece of `owner`'s file."""
        if self._draft is None:
            raise ValueError("there is no room that something could have been written to")
        piece = Piece(state, offset, length, self._draft.used, sha256)
        self._draft.pieces.append((owner, piece))
        self._draft.used += length

    def flush(self) -> None:
        """Send the pack that is being filled, if there is anything in it."""
        draft, self._draft = self._draft, None
        if draft is None:
            return
        if not draft.used:
            self._spare.append(draft.buffer)
            return
        plaintext = memoryview(draft.buffer)[: draft.used]
        self._sending.append((draft, self._pool.submit(self._seal, plaintext)))

    def finish(self) -> None:
        """Send what is left and wait until everything lies in the store."""
        self.flush()
        while self._sending:
            self._collect()

    def close(self) -> None:
        """Stop the workers; what they are sending is finished or fails first."""
        self._pool.shutdown(cancel_futures=True)

    def _take_buffer(self) -> bytearray:
        while self._sending and (len(self._sending) > self._jobs or self._sending[0][1].done()):
            self._collect()
        return self._spare.pop() if self._spare else bytearray(self.capacity)

    def _collect(self) -> None:
        draft, future = self._sending.popleft()
        sealed = future.result()
        self._spare.append(draft.buffer)
        self._done(sealed, draft.pieces)
