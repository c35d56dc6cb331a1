"""Answers the kernel's questions about a view: FUSE's calls on one side, vfs.py on the other.

The snapshot never changes, so the kernel may keep names, attributes and pages for as long as it likes; `open`
and `flush` answer ENOSYS, after which the kernel does without those round trips. Locks are left to the kernel.

Threading: called by the loop's threads, several at once.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sealfs.errors import SealfsError, StoreError
from sealfs.mount import loop as fuse_loop
from sealfs.mount.libfuse import load_mfusepy
from sealfs.mount.loop import Loop
from sealfs.vfs import View

log = logging.getLogger(__name__)

MAX_READ = 1 << 20  # bytes per read request: the kernel's own limit
_KEEP = 365 * 86400  # seconds the kernel may keep what it was told
_MAX_BACKGROUND = 48  # read-ahead requests at once; below the loop's number of threads, so that some stay free
_READDIR_PLUS = 1
_FILL_DIR_PLUS = 2
_BLOCK = 512

mfusepy: Any = load_mfusepy()

Result = TypeVar("Result")


class ReadOnlyOperations(mfusepy.Operations):  # type: ignore[misc]
    """What is served; `Bridge` below says how.

    Every method that is present makes libfuse pass that call on; those that `Bridge` overrides are only named.

    Args:
        view: The snapshot.
    """

    use_ns = True

    def __init__(self, view: View) -> None:
        self.view = view
        self.owner = (os.getuid(), os.getgid())
        self.served = bytearray(view.index.entries)

    def init_with_config(self, conn_info: Any, config_3: Any) -> None:
        """Ask for the largest requests; libfuse wants `max_read` both here and as a mount option."""
        del config_3
        conn_info.max_read = MAX_READ
        conn_info.max_readahead = MAX_READ
        # Read-ahead of many readers that wait for a slow store; beyond the kernel's default of 12 all others queue.
        conn_info.max_background = conn_info.congestion_threshold = _MAX_BACKGROUND

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        """Named only."""
        raise OSError(errno.ENOSYS, path)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Named only."""
        raise OSError(errno.ENOSYS, path)

    def readdir(self, path: str, fh: int) -> list[str]:
        """Named only."""
        raise OSError(errno.ENOSYS, path)

    def open(self, path: str, flags: int) -> int:
        """Tell the kernel that it need not ask; it refuses writers by itself, as the mount is read-only."""
        raise OSError(errno.ENOSYS, path)

    def readlink(self, path: str) -> str:
        """Return a symlink's target."""
        view = self.view
        return os.fsdecode(_translated(lambda: view.readlink(view.lookup(os.fsencode(path)))))

    def statfs(self, path: str) -> dict[str, int]:
        """Describe a full file system of the snapshot's size."""
        blocks = -(-self.view.index.total_size // _BLOCK)
        return {
            "f_bsize": MAX_READ,
            "f_frsize": _BLOCK,
            "f_blocks": blocks,
            "f_files": self.view.index.entries,
            "f_namemax": 255,
        }


def _translated(call: Callable[[], Result]) -> Result:
    try:
        return call()
    except SealfsError as error:
        raise OSError(error.errno, error.message) from None


class Bridge(mfusepy.FUSE):  # type: ignore[misc]
    """mfusepy's adapter, with the hot calls served without copies or objects in between."""

    operations: ReadOnlyOperations

    def read(self, path: bytes, buf: Any, size: int, offset: int, fip: Any) -> int:
        """Decrypt straight into the buffer that libfuse sends to the kernel."""
        del fip
        view = self.operations.view
        out = memoryview((ctypes.c_char * size).from_address(ctypes.addressof(buf.contents))).cast("B")
        try:
            return view.read_into(view.lookup(path), offset, out)
        except StoreError as error:
            log.warning("%s: %s", path.decode("utf-8", "backslashreplace"), error.message)
            return -error.errno
        except SealfsError as error:
            return -error.errno

    def getattr_fuse_3(self, path: bytes, buf: Any, fip: Any) -> int:
        """Fill in a `struct stat`."""
        del fip
        view = self.operations.view
        try:
            number = view.lookup(path)
        except SealfsError as error:
            return -error.errno
        ctypes.memset(buf, 0, ctypes.sizeof(mfusepy.c_stat))
        self._fill_stat(buf.contents, number)
        return 0

    def _fill_stat(self, status: Any, number: int) -> None:
        operations = self.operations
        operations.served[number] = True
        entry = operations.view.entry(number)
        status.st_ino = number + 1
        status.st_mode = entry.mode
        status.st_nlink = 1
        status.st_uid, status.st_gid = operations.owner
        status.st_size = entry.size
        status.st_blocks = -(-entry.size // _BLOCK)
        status.st_blksize = MAX_READ
        seconds, nanoseconds = divmod(entry.mtime_ns, 10**9)
        for timespec in (status.st_mtimespec, status.st_ctimespec, status.st_atimespec):
            timespec.tv_sec, timespec.tv_nsec = seconds, nanoseconds

    def readdir_fuse_3(self, path: bytes, buf: Any, filler: Any, offset: int, fip: Any, flags: int) -> int:
        """List a directory from `offset` on, with attributes where the kernel wants them."""
        del fip
        view = self.operations.view
        try:
            number = view.lookup(path)
            children = view.index.children(number)
        except SealfsError as error:
            return -error.errno
        plus = flags & _READDIR_PLUS
        status = mfusepy.c_stat()
        fill_flags = _FILL_DIR_PLUS if plus else 0
        for place in range(offset, len(children) + 2):
            if place < 2:
                name, status.st_ino, status.st_mode = b"." * (place + 1), 0, stat.S_IFDIR
                full = filler(buf, name, status, place + 1, 0)
            else:
                child = children[place - 2]
                name = view.index.name(child)
                if plus:
                    self._fill_stat(status, child)
                else:
                    status.st_ino, status.st_mode = child + 1, view.index.entry(child).mode
                full = filler(buf, name, status, place + 1, fill_flags)
            if full:
                break
        return 0


def mount(
    view: View,
    mountpoint: str,
    loop: Loop,
    *,
    name: str,
    allow_other: bool,
    on_mounted: Callable[[], None],
) -> None:
    """Mount a view and serve it until it is unmounted.

    Args:
        view: What to serve.
        mountpoint: An existing folder.
        loop: Serves; its `stop` ends this.
        name: Shown as the mounted device.
        allow_other: Whether other users may look in.
        on_mounted: Called once the mount is there.

    Raises:
        MountError: The mount did not come up.
    """
    operations = ReadOnlyOperations(view)
    view.on_poison(lambda reason: loop.forget(_served_paths(view, operations)))
    options: dict[str, object] = {
        "ro": True,
        "fsname": name.replace(",", "_"),
        "subtype": "sealfs",
        "default_permissions": True,
        "kernel_cache": True,
        "entry_timeout": _KEEP,
        "attr_timeout": _KEEP,
        "negative_timeout": _KEEP,
        "max_read": MAX_READ,
        "use_ino": True,
    }
    if allow_other:
        options["allow_other"] = True
    original = mfusepy.fuse_main_real
    mfusepy.fuse_main_real = fuse_loop.replace_main(loop, os.fsencode(mountpoint), on_mounted)
    try:
        Bridge(operations, mountpoint, **options)
    finally:
        mfusepy.fuse_main_real = original


def _served_paths(view: View, operations: ReadOnlyOperations) -> Iterator[bytes]:
    """Yield every path that the kernel was ever told about.

    When it has forgotten them it asks again and is answered with EIO, so that pages and attributes served before
    damage was noticed are not read on as if nothing had happened.
    """
    return (b"/" + view.index.path(number) for number, served in enumerate(operations.served) if served)
