"""A mount served by a child process, for a parent that needs several, or has something else to do.

Each mount has an interpreter of its own, so that they do not wait for one another. The kernel ends a child whose
parent is gone, and a child that ends unmounts: whatever happens, no mount outlives the run that it belongs to.

Threading: the constructor forks, so the parent must not have started threads yet. The rest is
one thread's; what `watched` yields may be called by any.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from sealfs import errors
from sealfs.dataset.dataset import Dataset
from sealfs.errors import IntegrityError, MountError, SealfsError
from sealfs.mount.points import check_fit
from sealfs.opening import OpenView
from sealfs.store.source import CiphertextSource
from sealfs.vfs import View

_PR_SET_PDEATHSIG = 1
_MAX_MESSAGE = 1 << 16
_POLL = 0.1  # seconds

OpenDataset = Callable[[], tuple[Dataset, OpenView]]


class MountChild:
    """One mount, and the process that serves it.

    Args:
        open_dataset: Called in the child: opens and verifies what is to be mounted.
        mountpoint: Absolute path of an empty folder.

    Raises:
        MountError: The mount point is unfit.
    """

    def __init__(self, open_dataset: OpenDataset, mountpoint: str) -> None:
        check_fit(mountpoint)
        self._mountpoint = mountpoint
        self._said = b""
        self._pipe, tell = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self._pid = os.fork()
        if not self._pid:
            os.close(self._pipe)
            _serve(open_dataset, mountpoint, tell, parent)
        os.close(tell)

    def wait_until_ready(self) -> None:
        """Wait until the mount is there.

        Raises:
            SealfsError: What the child ended with.
        """
        while True:
            for message in self._messages(wait=True):
                if "ready" in message:
                    return
                _raise(message)

    def check(self) -> None:
        """Say whether all is well.

        Raises:
            IntegrityError: Something does not authenticate; nothing is served any more.
            MountError: The mount is gone.
        """
        for message in self._messages(wait=False):
            _raise(message)

    def fileno(self) -> int:
        """Return what is readable when `check` has something to say."""
        return self._pipe

    def close(self) -> None:
        """Unmount, and wait for the child."""
        if not self._pid:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)
        os.waitpid(self._pid, 0)
        os.close(self._pipe)
        self._pid = 0

    def _messages(self, *, wait: bool) -> list[dict[str, str]]:
        """Return what the child has said since; the end of the pipe is the end of the child."""
        if not wait and not select.select([self._pipe], [], [], 0)[0]:
            return []
        data = os.read(self._pipe, _MAX_MESSAGE)
        if not data:
            raise MountError(f"the process that serves {self._mountpoint} has ended", "look at what it said above")
        *lines, self._said = (self._said + data).split(b"\n")
        return [json.loads(line) for line in lines]


@contextlib.contextmanager
def watched(mounts: Sequence[MountChild], on_damage: Callable[[SealfsError], None]) -> Iterator[Callable[[], None]]:
    """Look after mounts, in a thread, for the length of the block.

    Args:
        mounts: Ready.
        on_damage: Told, once, when data does not authenticate, or a mount is gone; by whichever thread sees it.

    Yields:
        What looks at once: a mount says so before its reads fail, so that who has swallowed the error is caught.
    """
    over, one_at_a_time, told = threading.Event(), threading.Lock(), False

    def look(timeout: float = 0) -> None:
        nonlocal told
        for mount in select.select(mounts, [], [], timeout)[0]:
            with one_at_a_time:
                if told:
                    return
                try:
                    mount.check()
                except SealfsError as error:
                    told = True
                    on_damage(error)

    def watch() -> None:
        while not over.is_set() and not told:
            look(_POLL)

    thread = threading.Thread(target=watch, name="sealfs-watch", daemon=True)
    if mounts:
        thread.start()
    try:
        yield look
    finally:
        over.set()
        if mounts:
            thread.join()


def _raise(message: dict[str, str]) -> NoReturn:
    if "poisoned" in message:
        raise IntegrityError(message["poisoned"])
    kind = getattr(errors, message["kind"], MountError)
    raise kind(message["failed"], message["hint"])


def _serve(open_dataset: OpenDataset, mountpoint: str, tell: int, parent: int) -> NoReturn:
    """Be the child."""
    code = 1
    try:
        os.setpgid(0, 0)  # what the terminal sends is for the workload
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == parent:
            code = _mount(open_dataset, mountpoint, tell)
    except SealfsError as error:
        _say(tell, {"failed": error.message, "hint": error.hint, "kind": type(error).__name__})
    except BaseException as error:
        text = f"internal error: {type(error).__name__}: {error}"
        _say(tell, {"failed": text, "hint": "please report it", "kind": "SealfsError"})
    finally:
        sys.stderr.flush()
        os._exit(code)


def _mount(open_dataset: OpenDataset, mountpoint: str, tell: int) -> int:
    from sealfs.mount.daemon import MountOptions, MountProcess  # noqa: PLC0415 - loads libfuse

    dataset, open_view = open_dataset()

    def open_and_listen(about_to_block: Callable[[], None]) -> tuple[View, CiphertextSource]:
        view, source = open_view(about_to_block)
        view.on_poison(lambda reason: _say(tell, {"poisoned": reason}))
        return view, source

    process = MountProcess(dataset, open_and_listen, mountpoint, MountOptions())
    return process.serve(lambda: _say(tell, {"ready": mountpoint}))


def _say(pipe: int, message: dict[str, str]) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(pipe, json.dumps(message).encode() + b"\n")
