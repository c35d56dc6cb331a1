"""Work that is done again and again beside a run, and once more, reliably, at its end.

Threading: `start` begins a thread of its own, in which the work is done until `stop` or `finish`; these methods
belong to the thread that called `start`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sealfs.errors import SealfsError, StoreError

log = logging.getLogger(__name__)

PATIENCE = 120.0  # seconds for which the last time is tried again while a store is away
_PAUSE = 5.0  # seconds between those tries

Result = TypeVar("Result")


class Periodic:
    """Does something at an interval.

    Args:
        name: Of the thread.
        work: What to do; a failure is logged, as the next time or the last may succeed.
        interval: Seconds from one end to the next beginning.
        failed: For messages: what has not been done this time, such as "the results were not sealed".
        patience: Seconds for which the last time is tried again while a store is away.
    """

    def __init__(
        self, name: str, work: Callable[[], object], interval: float, failed: str, patience: float = PATIENCE
    ) -> None:
        self._work = work
        self._interval = interval
        self._failed = failed
        self._patience = patience
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first time is an interval from now."""
        self._thread.start()

    def stop(self) -> None:
        """Wait for what is being done, and do nothing more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def finish(self, work: Callable[[], Result]) -> Result:
        """Stop, then do the last of it, with patience for a store that is away.

        Args:
            work: What is to be done this time.

        Raises:
            SealfsError: What `work` raised in the end.
        """
        self.stop()
        give_up = time.monotonic() + self._patience
        while True:
            try:
                return work()
            except StoreError as error:
                if time.monotonic() + _PAUSE > give_up:
                    raise
                log.warning("%s yet: %s; trying again", self._failed, error.message)
                time.sleep(_PAUSE)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self._work()
            except SealfsError as error:  # the network may be back next time, and the last one has to work anyway
                log.warning("%s this time: %s", self._failed, error.message)
            except Exception:
                log.exception("%s this time", self._failed)
