"""Sends what a program and its children print where it was agreed: what they print, the host could read.

It is done to the descriptors, which children inherit, and C code writes to as well, and for good: tracebacks and
exit handlers print last. Only messages of sealfs itself still reach the host, through `say`.

Threading: `print_to` is for the main thread, before others print; `say` for any.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sealfs.terminal import escaped

_host = 2  # descriptor of what the host reads


def print_to(target: Path) -> None:
    """From now on, standard output and error are a file, appended to.

    Raises:
        OSError: It can't be opened.
    """
    global _host  # noqa: PLW0603 - as much the process's as its descriptors are
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    _host = os.dup(_host)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def say(message: str) -> None:
    """Tell whoever started this process something of sealfs's own."""
    if _host == 2:  # the order with what the program writes there is kept
        sys.stderr.flush()
    os.write(_host, f"sealfs: {escaped(message)}\n".encode())
