"""`sealfs pull`: writes a snapshot, or a part of it, to a local folder.

Each file is written beside its place, checked against the SHA-256 that its provider recorded, and only then
renamed into it; what is there already with the same size and time is left alone, so a pull that was stopped can
be run again.

Threading: one thread; the source reads ahead by itself.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sealfs.dataset.index import ROOT, Entry, Index
from sealfs.dataset.scan import shown
from sealfs.errors import IntegrityError, LocalIOError
from sealfs.progress import Progress
from sealfs.vfs import View

_STEP = 4 << 20
_GRAIN = 64 << 10  # zeros that fill so much become a hole
_ZEROS = memoryview(bytes(_GRAIN))


@dataclass(slots=True)
class PullResult:
    """How many files were written and how many were there already, and the bytes written."""

    written: int = 0
    kept: int = 0
    size: int = 0


class Pull:
    """Writes parts of a view below a folder.

    Args:
        view: What to read.
        destination: The folder; made if missing.
        progress: Told of the bytes of files that are done.
    """

    def __init__(self, view: View, destination: Path, progress: Progress) -> None:
        self._view = view
        self._top = os.fsencode(destination)
        self._progress = progress
        self._buffer = memoryview(bytearray(_STEP))
        self._result = PullResult()

    def run(self, paths: Sequence[bytes] = ()) -> PullResult:
        """Write these paths, or everything.

        Raises:
            NotADatasetError: There is no such path.
            IntegrityError: Something does not authenticate; the files written before are right.
            LocalIOError: The folder can't be written to.
        """
        index = self._view.index
        tops = [self._view.lookup(path) for path in paths] or [ROOT]
        numbers = list(dict.fromkeys(number for top in tops for number in index.walk(top)))
        self._progress.begin("pulling", sum(index.entry(n).size for n in numbers if index.entry(n).is_file))
        try:
            os.makedirs(self._top, exist_ok=True)
            for top in tops:
                self._make_parents(index, top)
            for number in numbers:
                self._write(index, number)
            for number in reversed(numbers):
                if index.entry(number).is_directory:
                    self._set_directory(index, number)
        except OSError as error:
            raise _explained(error) from None
        return self._result

    def _place(self, index: Index, number: int) -> bytes:
        path = index.path(number)
        if any(part in {b".", b".."} or b"\0" in part for part in path.split(b"/")):
            raise IntegrityError(f"'{shown(path)}' is not a path that can be written")
        return os.path.join(self._top, path) if path else self._top

    def _make_parents(self, index: Index, number: int) -> None:
        chain = []
        while number != ROOT:
            number = index.parent(number)
            chain.append(number)
        for directory in reversed(chain):
            self._make_directory(self._place(index, directory))

    def _make_directory(self, place: bytes) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(place, 0o700)
        if not stat.S_ISDIR(os.lstat(place).st_mode) and place != self._top:
            raise LocalIOError(f"'{shown(place)}' is in the way", "move it, or pull to another folder")

    def _write(self, index: Index, number: int) -> None:
        entry, place = index.entry(number), self._place(index, number)
        if entry.is_directory:
            self._make_directory(place)
        elif entry.is_symlink:
            _make_symlink(index.symlink_target(number), place, entry.mtime_ns)
        elif self._is_there(entry, place):
            self._result.kept += 1
            self._progress.advance(entry.size)
        else:
            self._write_file(index, entry, place)
            self._result.written += 1
            self._result.size += entry.size

    def _is_there(self, entry: Entry, place: bytes) -> bool:
        try:
            status = os.lstat(place)
        except FileNotFoundError:
            return False
        if stat.S_ISDIR(status.st_mode):
            raise LocalIOError(f"'{shown(place)}' is a folder and in the way", "move it away")
        here = (stat.S_IMODE(status.st_mode), status.st_size, status.st_mtime_ns)
        return stat.S_ISREG(status.st_mode) and here == (_mode(entry), entry.size, entry.mtime_ns)

    def _write_file(self, index: Index, entry: Entry, place: bytes) -> None:
        folder, name = os.path.split(place)
        temporary = os.path.join(folder, b".sealfs-" + hashlib.sha256(name).hexdigest()[:16].encode())
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", buffering=0) as file:
                os.ftruncate(descriptor, entry.size)
                digest = self._copy(entry, descriptor)
                if digest != index.sha256(entry.number):
                    raise IntegrityError(f"'{shown(index.path(entry.number))}' is not what its provider recorded")
                os.fchmod(descriptor, _mode(entry))
                os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))
                del file
            os.replace(temporary, place)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise

    def _copy(self, entry: Entry, descriptor: int) -> bytes:
        digest = hashlib.sha256()
        for offset in range(0, entry.size, _STEP):
            piece = self._buffer[: min(_STEP, entry.size - offset)]
            self._view.read_into(entry.number, offset, piece)
            digest.update(piece)
            _write_data(descriptor, piece, offset)
            self._progress.advance(len(piece))
        return digest.digest()

    def _set_directory(self, index: Index, number: int) -> None:
        entry, place = index.entry(number), self._place(index, number)
        os.chmod(place, _mode(entry))
        os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns))


def _write_data(descriptor: int, piece: memoryview, offset: int) -> None:
    """Write what is not zeros; what stays unwritten is a hole."""
    start: int | None = None
    for at in range(0, len(piece), _GRAIN):
        grain = piece[at : at + _GRAIN]
        if grain != _ZEROS[: len(grain)]:
            start = at if start is None else start
        elif start is not None:
            _write_all(descriptor, piece[start:at], offset + start)
            start = None
    if start is not None:
        _write_all(descriptor, piece[start:], offset + start)


def _mode(entry: Entry) -> int:
    """Return an entry's permissions, without set-user-ID and set-group-ID: those are nobody else's to choose."""
    return stat.S_IMODE(entry.mode) & ~(stat.S_ISUID | stat.S_ISGID)


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


def _make_symlink(target: bytes, place: bytes, mtime_ns: int) -> None:
    try:
        os.symlink(target, place)
    except FileExistsError:
        if not os.path.islink(place):
            raise LocalIOError(f"'{shown(place)}' is in the way", "move it away") from None
        os.unlink(place)
        os.symlink(target, place)
    os.utime(place, ns=(mtime_ns, mtime_ns), follow_symlinks=False)


def _explained(error: OSError) -> LocalIOError:
    full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    hint = "free some space and run it again" if full else "pull to another folder"
    where = os.fsdecode(error.filename) if error.filename else "the destination"
    return LocalIOError(f"cannot write {where}: {error.strerror}", hint)
