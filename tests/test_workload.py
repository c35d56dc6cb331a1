"""Commands in a group of their own: how they end is told right, whenever they do."""

from __future__ import annotations

import signal
import time

import pytest

from sealfs.errors import MountError
from sealfs.workload import Workload


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + signal.SIGTERM)]
)
def test_exit_code(script: str, code: int) -> None:
    assert Workload(["sh", "-c", script]).run(lambda: False) == code


def test_end_between_two_looks_at_it() -> None:
    """It is there when it is looked at, and gone when it is asked whether it was stopped."""

    def slow() -> bool:
        time.sleep(0.3)
        return False

    assert Workload(["sh", "-c", "exit 3"]).run(slow) == 3


def test_stopped_by_somebody_it_stays_so() -> None:
    """Without a terminal nobody is to be told."""
    begin = time.monotonic()
    workload = Workload(["sh", "-c", "kill -STOP $$; exit 4"])
    assert workload.run(lambda: time.monotonic() > begin + 1.0) == 128 + signal.SIGKILL


def test_that_cannot_be_started() -> None:
    workload = Workload(["/no/such/command"])
    with pytest.raises(MountError, match="/no/such/command"):
        workload.run(lambda: False)
    assert not workload.signal(signal.SIGTERM)
