"""Runs a FUSE session so that the fast path has one thread and a slow one stalls nobody.

libfuse offers one thread, which a single slow fetch would stall, or a pool, in which Python's threads fight over
the interpreter lock for every request and halve the throughput. So one of several threads, the leader, receives
and serves requests, and only when it is about to wait for something (`about_to_block`) does it pass the lead to a
follower and finish its own request aside: the leader/followers pattern (Schmidt et al., 2000). While everything
comes from memory or local files a single thread does all the work.

mfusepy builds the operation table and then calls libfuse's main function; `serve` takes that function's place.

Threading: `about_to_block` is called by the threads made here; it does nothing in any other thread.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from sealfs.errors import MountError
from sealfs.mount.libfuse import load_mfusepy

_MAX_THREADS = 64  # requests that wait at once; more are queued in the kernel
_IDLE_FOLLOWERS = 4
_LONGEST_FORGETTING = 30.0  # seconds; it takes microseconds for each path that was served
_FUSE_BUF_SIZE = 128  # struct fuse_buf has grown over the years and never exceeded half of this

_lib: Any = load_mfusepy()._libfuse


class _FuseArgs(ctypes.Structure):
    _fields_ = (
        ("argc", ctypes.c_int),
        ("argv", ctypes.POINTER(ctypes.c_char_p)),
        ("allocated", ctypes.c_int),
    )


def _declare(name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(_lib, name)
    function.restype = result
    function.argtypes = arguments
    return function


_fuse_new = _declare(
    "fuse_new", ctypes.c_void_p, ctypes.POINTER(_FuseArgs), ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
)
_fuse_mount = _declare("fuse_mount", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_fuse_unmount = _declare("fuse_unmount", None, ctypes.c_void_p)
_fuse_destroy = _declare("fuse_destroy", None, ctypes.c_void_p)
_fuse_get_session = _declare("fuse_get_session", ctypes.c_void_p, ctypes.c_void_p)
_fuse_opt_free_args = _declare("fuse_opt_free_args", None, ctypes.POINTER(_FuseArgs))
_fuse_invalidate_path = _declare("fuse_invalidate_path", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_session_exit = _declare("fuse_session_exit", None, ctypes.c_void_p)
_session_exited = _declare("fuse_session_exited", ctypes.c_int, ctypes.c_void_p)
_receive_buf = _declare("fuse_session_receive_buf", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_process_buf = _declare("fuse_session_process_buf", None, ctypes.c_void_p, ctypes.c_void_p)


class Loop:
    """Serves one mount point.

    Attributes:
        ended: Set when the session is over: unmounted, or stopped by `stop`.
    """

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._lead = threading.Lock()
        self._here = threading.local()
        self._count_lock = threading.Lock()
        self._threads: set[threading.Thread] = set()
        self._waiting = 0
        self._stopping = threading.Event()
        self._forgetting: threading.Thread | None = None
        self._fuse: int | None = None
        self._session: int | None = None

    def about_to_block(self) -> None:
        """Let a follower serve while the calling thread waits for something."""
        if getattr(self._here, "leads", False):
            self._here.leads = False
            with self._count_lock:
                wanted = self._waiting == 0 and len(self._threads) < _MAX_THREADS
            if wanted:
                self._start_thread()
            self._lead.release()

    def serve(self, operations: Any, operations_size: int, mountpoint: bytes, options: str) -> None:
        """Mount and begin to serve; returns when the mount is there.

        Args:
            operations: Pointer to the `struct fuse_operations`.
            operations_size: Its size in bytes.
            mountpoint: Where.
            options: Comma-separated mount options.

        Raises:
            MountError: libfuse refused; it has printed why.
        """
        strings = (ctypes.c_char_p * 4)(b"sealfs", b"-o", options.encode(), None)
        arguments = _FuseArgs(3, strings, 0)
        fuse = _fuse_new(ctypes.byref(arguments), ctypes.cast(operations, ctypes.c_void_p), operations_size, None)
        _fuse_opt_free_args(ctypes.byref(arguments))
        if not fuse:
            raise MountError("libfuse refused the mount options", "run 'sealfs doctor'")
        if _fuse_mount(fuse, mountpoint):
            _fuse_destroy(fuse)
            raise MountError(
                f"cannot mount on {os.fsdecode(mountpoint)}",
                "run 'sealfs doctor'; --allow-other needs user_allow_other in /etc/fuse.conf",
            )
        self._fuse, self._session = fuse, _fuse_get_session(fuse)
        self._start_thread()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._follow, name="sealfs-fuse", daemon=True)
        with self._count_lock:  # nobody may find it, and join it, before it has started
            thread.start()
            self._threads.add(thread)

    def _follow(self) -> None:
        buffer = ctypes.create_string_buffer(_FUSE_BUF_SIZE)  # its memory is libfuse's, kept between requests
        session = self._session
        try:
            while not self.ended.is_set():
                with self._count_lock:
                    if self._waiting >= _IDLE_FOLLOWERS:
                        return
                    self._waiting += 1
                self._lead.acquire()
                with self._count_lock:
                    self._waiting -= 1
                self._here.leads = True
                try:
                    self._serve_while_leading(session, buffer)
                finally:
                    if self._here.leads:
                        self._lead.release()
        finally:
            with self._count_lock:
                self._threads.discard(threading.current_thread())

    def _serve_while_leading(self, session: int | None, buffer: ctypes.Array[ctypes.c_char]) -> None:
        here, ended = self._here, self.ended
        while here.leads and not ended.is_set():
            received = _receive_buf(session, buffer)
            if received == -errno.EINTR:
                continue
            if received <= 0 or _session_exited(session):
                ended.set()
                return
            _process_buf(session, buffer)

    def forget(self, paths: Iterable[bytes]) -> None:
        """Make the kernel drop what it keeps of these paths, in a thread of its own.

        The kernel lets that thread wait, beyond the reach of any signal, for pages that are being read. So the
        session has to be served until the thread has ended; `stop` sees to that.
        """

        def invalidate() -> None:
            for path in paths:
                if self._stopping.is_set() or self.ended.is_set():
                    return
                _fuse_invalidate_path(self._fuse, path)

        thread = threading.Thread(target=invalidate, name="sealfs-forget", daemon=True)
        with self._count_lock:
            thread.start()
            self._forgetting = thread

    def stop(self, patience: float = 2.0) -> None:
        """Unmount, lazily if files are still open, and wait for the threads, in all `patience` seconds."""
        self._stopping.set()
        if self._fuse is None:
            return
        with self._count_lock:
            forgetting = self._forgetting  # one that starts later sees that we are stopping
        if forgetting is not None:
            forgetting.join(_LONGEST_FORGETTING)
        _session_exit(self._session)
        _fuse_unmount(self._fuse)
        self.ended.set()
        if self.join(patience):  # a thread that still waits for the network would find its memory gone
            _fuse_destroy(self._fuse)
        self._fuse = None

    def join(self, patience: float | None = None) -> bool:
        """Wait for all threads to end, at most `patience` seconds; say whether they have."""
        give_up = None if patience is None else time.monotonic() + patience
        while threads := [t for t in list(self._threads) if t is not threading.current_thread()]:
            left = None if give_up is None else give_up - time.monotonic()
            if left is not None and left <= 0:
                return False
            threads[0].join(left)
            with self._count_lock:
                self._threads -= {thread for thread in threads if not thread.is_alive()}
        return True


def replace_main(loop: Loop, mountpoint: bytes, on_mounted: Callable[[], None]) -> Callable[..., int]:
    """Return what to put in the place of mfusepy's `fuse_main_real`."""

    def main(count: int, arguments: Any, operations: Any, size: int, _: object) -> int:
        options = arguments[count - 2].decode()  # mfusepy ends with: -o OPTIONS MOUNTPOINT
        loop.serve(operations, size, mountpoint, options)
        on_mounted()
        loop.ended.wait()
        loop.join()  # mfusepy frees its callbacks when this returns, and a thread may still be in one
        return 0

    return main
