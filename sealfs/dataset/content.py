"""Reads a source file so that what is kept is one state of it, never a mixture of two.

Threading: stateless.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sealfs.dataset.scan import shown, vanished
from sealfs.errors import SourceFileError

_MIN_SPARSE = 1 << 20  # smaller files are not worth asking for holes
_SETTLED_NS = 100_000_000  # many ticks of the kernel's clock, and longer than a write of some megabytes
_HASH_STEP = 1 << 20


@dataclass(frozen=True, slots=True)
class FileState:
    """Tells whether a file is still what it was when it was read.

    Attributes:
        path: Below the source folder.
        inode: st_ino.
        size: Bytes.
        mtime_ns: Modification time, nanoseconds.
        ctime_ns: Change time, nanoseconds; tools that restore mtime cannot set it back.
    """

    path: bytes
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, path: bytes, status: os.stat_result) -> FileState:
        """Return the state that `status` describes."""
        return cls(path, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class ChangedWhileReadError(Exception):
    """The file is not what it was when reading it began; read it again."""


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a file: data, or a hole that reads as zeros."""

    offset: int
    length: int
    hole: bool


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A source file that is open for reading.

    Attributes:
        descriptor: Its file descriptor.
        state: What it was when it was opened.
        mode: st_mode.
        sparse: Whether the file is large and has holes.
    """

    descriptor: int
    state: FileState
    mode: int
    sparse: bool

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill the whole of `out` from `offset` on.

        Raises:
            ChangedWhileReadError: The file has become shorter.
        """
        while out:
            count = os.preadv(self.descriptor, [out], offset)
            if count == 0:
                raise ChangedWhileReadError
            offset += count
            out = out[count:]

    def has_settled(self) -> bool:
        """Whether the last write to the file is over; waits for that if not: then the file must be opened anew.

        The kernel sets a file's mtime when a write begins, and by a clock that ticks: a file that was just written
        may still be being written, or be written again, without its mtime telling.
        """
        age = time.time_ns() - self.state.mtime_ns
        if 0 <= age < _SETTLED_NS:
            time.sleep((_SETTLED_NS - age) / 1e9)
            return False
        return True

    def check_unchanged(self) -> None:
        """Raise ChangedWhileReadError if the file is not what it was when it was opened."""
        if FileState.of(self.state.path, os.fstat(self.descriptor)) != self.state:
            raise ChangedWhileReadError

    def check_moment(self, digest: bytes) -> None:
        """Raise ChangedWhileReadError if what was read is not what the file was at one moment: now.

        What reads the same before and after a moment was there at that moment, all of it (Afek et al., "Atomic
        snapshots of shared memory", JACM 1993: the double collect). So a log to which lines are added all the time
        can be sealed, and what is written through a mapping, which changes no time, is noticed. What changes and
        changes back, each time between the two reads of it, is not: files do not number their writes, as theirs do.

        Args:
            digest: SHA-256 of what was read.
        """
        if os.fstat(self.descriptor).st_size != self.state.size or self.sha256() != digest:
            raise ChangedWhileReadError

    def sha256(self) -> bytes:
        """Read the file's bytes and return their SHA-256.

        Raises:
            ChangedWhileReadError: The file has become shorter.
        """
        size = self.state.size
        digest, buffer = hashlib.sha256(), memoryview(bytearray(min(size, _HASH_STEP)))
        for offset in range(0, size, _HASH_STEP):
            step = buffer[: min(_HASH_STEP, size - offset)]
            self.read_into(offset, step)
            digest.update(step)
        return digest.digest()

    def runs(self) -> Iterator[Run]:
        """Yield the file's stretches in order; all of it is data where holes are not worth it or cannot be found.

        Gramine knows of no holes, and says of its files in memory that they have no blocks.
        """
        size, offset = self.state.size, 0
        if not self.sparse:
            if size:
                yield Run(0, size, hole=False)
            return
        while offset < size:
            try:
                data = min(size, os.lseek(self.descriptor, offset, os.SEEK_DATA))
            except OSError as error:
                if error.errno not in (errno.ENXIO, errno.EINVAL):
                    raise
                data = size if error.errno == errno.ENXIO else offset
            if data > offset:
                yield Run(offset, data - offset, hole=True)
            if data < size:
                end = min(size, self._end_of_data(data))
                yield Run(data, end - data, hole=False)
                data = end
            offset = data

    def _end_of_data(self, offset: int) -> int:
        try:
            return os.lseek(self.descriptor, offset, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.EINVAL:
                return self.state.size
            if error.errno == errno.ENXIO:  # there was data a moment ago
                raise ChangedWhileReadError from None
            raise


@contextmanager
def open_file(top: bytes, path: bytes) -> Iterator[OpenFile]:
    """Open the regular file at `path` below `top`; symlinks are not followed.

    Raises:
        SourceFileError: It can't be opened or read, or is no regular file any more.
    """
    try:
        descriptor = os.open(os.path.join(top, path), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise SourceFileError(
                    f"'{shown(path)}' was replaced while it was pushed", "run the push again", path
                )
            sparse = status.st_size >= _MIN_SPARSE and 512 * status.st_blocks < status.st_size
            yield OpenFile(descriptor, FileState.of(path, status), status.st_mode, sparse)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise vanished(path) from None
    except OSError as error:
        raise SourceFileError(
            f"cannot read '{shown(path)}': {error.strerror}",
            "mend its permissions, or leave it out with --exclude",
            path,
        ) from None
