"""A ciphertext cache between readers and a distant store.

Objects are fetched in whole blocks, several at once and ahead of the reader, and kept on disk (or in memory when
there is no folder for them). What lies in the cache is as untrusted as the store: nothing is checked here,
because every byte is authenticated by who decrypts it, at each use. Blocks are written to a temporary file and
renamed, so a crash leaves whole blocks or none; the total never exceeds its limit.

Threading: safe from many threads. A block that several want is fetched once. `about_to_block` is called by a
thread that is going to wait for the network, so that a single-threaded server can let somebody else serve.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sealfs.errors import LocalIOError, ObjectNotFoundError, ObjectSizeError, StoreError
from sealfs.lru import ByteCache
from sealfs.store.base import ObjectStore

log = logging.getLogger(__name__)

BLOCK_SIZE = 4 << 20  # a GET of this size spends its time on bytes, not on the round trip
_FETCH_THREADS = 8
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0

BlockKey = tuple[str, int]

_BLOCK_NAME = re.compile(r"([a-z]+)_([0-9a-f-]+)\.([0-9]{1,12})", re.ASCII)


@dataclass(slots=True)
class CacheCounters:
    """What a cache has done so far: blocks found, blocks fetched, bytes fetched, failed fetches."""

    hits: int = 0
    misses: int = 0
    fetched: int = 0
    errors: int = 0


class DiskBlocks:
    """Blocks as files in a folder, least recently used dropped first.

    Args:
        directory: For this process only; it is locked.
        limit: Bytes in all.

    Raises:
        LocalIOError: The folder can't be made, or another process uses it.
    """

    def __init__(self, directory: Path, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._lock = threading.Lock()
        self._sizes: OrderedDict[BlockKey, int] = OrderedDict()
        self._being_written: set[BlockKey] = set()  # counted in `size`, and nobody's to evict
        self.size = 0
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_file: IO[bytes] = (directory / "lock").open("ab")
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock_file.close()
            raise LocalIOError(
                f"another mount uses the cache {directory}", "give this one its own with --cache-dir"
            ) from None
        except OSError as error:
            raise LocalIOError(
                f"cannot use the cache {directory}: {error.strerror}", "name another with --cache-dir"
            ) from None
        self._adopt()

    def _path(self, key: BlockKey) -> Path:
        name, block = key
        flat = name.replace("/", "_")
        return self._directory / flat[-2:] / f"{flat}.{block}"

    def _adopt(self) -> None:
        """Take over what an earlier process left, oldest first, and clear away what it left half-done."""
        found: list[tuple[float, BlockKey, int]] = []
        for path in self._directory.glob("??/*"):
            match, status = _BLOCK_NAME.fullmatch(path.name), path.lstat()
            if match is None or not stat.S_ISREG(status.st_mode):
                _remove(path)
                continue
            found.append((status.st_mtime, (f"{match[1]}/{match[2]}", int(match[3])), status.st_size))
        for _, key, size in sorted(found):
            self._sizes[key] = size
            self.size += size
        self._evict(self._limit)

    def _evict(self, limit: int) -> None:
        while self.size > limit and self._sizes:
            key, size = self._sizes.popitem(last=False)
            self.size -= size
            _remove(self._path(key))

    def __contains__(self, key: BlockKey) -> bool:
        return key in self._sizes

    def read_into(self, key: BlockKey, offset: int, buffer: memoryview) -> bool:
        """Fill `buffer` from within a block; False when it is not here (any more)."""
        with self._lock:
            if key not in self._sizes:
                return False
            self._sizes.move_to_end(key)
        try:
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            self.discard(key)
            return False
        try:
            count = os.preadv(descriptor, [buffer], offset)
        except OSError:
            count = -1
        finally:
            os.close(descriptor)
        if count != len(buffer):
            self.discard(key)
            return False
        return True

    def put(self, key: BlockKey, data: bytearray) -> None:
        """Keep a block; room is made first, so that the limit holds at every moment."""
        if len(data) > self._limit:
            return
        with self._lock:
            if key in self._sizes or key in self._being_written:
                return
            self._evict(self._limit - len(data))
            if self.size + len(data) > self._limit:
                return  # others are being written and take up all of it
            self._being_written.add(key)
            self.size += len(data)
        written = self._write(self._path(key), data)
        with self._lock:
            self._being_written.remove(key)
            if written:
                self._sizes[key] = len(data)
            else:
                self.size -= len(data)

    def _write(self, path: Path, data: bytearray) -> bool:
        temporary = path.with_name(f"{path.name}.tmp")
        try:
            path.parent.mkdir(exist_ok=True, mode=0o700)
            _remove(temporary)  # of a process that was killed, or a link that somebody has put there
            with temporary.open("xb", buffering=0) as file:
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
            temporary.replace(path)
        except OSError as error:
            log.warning("cannot cache a block on disk (%s); going on without", error.strerror)
            _remove(temporary)
            return False
        return True

    def discard(self, key: BlockKey) -> bool:
        """Drop a block; say whether it was here."""
        with self._lock:
            size = self._sizes.pop(key, None)
            if size is None:
                return False
            self.size -= size
            _remove(self._path(key))
        return True

    def close(self) -> None:
        """Let another process use the folder."""
        self._lock_file.close()


class MemoryBlocks:
    """Blocks in memory, for where there is no folder to keep them in.

    Args:
        limit: Bytes in all.
    """

    def __init__(self, limit: int) -> None:
        self._blocks: ByteCache[BlockKey] = ByteCache(limit)

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._blocks.size

    def __contains__(self, key: BlockKey) -> bool:
        return key in self._blocks

    def read_into(self, key: BlockKey, offset: int, buffer: memoryview) -> bool:
        """Fill `buffer` from within a block; False when it is not here."""
        block = self._blocks.get(key)
        if block is None:
            return False
        buffer[:] = memoryview(block)[offset : offset + len(buffer)]
        return True

    def put(self, key: BlockKey, data: bytearray) -> None:
        """Keep a block."""
        self._blocks.put(key, data)

    def discard(self, key: BlockKey) -> bool:
        """Drop a block; say whether it was here."""
        return self._blocks.discard(key)

    def close(self) -> None:
        """Drop everything."""
        self._blocks.clear()


class BlockCache:
    """A `CiphertextSource` over a distant store.

    Args:
        store: Where the objects lie; closed with this.
        blocks: Where fetched blocks are kept; closed with this.
        deadline: How long a fetch is tried again while the store is away, seconds.
        about_to_block: Called by a thread before it waits for the network.
    """

    def __init__(
        self,
        store: ObjectStore,
        blocks: DiskBlocks | MemoryBlocks,
        *,
        deadline: float = 60.0,
        about_to_block: Callable[[], None] | None = None,
    ) -> None:
        self._store = store
        self._blocks = blocks
        self._deadline = deadline
        self.about_to_block = about_to_block
        self._flying: dict[BlockKey, Future[bytearray]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._pool = ThreadPoolExecutor(_FETCH_THREADS, thread_name_prefix="sealfs-fetch")
        self.counters = CacheCounters()

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._blocks.size

    def read_into(self, name: str, size: int, offset: int, buffer: memoryview) -> None:
        """See `CiphertextSource`."""
        while buffer:
            key, start = (name, offset // BLOCK_SIZE), offset % BLOCK_SIZE
            piece = buffer[: BLOCK_SIZE - start]
            if self._blocks.read_into(key, start, piece):
                self.counters.hits += 1
            else:
                flight = self._fetch(key, size)
                if self.about_to_block is not None and not flight.done():
                    self.about_to_block()
                piece[:] = memoryview(_landed(flight))[start : start + len(piece)]
            offset += len(piece)
            buffer = buffer[len(piece) :]

    def prefetch(self, name: str, size: int, offset: int, length: int) -> None:
        """See `CiphertextSource`."""
        end = min(size, offset + length)
        for block in range(offset // BLOCK_SIZE, -(-end // BLOCK_SIZE)):
            if (name, block) not in self._blocks:
                self._fetch((name, block), size)

    def wait(self, name: str, size: int) -> None:
        """Wait until what is being fetched of an object has arrived.

        Raises:
            StoreError: Some of it did not.
        """
        for block in range(-(-size // BLOCK_SIZE)):
            flight = self._flying.get((name, block))
            if flight is not None:
                _landed(flight)

    def discard(self, name: str, offset: int, length: int) -> bool:
        """See `CiphertextSource`; even what is not here any more may have been read a moment ago."""
        for block in range(offset // BLOCK_SIZE, -(-(offset + length) // BLOCK_SIZE)):
            self._blocks.discard((name, block))
        return True

    def close(self) -> None:
        """See `CiphertextSource`; fetches under way are given up."""
        with self._lock:  # nobody is between looking at it and submitting
            self._closing.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._blocks.close()
        self._store.close()

    def _fetch(self, key: BlockKey, size: int) -> Future[bytearray]:
        with self._lock:
            flight = self._flying.get(key)
            if flight is None:
                if self._closing.is_set():
                    raise StoreError("the mount is being closed")
                self.counters.misses += 1
                flight = self._flying[key] = self._pool.submit(self._load, key, size)
        return flight

    def _load(self, key: BlockKey, size: int) -> bytearray:
        name, block = key
        data = bytearray(min(BLOCK_SIZE, size - block * BLOCK_SIZE))
        try:
            self._read_within_deadline(name, block * BLOCK_SIZE, memoryview(data))
            self.counters.fetched += len(data)
            self._blocks.put(key, data)
            return data
        finally:
            with self._lock:
                del self._flying[key]

    def _read_within_deadline(self, name: str, offset: int, buffer: memoryview) -> None:
        give_up = time.monotonic() + self._deadline
        pause = _FIRST_PAUSE
        while True:
            try:
                self._store.read_into(name, offset, buffer)
                return
            except (ObjectNotFoundError, ObjectSizeError):
                self.counters.errors += 1
                raise
            except StoreError as error:
                self.counters.errors += 1
                if time.monotonic() + pause > give_up:
                    raise
                log.warning("the store does not answer (%s); trying again", error.message)
            if self._closing.wait(pause):
                raise StoreError("the mount is being closed")
            pause = min(2 * pause, _LONGEST_PAUSE)


def _landed(flight: Future[bytearray]) -> bytearray:
    try:
        return flight.result()
    except CancelledError:
        raise StoreError("the mount is being closed") from None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # what is left does no harm: it is fetched or tried again
        path.unlink()
