"""Settings without which programs fail, or run badly, on a kernel like Gramine's; the script need not know of them.

Nothing is done on a kernel that has what they make up for, and nothing that the user has set is changed. What the C
library reads when a process starts is in the manifest as well.

Threading: call `apply_defaults` once, before other threads start.
"""

from __future__ import annotations

import ctypes
import errno
import os

from sealfs.enclave.frameworks import without_shared_memory

_M_ARENA_MAX = -8  # mallopt(3)

DEFAULTS = {
    "MALLOC_ARENA_MAX": "1",  # with several arenas fork fails in Gramine
    "OMP_WAIT_POLICY": "PASSIVE",  # spinning threads of an enclave cost what working ones cost
    "KMP_INIT_AT_FORK": "FALSE",
}


def shares_memory() -> bool:
    """Whether processes can share memory here: Gramine's can't, and say so by having no memfd_create."""
    try:
        os.close(os.memfd_create("sealfs-probe"))
    except OSError as error:
        return error.errno != errno.ENOSYS
    return True


def apply_defaults() -> None:
    """Set what this process and its children need on a kernel without shared memory."""
    if shares_memory():
        return
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, int(DEFAULTS["MALLOC_ARENA_MAX"]))
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    without_shared_memory()
