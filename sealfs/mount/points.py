"""Mount points: are they fit, are they ours, are they gone.

Threading: stateless.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from sealfs.errors import MountError
from sealfs.mount.control import report_of

FILE_SYSTEM = "fuse.sealfs"
_UNMOUNT_PATIENCE = 30.0  # seconds


def mounted_type(mountpoint: str) -> str | None:
    """Return the type of the file system mounted at exactly this path, or None (proc(5), mountinfo)."""
    found = None
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            path = left.split(" ")[4].encode("utf-8", "surrogateescape").decode("unicode_escape")
            if path.encode("latin-1", "replace") == os.fsencode(mountpoint):
                found = right.split(" ")[0]
    return found


def check_fit(mountpoint: str) -> None:
    """Make sure that something can be mounted there.

    Raises:
        MountError: Missing, no folder, not empty, or mounted already.
    """
    path = Path(mountpoint)
    if mounted_type(mountpoint) == FILE_SYSTEM:
        raise MountError(f"{mountpoint} is mounted already", f"look with 'sealfs status', or: sealfs umount {path}")
    try:
        if any(path.iterdir()):
            raise MountError(f"{mountpoint} is not empty", "mount on an empty folder")
    except FileNotFoundError:
        raise MountError(f"{mountpoint} does not exist", f"make it: mkdir -p {mountpoint}") from None
    except OSError as error:
        raise MountError(f"cannot mount on {mountpoint}: {error.strerror}", "name an empty folder") from None


def wait_until_unmounted(mountpoint: str) -> None:
    """Wait for a mount of ours to go, whose process has been told to.

    Raises:
        MountError: It does not.
    """
    deadline = time.monotonic() + _UNMOUNT_PATIENCE
    while mounted_type(mountpoint) == FILE_SYSTEM:
        if time.monotonic() > deadline:
            raise MountError(f"{mountpoint} is still mounted", f"sealfs umount --lazy {mountpoint}")
        time.sleep(0.02)


def unmount(mountpoint: str, *, lazy: bool = False) -> None:
    """Unmount and return when the mount and the process behind it are really gone.

    Args:
        mountpoint: Absolute path.
        lazy: Detach now even if files are open; who has them open keeps them.

    Raises:
        MountError: Nothing of ours is mounted there, or it is busy.
    """
    if mounted_type(mountpoint) != FILE_SYSTEM:
        raise MountError(f"no sealfs is mounted on {mountpoint}", "'sealfs status' lists the mounts")
    report = report_of(mountpoint)
    command = ["umount", "-l"] if lazy else ["umount"]
    if os.geteuid() != 0:
        command = ["fusermount3", "-u", "-z"] if lazy else ["fusermount3", "-u"]
    done = subprocess.run([*command, "--", mountpoint], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["umount failed"]
        raise MountError(reason[0], "close what uses it (lsof shows it), or detach it with --lazy")
    pid = report.get("pid") if report else None
    deadline = time.monotonic() + _UNMOUNT_PATIENCE
    while mounted_type(mountpoint) == FILE_SYSTEM or (isinstance(pid, int) and not lazy and _runs(pid)):
        if time.monotonic() > deadline:
            raise MountError(f"{mountpoint} is unmounted, but its process {pid} has not ended")
        time.sleep(0.02)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
