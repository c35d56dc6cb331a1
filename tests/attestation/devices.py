"""Device files of machines that are not here, as a file system: what drivers do, a `Machine` does.

    python -m attestation.devices MOUNTPOINT OUT TEE DISTURBED

serves /dev/attestation as Gramine does, or /sys/kernel/config/tsm/report as Linux does in a guest. TEE is sgx, tdx
or snp. What a verifier has to know of the machines is written to OUT first.
"""

from __future__ import annotations

import errno
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from attestation.amd import SnpMachine
from attestation.hardware import Machine
from sealfs.mount.libfuse import load_mfusepy

_ATTESTATION = "/dev/attestation"
_REPORTS = "/sys/kernel/config/tsm/report"
_PROVIDERS = {"tdx": "tdx_guest", "snp": "sev_guest"}


def operations(tee: str, disturbed: int) -> Any:
    """Make the file system; the first `disturbed` reports are written to by somebody else."""
    fuse = load_mfusepy()
    intel, amd = Machine(), SnpMachine()
    disturbances = [None] * disturbed

    class Devices(fuse.Operations):
        use_ns = True

        def __init__(self) -> None:
            self._bound = bytes(64)
            self._folders: dict[str, tuple[bytes, int]] = {}  # what was written, and how often

        def _file(self, path: str) -> bytes | None:
            folder, _, name = path.rpartition("/")
            if folder == _ATTESTATION and tee == "sgx":
                files = {"attestation_type": b"dcap", "user_report_data": b"", "quote": b""}
                if name == "quote":
                    return intel.sgx_quote(self._bound)
                return files.get(name)
            if folder in self._folders:
                bound, generation = self._folders[folder]
                if name == "outblob" and tee == "tdx":
                    return intel.tdx_quote(bound)
                if name == "outblob":
                    return amd.report(bound)
                if name == "auxblob" and tee == "snp":
                    return amd.table
                return {
                    "inblob": b"",
                    "provider": f"{_PROVIDERS.get(tee, 'other')}\n".encode(),
                    "generation": f"{generation}\n".encode(),
                }.get(name)
            return None

        def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
            tops = [_REPORTS if tee in _PROVIDERS else "", _ATTESTATION]
            if path in self._folders or path == "/" or any(f"{top}/".startswith(f"{path}/") for top in tops):
                return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
            if self._file(path) is None:
                raise fuse.FuseOSError(errno.ENOENT)
            return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1, "st_size": 0}

        def open(self, path: str, flags: int) -> int:
            if path.endswith("outblob") and disturbances:
                disturbances.pop()
                bound, generation = self._folders[path.rpartition("/")[0]]
                self._folders[path.rpartition("/")[0]] = (bound, generation + 1)
            return 0

        def truncate(self, path: str, length: int, fh: int | None = None) -> int:
            return 0

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            return (self._file(path) or b"")[offset : offset + size]

        def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
            if len(data) != 64 or offset:
                raise fuse.FuseOSError(errno.EINVAL)
            folder = path.rpartition("/")[0]
            if folder == _ATTESTATION:
                self._bound = data
            else:
                self._folders[folder] = (data, self._folders[folder][1] + 1)
            return len(data)

        def mkdir(self, path: str, mode: int) -> int:
            if path.rpartition("/")[0] != _REPORTS:
                raise fuse.FuseOSError(errno.EPERM)
            self._folders[path] = (bytes(64), 0)
            return 0

        def rmdir(self, path: str) -> int:
            del self._folders[path]
            return 0

        def readdir(self, path: str, fh: int) -> list[str]:
            return [".", "..", *(name.rpartition("/")[2] for name in self._folders)]

    return fuse, Devices(), intel, amd


@contextmanager
def served(folder: Path, tee: str, disturbed: int = 0) -> Iterator[Path]:
    """Mount the devices of a machine in a process of its own, and yield the root that they are below."""
    root = folder / "root"
    root.mkdir()
    command = [sys.executable, "-m", "attestation.devices", str(root), str(folder), tee, str(disturbed)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1]) as process:
        try:
            give_up = time.monotonic() + 60
            while not root.is_mount():
                assert process.poll() is None, "the devices did not come up"
                assert time.monotonic() < give_up, "the devices did not come up"
                time.sleep(0.02)
            yield root
        finally:
            if root.is_mount():
                subprocess.run(["fusermount3", "-u", str(root)], check=True)
            else:
                process.kill()


def main() -> None:
    root, folder, tee, disturbed = sys.argv[1:]
    fuse, devices, intel, amd = operations(tee, int(disturbed))
    out = Path(folder)
    (out / "intel.der").write_bytes(intel.root_der)
    (out / "amd.pem").write_bytes(amd.root.public_bytes(Encoding.PEM))
    (out / "collateral.json").write_text(intel.collateral("tdx" if tee == "tdx" else "sgx"))
    # direct_io: like those of drivers, the files have no size
    fuse.FUSE(devices, root, foreground=True, nothreads=True, direct_io=True)


if __name__ == "__main__":
    main()
