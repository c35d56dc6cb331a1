"""A snapshot as a read-only file system: inodes and bytes. Knows neither FUSE nor S3.

**Fails closed.** Loaders go on after an EIO: some return half an image, some quietly take another sample. So a
file of up to `WHOLE_FILE_LIMIT` bytes is authenticated whole before its first byte is served, and the first
thing that does not authenticate, anywhere, poisons the whole view: every later call raises, and whoever
registered is told once, loudly.

Threading: safe from many threads.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from sealfs.dataset.index import HOLE, ROOT, Entry, Extent, Index
from sealfs.dataset.reader import READ_AHEAD
from sealfs.errors import IntegrityError, NotADatasetError
from sealfs.lru import ByteCache

log = logging.getLogger(__name__)

WHOLE_FILE_LIMIT = 8 << 20  # images, tables and slices that loaders read in one piece are below it
_MAX_FILE_MAPS = 4096
_MAX_KNOWN_PATHS = 100_000
_ZEROS = memoryview(bytes(1 << 20))


@dataclass(slots=True)
class Counters:
    """What a view has served: read calls, bytes, and calls that failed."""

    reads: int = 0
    bytes_read: int = 0
    errors: int = 0


@dataclass(slots=True)
class _FileMap:
    size: int
    extents: list[Extent]
    starts: list[int]  # where each extent starts in the file


class Packs(Protocol):
    """Where a view's bytes come from (a `PackReader`)."""

    def read_into(self, number: int, offset: int, out: memoryview) -> None:
        """Fill the whole of `out` with pack `number`'s content from `offset` on."""

    def prefetch(self, number: int, offset: int, length: int) -> None:
        """Say that a range will probably be wanted soon."""

    def close(self) -> None:
        """Release what is below."""


