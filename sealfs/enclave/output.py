"""Results out: seals what a workload writes into a folder in memory, at an interval and at its end.

The workload writes to an ordinary folder, which must be a tmpfs, so that whatever scripts do with files simply
works and no plaintext lies anywhere but in memory. What leaves it is an ordinary sealed dataset, pushed again and
again, signed by an identity that exists for one run only: whoever learns it later can forge nothing, and its
signer string, told at the start, says which results are this run's.

A snapshot has each file as a crash at some moment would have left it, also while it is being written. One that is
overwritten faster than it can be read twice stays as the snapshot before had it. After the last snapshot nothing is
missing, or the run fails.

Threading: `start` begins a thread of its own; the other methods belong to the thread that called it.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sealfs.dataset.objects import HEAD
from sealfs.dataset.push import Push, PushOptions
from sealfs.dataset.scan import Refuse, scan, shown
from sealfs.dataset.trust import TrustStore
from sealfs.errors import (
    LocalIOError,
    ObjectNotFoundError,
    SourceFileError,
    UsageError,
)
from sealfs.keys import Identity, Recipient, Signer
from sealfs.periodic import PATIENCE, Periodic
from sealfs.placement import DEFAULT_INTERVAL
from sealfs.store.base import ObjectStore

log = logging.getLogger(__name__)

_SHOWN_PATHS = 3


class OutputSealer:
    """Seals one folder for as long as a run lasts.

    Args:
        folder: Where the workload writes; empty, and in memory.
        store: Where the results go; nothing may be there yet.
        recipients: Who can open them.
        state: Another private folder in memory, for what names files while a push goes on.
        interval: Seconds between snapshots.
        single_writer: The user's word for stores without conditional writes.
        patience: Seconds for which the last snapshot is tried again while the store is away.
        identity: Who signs the results; None makes an identity for this run.
        max_size: Most bytes that may leave; None for any number.
        level: What they are stamped with, see `Snapshot.level`.
    """

    def __init__(
        self,
        folder: Path,
        store: ObjectStore,
        recipients: Sequence[Recipient],
        state: Path,
        *,
        interval: float = DEFAULT_INTERVAL,
        single_writer: bool = False,
        patience: float = PATIENCE,
        identity: Identity | None = None,
        max_size: int | None = None,
        level: str | None = None,
    ) -> None:
        if not recipients:
            raise UsageError("nobody could open the results", "name a recipient with --out-recipient")
        self._folder = folder
        self._store = store
        self._recipients = tuple(recipients)
        self._state = state
        self._single_writer = single_writer
        self._identity = identity or Identity.generate()
        self._max_size = max_size
        self._level = level
        self._trust = TrustStore(state / "trust")
        self._periodic = Periodic("sealfs-output", self._go_on, interval, "the results were not sealed", patience)

    @property
    def signer(self) -> Signer:
        """Who signs the results of this run, and of no other."""
        return self._identity.signer

    def start(self) -> None:
        """Claim the address with a first, empty snapshot, and begin to seal.

        A store that can't be written to, or an address that is taken, shows now and not after the training.

        Raises:
            UsageError: Something is at the address already, or the folder is not empty.
            StoreError: The store can't be used.
        """
        if any(self._folder.iterdir()):
            raise UsageError(f"{self._folder} is not empty", "results go into an empty folder")
        check_free(self._store)
        self._snapshot("start of the run", live=False)
        self._periodic.start()

    def finish(self, message: str = "end of the run") -> None:
        """Seal what is there now, once and for all; nothing may be writing any more.

        Args:
            message: For `sealfs log`.

        Raises:
            LocalIOError: Some files could not be sealed; all others are.
            SealfsError: The results could not be sealed. They are still in the folder.
        """
        held = self._periodic.finish(lambda: self._snapshot(message, live=False))
        lost = [path for path in held if self._has_content(path)]
        if lost:
            names = ", ".join(shown(path) for path in lost[:_SHOWN_PATHS])
            raise LocalIOError(
                f"{len(lost)} of the results could not be sealed: {names}",
                "they could not be read, or something went on writing to them after the run's end",
            )

    def abandon(self) -> None:
        """Seal nothing more; what was sealed stays."""
        self._periodic.stop()

    def _go_on(self) -> None:
        held = self._snapshot("during the run", live=True)
        if held:
            log.info("%d files were changing too fast, or could not be read: the next snapshot has them", len(held))

    def _snapshot(self, message: str, *, live: bool) -> set[bytes]:
        """Push the folder, and return which files stayed as they were in the snapshot before.

        Args:
            message: For `sealfs log`.
            live: Whether somebody may be writing.
        """
        self.check_size()
        held: set[bytes] = set()

        def refuse(error: SourceFileError) -> None:
            held.add(error.path)

        # A journal of its own: it goes by times of change, and what is written through a mapping changes none.
        with tempfile.TemporaryDirectory(prefix="push-", dir=self._state) as journal:
            self._push(message, refuse, Path(journal), live)
        return held

    def check_size(self) -> None:
        """Refuse to let more leave than may: a result as large as the data could be the data.

        Raises:
            UsageError: There is more in the folder.
        """
        if self._max_size is None:
            return
        size = 0
        for found in scan(os.fsencode(self._folder), refuse=lambda error: None):  # as the push goes about it
            size += len(found.path)  # a name says as much as content
            size += 0 if stat.S_ISDIR(found.status.st_mode) else found.status.st_size
        if size > self._max_size:
            raise UsageError(
                f"the results have {size} bytes, {self._max_size} are allowed", "nothing of them was sealed"
            )

    def _push(self, message: str, refuse: Refuse, state: Path, live: bool) -> None:
        options = PushOptions(
            recipients=self._recipients,
            message=message,
            refuse=refuse,
            checksum=True,  # what is written through a mapping changes no time, and Gramine's clocks are coarse
            live=live,
            single_writer=self._single_writer,
            level=self._level,
            max_size=self._max_size,
            jobs=1,  # each takes the size of a pack of the enclave's memory
        )
        Push(self._folder, self._store, self._identity, self._trust, options, state=state).run()

    def _has_content(self, path: bytes) -> bool:
        """Whether leaving this out loses anything: not what is gone, nor sockets and pipes."""
        try:
            mode = os.lstat(os.path.join(os.fsencode(self._folder), path)).st_mode
        except OSError:
            return False
        return stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)


def check_free(store: ObjectStore) -> None:
    """Refuse an address for results where something is.

    Raises:
        UsageError: Something is.
        StoreError: The store can't be used.
    """
    try:
        store.stat(HEAD)
    except ObjectNotFoundError:
        return
    raise UsageError(
        f"there is a dataset at {store.uri} already",
        "each run signs its results with a key of its own: give it an address of its own",
    )


@contextmanager
def sealed_to_the_end(sealer: OutputSealer) -> Iterator[None]:
    """Run a script of this very process in the block, and see to the last snapshot however it ends.

    What Python does when a program ends comes first: threads that it waits for, exit handlers. SIGTERM becomes an
    ordinary exit. Only SIGKILL, a crash in native code or `os._exit` leave no more than the last interval's
    snapshot. A fork that ends like a program seals nothing.

    Raises:
        SystemExit: As the script; with code 1, after its traceback, for any other exception of the script.
        SealfsError: The results could not all be sealed, whatever the script's exit code.
    """
    owner = os.getpid()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    except SystemExit:
        raise
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(1) from None
    finally:
        if os.getpid() == owner:
            end_like_a_program()
            sealer.finish()


def end_like_a_program() -> None:
    """Wait for threads and run exit handlers: once the interpreter itself does, no thread can seal any more."""
    for thread in threading.enumerate():
        if not thread.daemon and thread is not threading.current_thread():
            thread.join()
    atexit._run_exitfuncs()  # documented nowhere, but the only way to run them early, and once
    sys.stdout.flush()  # it may be a file among the results
    sys.stderr.flush()
