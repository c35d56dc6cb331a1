"""A folder in memory at the place where a script wants to write, for runs outside of any enclave.

In an enclave the manifest mounts a tmpfs there. Natively a private folder below /dev/shm takes the place by a
symlink, which needs no privilege and works in containers. The host sees it either way; it lies on no disk.

Threading: stateless.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sealfs.errors import LocalIOError, UsageError

_SHM = Path("/dev/shm")  # noqa: S108 - a private folder below it
_PREFIX = "sealfs-out-"


@dataclass(slots=True)
class MemoryFolder:
    """A folder in memory.

    Attributes:
        content: Where the workload writes.
        state: Beside it, for what is nobody's business.
        keep: Whether to leave it there in the end, because it holds the only copy of something.
    """

    content: Path
    state: Path
    keep: bool = False


@contextmanager
def memory_folder(path: Path) -> Iterator[MemoryFolder]:
    """Let `path` lead to a folder in memory, of mode 0700, for the length of the block.

    Args:
        path: Absolute; an empty folder, or nothing.

    Raises:
        UsageError: There is something at `path`, or the folder that it is to be in is missing.
        LocalIOError: There is no /dev/shm, or no right to put something at `path`.
    """
    there = _check_place(path)
    try:
        base = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=_SHM))
    except OSError as error:
        raise LocalIOError(
            f"cannot make a folder in {_SHM}: {error.strerror}", "results are kept in memory: mount a tmpfs there"
        ) from None
    folder = MemoryFolder(base / "content", base / "state")
    folder.content.mkdir(mode=0o700)
    folder.state.mkdir(mode=0o700)
    try:
        _put_link(path, folder.content, there)
        try:
            yield folder
        finally:
            _take_link_away(path, folder.content, there)
    finally:
        if not folder.keep:
            shutil.rmtree(base, ignore_errors=True)


def remove_left_behind(path: Path, pid: int) -> None:
    """Remove what a process that was killed has left at a path, and all that it wrote there; others' stays.

    Args:
        path: Where its memory folder was.
        pid: Which process had it.
    """
    if path.is_symlink() and (target := path.readlink()).match(f"{_SHM}/{_PREFIX}{pid}-*/content"):
        path.unlink()
        shutil.rmtree(target.parent, ignore_errors=True)


def _check_place(path: Path) -> os.stat_result | None:
    """Return what the empty folder at `path` is like, or None if there is nothing."""
    if path.is_symlink() and path.readlink().is_relative_to(_SHM):
        raise UsageError(
            f"{path} leads to {path.readlink()}, left behind by a run that was killed",
            "what is in there may be in no snapshot: look at it, then remove both",
        )
    try:
        if any(path.iterdir()) or path.is_symlink():
            raise UsageError(f"{path} is not an empty folder", "results go to a path where nothing is yet")
        return path.stat()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise UsageError(f"{path.parent} is not there", f"make it: mkdir -p {path.parent}") from None
        return None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", "results go to a path where nothing is yet") from None


def _put_link(path: Path, target: Path, there: os.stat_result | None) -> None:
    try:
        if there is not None:
            path.rmdir()
        path.symlink_to(target)
    except OSError as error:
        raise LocalIOError(
            f"cannot put a link into memory at {path}: {error.strerror}", "choose another path for the results"
        ) from None


def _take_link_away(path: Path, target: Path, there: os.stat_result | None) -> None:
    if path.is_symlink() and path.readlink() == target:
        path.unlink()
        if there is not None:
            path.mkdir(mode=there.st_mode & 0o7777)
