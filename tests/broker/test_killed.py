"""A broker that is killed at any point has never released more than it logged, and goes on afterwards."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands import PATIENCE

from broker.dying import STEPS
from broker.tools import REHEARSAL, running
from sealfs.attestation.runner import RunnerProvider
from sealfs.broker import protocol
from sealfs.broker.address import BrokerAddress
from sealfs.broker.audit import entries, verify
from sealfs.broker.client import BrokerClient
from sealfs.broker.database import Database
from sealfs.broker.home import database_path, log_key_of
from sealfs.broker.transport import Connection, ProblemError
from sealfs.errors import BrokerError, SealfsError
from sealfs.keys import Identity

SCRIPT = Path(__file__).with_name("dying.py")
COMMITTED = {  # at which steps the log has a release that nobody got
    "when it is committed",
    "when the key is open",
    "when the key is encrypted but not sent",
}


@pytest.fixture
def prepared(tmp_path: Path, owner: Identity) -> tuple[bytes, RunnerProvider]:
    """A broker's folder, with a dataset and a runner that may have it."""
    with running(tmp_path, owner) as broker:
        return broker.publish(REHEARSAL).dataset, broker.runner()


@contextmanager
def broker_process(folder: Path, step: str) -> Iterator[tuple[subprocess.Popen[str], BrokerAddress]]:
    process = subprocess.Popen([sys.executable, SCRIPT, folder, step], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout
            yield process, BrokerAddress.parse(process.stdout.readline().strip())
        finally:
            process.kill()


def records(folder: Path) -> list[dict[str, Any]]:
    """The whole log, verified."""
    with closing(Database(database_path(folder / "home"), readonly=True)) as database:
        log = database.read(lambda transaction: list(entries(transaction)))
    return list(verify(log, log_key_of(folder / "home")[1]))


def events(folder: Path) -> Counter[str]:
    return Counter(record["event"] for record in records(folder))


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_killed_at_each_step(tmp_path: Path, prepared: tuple[bytes, RunnerProvider], step: str) -> None:
    dataset, provider = prepared
    before = events(tmp_path)
    with broker_process(tmp_path, step) as (process, address):
        client = BrokerClient(address, provider)
        if step == "never":
            client.resource("owner", dataset)
            assert events(tmp_path)["released"] == 1
            return
        with pytest.raises(BrokerError, match="does not answer"):
            client.resource("owner", dataset)
        assert process.wait(PATIENCE) == -signal.SIGKILL
    after = events(tmp_path)
    assert after["released"] - before["released"] == (step in COMMITTED)
    with broker_process(tmp_path, "never") as (_, address):
        client._address = address
        client.resource("owner", dataset)
    assert events(tmp_path)["released"] == after["released"] + 1


@pytest.mark.slow
def test_a_challenge_stays_spent(tmp_path: Path, prepared: tuple[bytes, RunnerProvider]) -> None:
    """Killed right after it was committed: the same answer is not taken a second time."""
    sent: list[tuple[bytes, str | None]] = []
    _, provider = prepared
    with pytest.MonkeyPatch.context() as patch:
        original = Connection.ask

        def ask(connection: Any, method: str, path: str, body: Any = None, cookie: str | None = None) -> Any:
            if path == protocol.ATTEST_PATH:
                sent.append((body, cookie))
            return original(connection, method, path, body, cookie)

        patch.setattr(Connection, "ask", ask)
        with (
            broker_process(tmp_path, "when the challenge is committed") as (_, address),
            pytest.raises(BrokerError),
        ):
            BrokerClient(address, provider).secret("owner/" + "00" * 16 + "/latest")
    ((body, cookie),) = sent
    with (
        broker_process(tmp_path, "never") as (_, address),
        Connection(address) as connection,
        pytest.raises(ProblemError, match="answered before"),
    ):
        connection.ask("POST", protocol.ATTEST_PATH, body, cookie)


@pytest.mark.slow
def test_killed_at_any_time(tmp_path: Path, prepared: tuple[bytes, RunnerProvider]) -> None:
    """Many ask at once while it is killed again and again: each key that came is in the log."""
    dataset, provider = prepared
    chance = random.Random(4)
    got: Counter[int] = Counter()

    def ask(address: BrokerAddress, number: int) -> None:
        try:
            while True:
                BrokerClient(address, provider).resource("owner", dataset)
                got[number] += 1
        except SealfsError:
            pass

    for _ in range(4):
        with broker_process(tmp_path, "never") as (process, address):
            threads = [threading.Thread(target=ask, args=(address, number)) for number in range(8)]
            for thread in threads:
                thread.start()
            time.sleep(0.3 + chance.random())
            os.kill(process.pid, signal.SIGKILL)
            for thread in threads:
                thread.join()
        assert 0 < sum(got.values()) <= events(tmp_path)["released"]
    sessions = Counter(record["session"] for record in records(tmp_path) if record["event"] == "released")
    assert max(sessions.values()) == 1


@pytest.mark.slow
def test_it_is_on_disk_before_it_leaves(tmp_path: Path, prepared: tuple[bytes, RunnerProvider]) -> None:
    """Killing can't show that; the order of system calls does: the log is written, synced, and then it answers."""
    if shutil.which("strace") is None:
        pytest.skip("there is no strace to look at system calls with")
    dataset, provider = prepared
    trace = tmp_path / "trace"
    strace = ["strace", "-D", "-f", "-y", "-o", str(trace), "-e", "trace=pwrite64,fsync,fdatasync,sendto,write"]
    command = [*strace, sys.executable, SCRIPT, tmp_path, "never"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = BrokerAddress.parse(process.stdout.readline().strip())
        start = len(trace.read_text().splitlines())
        BrokerClient(address, provider).resource("owner", dataset)
        process.terminate()
    calls = trace.read_text().splitlines()[start:]
    ours = [line for line in calls if "broker.sqlite-wal>" in line or "socket:" in line or "TCP:" in line]
    last_answer = max(number for number, line in enumerate(ours) if "sendto(" in line and "= -1" not in line)
    synced = [n for n, line in enumerate(ours) if "sync(" in line]
    written = [n for n, line in enumerate(ours) if "pwrite64(" in line]
    assert len(synced) >= 2, "one for the challenge, one for the decision"
    between = [n for n in synced if n < last_answer]
    assert between, ours
    assert not [n for n in written if between[-1] < n < last_answer], "something was written after the last sync"
