"""Tasks as files, changed by one process at a time; and what this user has looked at.

Threading: safe between threads and processes; each change holds a lock on the file's folder.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

from sealfs.contracts.contract import MAX_SIZE as MAX_CONTRACT_SIZE
from sealfs.contracts.contract import Contract
from sealfs.contracts.task import MAX_SIZE, Task
from sealfs.dataset.trust import replace_file
from sealfs.errors import DocumentError, LocalIOError, UsageError
from sealfs.xdg import state_directory


def load_task(path: Path) -> Task:
    """Read and verify a task.

    Raises:
        LocalIOError: It can't be read.
        SealfsError: See `Task.parse`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except OSError as error:
        raise LocalIOError(f"cannot read {path}: {error.strerror}", "a task is a file: sealfs task new") from None
    return Task.parse(data)


def save_new_task(path: Path, task: Task) -> None:
    """Write a task to a file that is not there yet.

    Raises:
        UsageError: It is there.
        LocalIOError: It can't be written.
    """
    _change(path, lambda: task, must_be_new=True)


def change_task(path: Path, change: Callable[[Task], Task]) -> Task:
    """Read, change and write a task; a crash leaves the old one or the new one.

    Raises:
        SealfsError: What `change` raises, and see `load_task`; the file stays as it is.
    """
    return _change(path, lambda: change(load_task(path)))


def _change(path: Path, make: Callable[[], Task], *, must_be_new: bool = False) -> Task:
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if must_be_new and path.exists():
                raise UsageError(f"{path} exists already", "choose another name, or give --replace")
            task = make()
            replace_file(path, task.to_bytes())
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise LocalIOError(f"cannot write {path}: {error.strerror}", "check the folder") from None
    return task


class Seen:
    """Which contracts this user has looked at, to say what changed since, and to sign nothing unseen.

    Args:
        directory: Where they are kept; made when needed.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or state_directory() / "contracts"

    def _path(self, task: str) -> Path:
        return self._directory / f"{task}.json"

    def last(self, task: str) -> Contract | None:
        """Return a task's contract as it was looked at last; None if it never was."""
        try:
            with self._path(task).open("rb") as file:
                return Contract.parse(file.read(MAX_CONTRACT_SIZE + 1))
        except (FileNotFoundError, DocumentError):
            return None  # one that can't be read any more has to be looked at again
        except OSError as error:
            raise LocalIOError(f"cannot read {self._path(task)}: {error.strerror}") from None

    def remember(self, contract: Contract) -> None:
        """Note that the user has looked at this."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(self._path(contract.id), contract.to_bytes())
        except OSError as error:
            raise LocalIOError(
                f"cannot keep what was looked at in {self._directory}: {error.strerror}",
                "point XDG_STATE_HOME at a writable folder",
            ) from None
