"""Locks on files that exclude other processes of this machine, also where there is no flock.

Threading: a lock belongs to whoever holds the open file; closing the file ends it.
"""

from __future__ import annotations

import errno
import fcntl
from typing import IO


def lock_file(file: IO[bytes], *, wait: bool = True) -> None:
    """Lock a file that is open for writing against everybody else who does so.

    Args:
        file: What to lock.
        wait: Whether to wait until it is free.

    Raises:
        BlockingIOError: It is not, and `wait` is false.
        OSError: This file system has no locks.
    """
    operation = fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        fcntl.lockf(file, operation)  # all that Gramine has: excludes other processes, but no other thread
