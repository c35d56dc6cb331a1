"""Walks a provider's folder in the order its directories list, breadth first.

Threading: one walk belongs to one thread.
"""

from __future__ import annotations

import errno
import fnmatch
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sealfs.errors import SourceFileError

Refuse = Callable[[SourceFileError], None]

_KINDS = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a block device",
    stat.S_IFCHR: "a character device",
    stat.S_IFIFO: "a named pipe",
}


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of a directory.

    Attributes:
        parent: Path of its directory below the top, empty for the top.
        name: Its name there.
        status: What lstat says of it.
        target: Where it points, if it is a symlink.
    """

    parent: bytes
    name: bytes
    status: os.stat_result
    target: bytes

    @property
    def path(self) -> bytes:
        """Path below the top."""
        return join(self.parent, self.name)


def join(parent: bytes, name: bytes) -> bytes:
    """Return the path of `name` in `parent`, where the top is empty."""
    return parent + b"/" + name if parent else name


def shown(path: bytes) -> str:
    """Return a path as a person can read it."""
    return path.decode("utf-8", "backslashreplace") or "."


def vanished(path: bytes) -> SourceFileError:
    """Return how to say that something is gone that was there a moment ago."""
    return SourceFileError(f"'{shown(path)}' vanished while it was pushed", "run the push again", path)


def fail(error: SourceFileError) -> None:
    """Let the first that can't be sealed end it all."""
    raise error


def scan(top: bytes, excludes: Sequence[str] = (), refuse: Refuse = fail) -> Iterator[Found]:
    """Yield everything below `top`, each directory's entries together and before what lies deeper.

    Args:
        top: A directory.
        excludes: Globs; what matches by name or by path is left out, with all below it.
        refuse: Told of what can't be read, of what vanishes before it could be looked at, and of what is neither
            file, directory nor symlink. If it returns, directories among them seem empty, all else absent.

    Raises:
        SourceFileError: The top can't be read, or what `refuse` raises.
    """
    pending: deque[bytes] = deque([b""])
    while pending:
        directory = pending.popleft()
        try:
            for found in _entries(top, directory, excludes, refuse):
                if stat.S_ISDIR(found.status.st_mode):
                    pending.append(found.path)
                yield found
        except OSError as error:
            unreadable = SourceFileError(
                f"cannot read '{shown(directory)}': {error.strerror}",
                "mend its permissions, or use --exclude",
                directory,
            )
            if not directory:
                raise unreadable from None
            refuse(unreadable)


def leaves_out(path: bytes, excludes: Sequence[str]) -> bool:
    """Whether a path below the top is left out by itself, or with a directory that it lies in."""
    parts = path.split(b"/")
    return any(
        _excluded(b"/".join(parts[:depth]), parts[depth - 1], excludes) for depth in range(1, len(parts) + 1)
    )


def _entries(top: bytes, directory: bytes, excludes: Sequence[str], refuse: Refuse) -> Iterator[Found]:
    with os.scandir(os.path.join(top, directory) if directory else top) as listing:
        for item in listing:
            path = join(directory, item.name)
            if _excluded(path, item.name, excludes):
                continue
            try:
                status, target = _look_at(item.path)
            except FileNotFoundError:
                refuse(vanished(path))
                continue
            kind = stat.S_IFMT(status.st_mode)
            if kind in _KINDS:
                refuse(
                    SourceFileError(
                        f"'{shown(path)}' is {_KINDS[kind]} and cannot be sealed",
                        f"leave it out: --exclude '{shown(path)}'",
                        path,
                    )
                )
                continue
            yield Found(directory, item.name, status, target)


def _look_at(path: bytes) -> tuple[os.stat_result, bytes]:
    """Return what lstat says, and where a symlink points."""
    while True:
        status = os.lstat(path)
        if not stat.S_ISLNK(status.st_mode):
            return status, b""
        try:
            return status, os.readlink(path)
        except OSError as error:
            if error.errno != errno.EINVAL:  # replaced by something else meanwhile
                raise


def _excluded(path: bytes, name: bytes, excludes: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(os.fsdecode(candidate), glob.rstrip("/"))
        for glob in excludes
        for candidate in (path, name)
    )
