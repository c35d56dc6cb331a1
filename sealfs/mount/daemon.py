"""The process behind a mount: brings it up, says so, keeps it, and takes it down cleanly.

Threading: `serve` owns the process's main thread, where signals arrive; the loop, the control socket and the
cache bring their own threads.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from sealfs.dataset.dataset import Dataset
from sealfs.errors import IntegrityError, MountError
from sealfs.mount.control import ControlServer, Report
from sealfs.mount.loop import Loop
from sealfs.mount.operations import mount
from sealfs.mount.points import check_fit
from sealfs.opening import OpenView
from sealfs.store.cache import BlockCache
from sealfs.store.source import CiphertextSource
from sealfs.vfs import View
from sealfs.workload import Workload, signals_sent_to

log = logging.getLogger(__name__)


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -2, -3, -8  # mallopt(3)
_READ_AHEAD_KIB = 4096  # how far the kernel reads ahead; more gains nothing, its default of 128 costs half


@dataclass(frozen=True, slots=True)
class MountOptions:
    """What the user may say about a mount.

    Attributes:
        allow_other: Whether other users may look in.
        command: A workload to run on the mount; the mount ends with it.
    """

    allow_other: bool = False
    command: Sequence[str] = ()


def _keep_memory() -> None:
    """Make the allocator keep the megabyte that libfuse wants for each read, instead of faulting it in anew.

    Also take what was built so far out of the garbage collector's rounds: an index is no garbage.
    """
    with contextlib.suppress(AttributeError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in (
            (_M_ARENA_MAX, 1),
            (_M_MMAP_THRESHOLD, 32 << 20),
            (_M_TRIM_THRESHOLD, 256 << 20),
            (_M_TOP_PAD, 8 << 20),
        ):
            mallopt(parameter, value)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)


def notify_service_manager(message: str) -> None:
    """Tell systemd, if it waits for word (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)


class MountProcess:
    """One mount and its workload.

    Args:
        dataset: Verified; shown in reports.
        open_view: Opens what is to be served, given what to call before waiting for the store.
        mountpoint: Absolute path of an empty folder.
        options: See `MountOptions`.
    """

    def __init__(self, dataset: Dataset, open_view: OpenView, mountpoint: str, options: MountOptions) -> None:
        check_fit(mountpoint)
        self._dataset = dataset
        self._mountpoint = mountpoint
        self._options = options
        self._loop = Loop()
        self._since = time.time()
        self._workload = Workload(options.command)
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._view: View
        self._source: CiphertextSource
        self._view, self._source = open_view(self._loop.about_to_block)
        self._view.on_poison(self._kill_workload)

    def report(self) -> Report:
        """Return what `sealfs status` shows."""
        report: Report = {
            "uri": self._dataset.store.uri,
            "mountpoint": self._mountpoint,
            "version": self._dataset.snapshot.version,
            "pid": os.getpid(),
            "since": int(self._since),
            "poisoned": self._view.poisoned,
            **asdict(self._view.counters),
        }
        if isinstance(self._source, BlockCache):
            report["cache"] = {**asdict(self._source.counters), "size": self._source.size}
        return report

    def serve(self, ready: Callable[[], None]) -> int:
        """Mount, call `ready`, and serve until unmounted, told to stop, or the workload has ended.

        Returns:
            The exit code: the workload's, or 0.

        Raises:
            MountError: The mount did not come up.
            IntegrityError: The workload was killed because its data did not authenticate.
        """
        _keep_memory()
        with signals_sent_to(self._on_signal):
            code = self._serve_until_told(ready)
        if self._options.command and self._view.poisoned is not None:
            raise IntegrityError(f"{self._view.poisoned}; the workload was killed")
        return code

    def _serve_until_told(self, ready: Callable[[], None]) -> int:
        mounted = threading.Event()
        server = threading.Thread(target=self._mount, args=(mounted,), name="sealfs-mount", daemon=True)
        server.start()
        while not mounted.wait(0.05) and server.is_alive():
            pass
        try:
            if self._failure is not None:
                raise self._failure
            if not mounted.is_set():
                raise MountError(f"cannot mount on {self._mountpoint}", "run 'sealfs doctor'")
            self._tune_read_ahead()
            with contextlib.closing(ControlServer(self._mountpoint, self.report)):
                ready()
                notify_service_manager(f"READY=1\nSTATUS=serving {self._dataset.store.uri}")
                code = self._wait()
                notify_service_manager("STOPPING=1")
            return code
        finally:
            self._loop.stop()
            self._view.close()

    def _mount(self, mounted: threading.Event) -> None:
        try:
            mount(
                self._view,
                self._mountpoint,
                self._loop,
                name=self._dataset.store.uri,
                allow_other=self._options.allow_other,
                on_mounted=mounted.set,
            )
        except BaseException as error:  # handed to the main thread, which raises it
            self._failure = error

    def _wait(self) -> int:
        if self._options.command:
            return self._workload.run(lambda: self._view.poisoned is not None)
        while not self._stop.is_set() and not self._loop.ended.wait(0.2):
            pass
        return 0

    def _on_signal(self, number: int) -> None:
        if not self._workload.signal(number):
            self._stop.set()

    def _kill_workload(self, reason: str) -> None:
        notify_service_manager(f"STATUS=INTEGRITY FAILURE: {reason}")
        if self._workload.signal(signal.SIGKILL):
            log.critical("killing the workload: it must not go on with what it has read")

    def _tune_read_ahead(self) -> None:
        """Let the kernel read further ahead where this user may say so; slower, not wrong, where not."""
        device = os.stat(self._mountpoint).st_dev
        path = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
        with contextlib.suppress(OSError):
            path.write_text(str(_READ_AHEAD_KIB))
