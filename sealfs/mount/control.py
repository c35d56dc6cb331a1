"""How others ask a mount how it does: a private socket beside it that answers each caller with one JSON object.

Threading: the server has one thread of its own; `report` is called there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sealfs.xdg import runtime_directory

Report = dict[str, object]
_MAX_REPORT = 1 << 20
_PATIENCE = 5.0  # seconds


def _name(mountpoint: str) -> str:
    return hashlib.sha256(os.fsencode(mountpoint)).hexdigest()[:24] + ".sock"


@contextmanager
def _short_path(directory: Path, name: str) -> Iterator[str]:
    """Yield a path to `name` that fits into the 108 bytes of a socket address."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{name}"
    finally:
        os.close(descriptor)


class ControlServer:
    """Answers for one mount.

    Args:
        mountpoint: Absolute path of the mount.
        report: Returns what to answer.
    """

    def __init__(self, mountpoint: str, report: Callable[[], Report]) -> None:
        directory = runtime_directory()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = directory / _name(mountpoint)
        self._report = report
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short_path(directory, self._path.name) as address:
            self._socket.bind(address)
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, name="sealfs-control", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(_PATIENCE)
                connection.sendall(json.dumps(self._report()).encode())

    def close(self) -> None:
        """Stop answering."""
        self._path.unlink(missing_ok=True)
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


def _ask(directory: Path, name: str) -> Report | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_PATIENCE)
        try:
            with _short_path(directory, name) as address:
                connection.connect(address)
            chunks = bytearray()
            while len(chunks) < _MAX_REPORT and (chunk := connection.recv(65536)):
                chunks += chunk
            report = json.loads(chunks)
        except ConnectionRefusedError:
            (directory / name).unlink(missing_ok=True)  # left behind by a process that was killed
            return None
        except (OSError, ValueError):
            return None
    return report if isinstance(report, dict) else None


def report_of(mountpoint: str) -> Report | None:
    """Return what the mount at `mountpoint` says of itself; None if no sealfs process answers."""
    directory = runtime_directory()
    return _ask(directory, _name(mountpoint)) if directory.is_dir() else None


def all_reports() -> list[Report]:
    """Return what every mount of this user says of itself."""
    names = sorted(path.name for path in runtime_directory().glob("*.sock"))
    reports = (_ask(runtime_directory(), name) for name in names)
    return [report for report in reports if report is not None]