class View:
    """A read-only view of one snapshot.

    Args:
        index: Its path table.
        packs: Where its bytes come from; closed with the view.
        whole_file_cache: Bytes of authenticated small files to keep for the reads that follow the first.
        whole_file_limit: Files of up to so many bytes are authenticated before their first byte is served.
    """

    def __init__(
        self,
        index: Index,
        packs: Packs,
        *,
        whole_file_cache: int = 64 << 20,
        whole_file_limit: int = WHOLE_FILE_LIMIT,
    ) -> None:
        self.index = index
        self._packs = packs
        self._limit = whole_file_limit
        self._whole: ByteCache[int] = ByteCache(max(whole_file_cache, whole_file_limit))
        self._authenticated = bytearray(index.entries)
        self._maps: dict[int, _FileMap] = {}
        self._paths: dict[bytes, int] = {b"": ROOT}
        self._poison_lock = threading.Lock()
        self._listeners: list[Callable[[str], None]] = []
        self.poisoned: str | None = None
        self.counters = Counters()

    def on_poison(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the reason, once, when the view is poisoned."""
        self._listeners.append(listener)

    def check(self) -> None:
        """Raise IntegrityError once the view is poisoned."""
        if self.poisoned is not None:
            self.counters.errors += 1
            raise IntegrityError(self.poisoned)

    def _poison(self, reason: str) -> IntegrityError:
        with self._poison_lock:
            first = self.poisoned is None
            if first:
                self.poisoned = reason
        if first:
            self._whole.clear()
            log.critical("INTEGRITY FAILURE: %s. Nothing is served from here any more.", reason)
            for listener in self._listeners:
                listener(reason)
        self.counters.errors += 1
        return IntegrityError(self.poisoned or reason)

    def lookup(self, path: bytes) -> int:
        """Return the inode at an absolute or relative path; the root is 0.

        Raises:
            NotADatasetError: There is nothing (its errno is ENOENT).
        """
        self.check()
        number = self._paths.get(path)
        if number is None:
            number = self._guarded(self._find, path)
            if len(self._paths) >= _MAX_KNOWN_PATHS:
                self._paths = {b"": ROOT}
            self._paths[path] = number
        return number

    def _find(self, path: bytes) -> int:
        """Search in the directory, which is usually known already, instead of going down from the root."""
        parent, _, name = path.rpartition(b"/")
        directory = self._paths.get(parent)
        if directory is None or name in {b"", b"."} or not self.index.entry(directory).is_directory:
            return self.index.resolve(path)
        number = self.index.find(directory, name)
        return self.index.resolve(path) if number is None else number

    def _guarded(self, call: Callable[[bytes], int], path: bytes) -> int:
        try:
            return call(path)
        except IntegrityError as error:
            raise self._poison(error.message) from None

    def entry(self, number: int) -> Entry:
        """Return an inode's metadata."""
        self.check()
        return self.index.entry(number)

    def list(self, number: int) -> list[tuple[bytes, int]]:
        """Return a directory's (name, inode) pairs in the provider's order."""
        self.check()
        try:
            return [(self.index.name(child), child) for child in self.index.children(number)]
        except IntegrityError as error:
            raise self._poison(error.message) from None

    def readlink(self, number: int) -> bytes:
        """Return a symlink's target."""
        self.check()
        if not self.index.entry(number).is_symlink:
            raise OSError(errno.EINVAL, "not a symbolic link")
        return self.index.symlink_target(number)

    def read_into(self, number: int, offset: int, out: memoryview) -> int:
        """Read a file's bytes from `offset` on into `out`.

        Returns:
            How many bytes: all that fit, or what is left of the file.

        Raises:
            IntegrityError: Something does not authenticate; the view is poisoned from now on.
            StoreError: The store could not be reached in time; a later read may succeed.
        """
        self.check()
        try:
            file = self._map(number)
            count = min(len(out), file.size - offset)
            if count <= 0:
                return 0
            self._read(number, file, offset, out[:count])
        except (IntegrityError, NotADatasetError) as error:
            path = self.index.path(number).decode("utf-8", "backslashreplace")
            raise self._poison(f"{path}: {error.message}") from None
        except Exception:
            self.counters.errors += 1
            raise
        self.counters.reads += 1
        self.counters.bytes_read += count
        return count

    def _read(self, number: int, file: _FileMap, offset: int, out: memoryview) -> None:
        if file.size > self._limit:
            self._read_range(file, offset, out)
        elif len(out) == file.size:
            self._read_range(file, 0, out)
            self._authenticated[number] = True
        else:
            whole = self._whole.get(number)
            if whole is None and not self._authenticated[number]:
                content = bytearray(file.size)
                self._read_range(file, 0, memoryview(content))
                self._authenticated[number] = True
                self._whole.put(number, content)
                whole = content
            if whole is None:
                self._read_range(file, offset, out)
            else:
                out[:] = memoryview(whole)[offset : offset + len(out)]

    def _read_range(self, file: _FileMap, offset: int, out: memoryview) -> None:
        place = bisect_right(file.starts, offset) - 1
        while out:
            extent = file.extents[place]
            skip = offset - file.starts[place]
            piece = out[: extent.length - skip]
            if extent.pack == HOLE:
                _fill_with_zeros(piece)
            else:
                self._packs.read_into(extent.pack, extent.offset + skip, piece)
                if extent.length - skip - len(piece) < READ_AHEAD:
                    self._prefetch_extent(file, place + 1)
            offset += len(piece)
            out = out[len(piece) :]
            place += 1

    def _prefetch_extent(self, file: _FileMap, place: int) -> None:
        if place < len(file.extents) and (following := file.extents[place]).pack != HOLE:
            self._packs.prefetch(following.pack, following.offset, min(following.length, READ_AHEAD))

    def _map(self, number: int) -> _FileMap:
        file = self._maps.get(number)
        if file is None:
            if self.index.entry(number).is_directory:
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            extents = self.index.extents(number)
            starts = [0]
            if len(extents) > 1:
                starts += accumulate(extent.length for extent in extents[:-1])
            if len(self._maps) >= _MAX_FILE_MAPS:
                self._maps.clear()
            file = self._maps[number] = _FileMap(self.index.entry(number).size, extents, starts)
        return file

    def close(self) -> None:
        """Drop plaintext and release everything below."""
        self._whole.clear()
        self._packs.close()


def _fill_with_zeros(out: memoryview) -> None:
    while out:
        piece = out[: len(_ZEROS)]
        piece[:] = _ZEROS[: len(piece)]
        out = out[len(piece) :]


__all__ = ["ROOT", "WHOLE_FILE_LIMIT", "Counters", "View"]
