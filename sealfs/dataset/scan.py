"""Walks a provider's folder in the order its directories list, breadth first.

Threading: one walk belongs to one thread.
"""

from __future__ import annotations

import fnmatch
import os
import stat
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from sealfs.errors import SourceFileError

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


def scan(top: bytes, excludes: Sequence[str] = (), held: Collection[bytes] = ()) -> Iterator[Found]:
    """Yield everything below `top`, each directory's entries together and before what lies deeper.

    Args:
        top: A directory.
        excludes: Globs; what matches by name or by path is left out, with all below it.
        held: Paths that are not to be looked into: directories among them seem empty, special files absent.

    Raises:
        SourceFileError: Something can't be read, or is neither file, directory nor symlink.
    """
    pending: deque[bytes] = deque([b""])
    while pending:
        directory = pending.popleft()
        for found in _entries(top, directory, excludes, held):
            if stat.S_ISDIR(found.status.st_mode) and found.path not in held:
                pending.append(found.path)
            yield found


def leaves_out(path: bytes, excludes: Sequence[str]) -> bool:
    """Whether a path below the top is left out by itself, or with a directory that it lies in."""
    parts = path.split(b"/")
    return any(
        _excluded(b"/".join(parts[:depth]), parts[depth - 1], excludes) for depth in range(1, len(parts) + 1)
    )


def _entries(top: bytes, directory: bytes, excludes: Sequence[str], held: Collection[bytes]) -> Iterator[Found]:
    try:
        with os.scandir(os.path.join(top, directory) if directory else top) as listing:
            for item in listing:
                path = join(directory, item.name)
                if _excluded(path, item.name, excludes):
                    continue
                status = item.stat(follow_symlinks=False)
                kind = stat.S_IFMT(status.st_mode)
                if kind in _KINDS:
                    if path in held:
                        continue
                    raise SourceFileError(
                        f"'{shown(path)}' is {_KINDS[kind]} and cannot be sealed",
                        f"leave it out: --exclude '{shown(path)}'",
                        path,
                    )
                target = os.readlink(item.path) if stat.S_ISLNK(kind) else b""
                yield Found(directory, item.name, status, target)
    except OSError as error:
        raise SourceFileError(
            f"cannot read '{shown(directory)}': {error.strerror}",
            "mend its permissions, or use --exclude",
            directory,
        ) from None


def _excluded(path: bytes, name: bytes, excludes: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(os.fsdecode(candidate), glob.rstrip("/"))
        for glob in excludes
        for candidate in (path, name)
    )
