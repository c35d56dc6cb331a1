"""Loads mfusepy on top of libfuse 3, wherever the distribution keeps it.

mfusepy takes libfuse 2 when it finds both, and has no word for a user who has neither.

Threading: import time only.
"""

from __future__ import annotations

import ctypes
import os
from types import ModuleType

from sealfs.errors import MountError

_NAMES = ("libfuse3.so.4", "libfuse3.so.3")


def load_mfusepy() -> ModuleType:
    """Import mfusepy.

    Raises:
        MountError: There is no libfuse 3.
    """
    for name in _NAMES:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        os.environ.setdefault("FUSE_LIBRARY_PATH", name)
        import mfusepy  # noqa: PLC0415 - it loads the library at import

        return mfusepy
    raise MountError("libfuse 3 is not installed", "on Debian and Ubuntu: apt-get install fuse3 libfuse3-3")
