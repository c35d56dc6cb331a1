"""Results leave a folder in memory sealed, whatever the script does to it meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from commands import wait_for
from dataset.tools import opened

from sealfs.dataset.content import ChangedWhileReadError, OpenFile
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.output import OutputSealer
from sealfs.errors import KeyAccessError, LocalIOError, StoreError, TrustError, UsageError
from sealfs.keys import Identity
from sealfs.progress import Silent
from sealfs.pull import Pull
from sealfs.store.base import ObjectStore
from sealfs.store.local import LocalStore
from sealfs.xdg import state_directory

MARK = b"PLAINTEXT-THAT-MUST-NOT-LEAVE"
NEVER = 3600.0  # seconds between snapshots where a test wants none


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, as a run has one."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as top:
        (Path(top) / "content").mkdir()
        (Path(top) / "state").mkdir()
        yield Path(top)


@pytest.fixture
def folder(memory: Path) -> Path:
    return memory / "content"


Sealer = Callable[..., OutputSealer]


@pytest.fixture
def sealer(memory: Path, local_store: LocalStore, identity: Identity) -> Iterator[Sealer]:
    """Makes sealers of the folder that do not outlive the test."""
    made: list[OutputSealer] = []

    def make(store: ObjectStore = local_store, interval: float = NEVER, patience: float = 0.0) -> OutputSealer:
        recipients, state = [identity.recipient], memory / "state"
        output = OutputSealer(memory / "content", store, recipients, state, interval=interval, patience=patience)
        made.append(output)
        return output

    yield make
    for output in made:
        output.abandon()


class Switched:
    """A store that can be switched off."""

    def __init__(self, store: ObjectStore) -> None:
        self.on = True
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if not self.on:
            raise StoreError("switched off")
        return getattr(self._store, name)

    @property
    def uri(self) -> str:
        return self._store.uri


def newest(store: LocalStore, trust: TrustStore) -> int:
    store.close()
    return Dataset.open(store, trust).snapshot.version


def content(
    store: LocalStore, identity: Identity, trust: TrustStore, version: int | None = None
) -> dict[str, bytes]:
    """All files of a version, as `sealfs pull` writes them."""
    with tempfile.TemporaryDirectory() as out, opened(store, identity, trust, version) as view:
        Pull(view, Path(out), Silent()).run([])
        return files(Path(out))


def files(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}


class Script(threading.Thread):
    """Does to a folder what training scripts do, again and again, and checks what it reads back.

    Args:
        folder: Where it writes.
        done: Whether it has done enough.
    """

    def __init__(self, folder: Path, done: Callable[[], bool]) -> None:
        super().__init__()
        self.folder = folder
        self.done = done
        self.error: BaseException | None = None

    def run(self) -> None:
        rounds, give_up = 0, time.monotonic() + 60
        try:
            while rounds < 30 or not self.done():
                assert time.monotonic() < give_up, "no snapshots are made while a script is writing"
                self.one_round(rounds)
                rounds += 1
        except BaseException as error:
            self.error = error

    def one_round(self, number: int) -> None:
        rng = np.random.default_rng(number)
        folder = self.folder
        for _ in range(3):  # a log that is opened anew for each odd-sized record
            with (folder / "vdlrecords.log").open("ab") as log:
                log.write(MARK + rng.bytes(int(rng.integers(1, 5000))))
        weights = rng.bytes(int(rng.integers(1, 3_000_000)))
        with (folder / "model.pdparams").open("wb") as file:  # one byte first, as paddle.save may
            file.write(weights[:1])
            file.flush()
            file.write(weights[1:])
        assert (folder / "model.pdparams").read_bytes() == weights
        values = rng.normal(size=1000)
        np.savez(folder / "metrics.npz", values=values, again=values)  # goes back to fill in sizes
        with np.load(folder / "metrics.npz") as loaded:
            assert (loaded["again"] == values).all()
        with zipfile.ZipFile(folder / "all.zip", "w") as archive:
            archive.write(folder / "metrics.npz", "metrics.npz")
        new = folder / "new"
        new.mkdir()
        (new / "model").write_bytes(weights)
        new.rename(folder / f"iter_{number}")
        if number >= 2:
            shutil.rmtree(folder / f"iter_{number - 2}")
        temporary = folder / "best.tmp"
        temporary.write_bytes(MARK)
        temporary.replace(folder / "best")
        (folder / "gone").touch()
        (folder / "gone").unlink()


def test_what_scripts_do(
    sealer: Sealer, folder: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path
) -> None:
    output = sealer(interval=0.05)
    output.start()
    script = Script(folder, lambda: newest(local_store, trust) > 3)
    script.start()
    script.join()
    output.finish()
    assert script.error is None
    assert content(local_store, identity, trust) == files(folder)
    assert Dataset.open(local_store, trust).snapshot.signer == output.signer
    for stored in (tmp_path / "store").rglob("*"):
        assert not stored.is_file() or MARK not in stored.read_bytes()
    assert not (state_directory() / "pushes").exists(), "file names were written to the user's disk"


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """Paths of files that seem to change whenever they are read; a real writer is not always quick enough."""
    paths: set[bytes] = set()
    check_unchanged, check_moment = OpenFile.check_unchanged, OpenFile.check_moment

    def unchanged(self: OpenFile) -> None:
        if self.state.path in paths:
            raise ChangedWhileReadError
        check_unchanged(self)

    def moment(self: OpenFile, digest: bytes) -> None:
        if self.state.path in paths:
            raise ChangedWhileReadError
        check_moment(self, digest)

    monkeypatch.setattr(OpenFile, "check_unchanged", unchanged)
    monkeypatch.setattr(OpenFile, "check_moment", moment)
    return paths


def every_version(store: LocalStore, identity: Identity, trust: TrustStore) -> Iterator[dict[str, bytes]]:
    for version in range(1, newest(store, trust) + 1):
        yield content(store, identity, trust, version)


def test_a_log_that_grows_all_the_time_is_in_each_snapshot(
    sealer: Sealer, folder: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    """A crash loses an interval of it, not all."""
    output = sealer(interval=0.1)
    output.start()
    with (folder / "log").open("ab", buffering=0) as log:
        give_up = time.monotonic() + 60
        while newest(local_store, trust) < 5:
            assert time.monotonic() < give_up, "nothing is sealed while the log grows"
            for _ in range(10):
                log.write(b"%09d\n" % (log.tell() // 10))
                time.sleep(0.002)
    output.finish()
    logs = [version.get("log", b"") for version in every_version(local_store, identity, trust)]
    assert logs[0] == b""
    assert all(len(earlier) < len(later) and later.startswith(earlier) for earlier, later in pairwise(logs))
    assert logs[-1] == (folder / "log").read_bytes() == b"".join(b"%09d\n" % n for n in range(len(logs[-1]) // 10))


@pytest.mark.parametrize("size", [100_000, 10_000_000], ids=["small", "of several packs"])
def test_what_is_overwritten_all_the_time_is_sealed_as_it_was_at_one_moment(
    sealer: Sealer, folder: Path, local_store: LocalStore, identity: Identity, trust: TrustStore,
    small_packs: Callable[[int], None], size: int,
) -> None:  # fmt: skip
    """Through a mapping, which changes no times. At each moment the first number is the last or one more."""
    small_packs(1 << 20)
    output = sealer(interval=0.05)
    output.start()
    mapped = np.memmap(folder / "values", np.uint64, "w+", shape=(size // 8,))
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(float(pause.random()) * size / 2e6):
            mapped[0] += np.uint64(1)
            mapped[-1] += np.uint64(1)

    pause = np.random.default_rng(1)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_for(lambda: newest(local_store, trust) > 6)
    finally:
        stop.set()
        writer.join()
    output.finish()
    found = [version["values"] for version in every_version(local_store, identity, trust) if "values" in version]
    ends = [np.frombuffer(values, np.uint64)[[0, -1]].tolist() for values in found]
    assert all(first - last in (0, 1) for first, last in ends), ends
    assert len({first for first, _ in ends}) > 2
    assert found[-1] == (folder / "values").read_bytes()


def test_file_that_changes_too_fast_waits(
    sealer: Sealer,
    folder: Path,
    local_store: LocalStore,
    identity: Identity,
    trust: TrustStore,
    busy: set[bytes],
) -> None:
    """It stays as it was, or absent; the others are sealed, and the end has it."""
    output = sealer(interval=0.1)
    output.start()
    (folder / "log").write_bytes(b"quiet")
    wait_for(lambda: content(local_store, identity, trust).get("log") == b"quiet")
    busy |= {b"log", b"new log"}
    (folder / "log").write_bytes(b"half of")
    (folder / "new log").write_bytes(b"half of")
    (folder / "other").write_bytes(b"other")
    wait_for(lambda: "other" in content(local_store, identity, trust))
    assert content(local_store, identity, trust) == {"log": b"quiet", "other": b"other"}
    busy.clear()
    output.finish()
    assert content(local_store, identity, trust) == files(folder)


def test_busy_to_the_end_fails_and_seals_the_rest(
    sealer: Sealer,
    folder: Path,
    local_store: LocalStore,
    identity: Identity,
    trust: TrustStore,
    busy: set[bytes],
) -> None:
    output = sealer()
    output.start()
    busy.add(b"log")
    (folder / "model").write_bytes(b"model")
    (folder / "log").write_bytes(b"log")
    with pytest.raises(LocalIOError, match="1 of the results could not be sealed: log"):
        output.finish()
    assert content(local_store, identity, trust) == {"model": b"model"}


def test_written_through_a_mapping(
    sealer: Sealer, folder: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    """Stores into pages that are mapped already change neither size nor times."""
    output = sealer(interval=0.1)
    output.start()
    mapped = np.memmap(folder / "values", np.uint8, "w+", shape=(100_000,))
    mapped[:] = 1  # only the first store into a page is noticed
    wait_for(lambda: "values" in content(local_store, identity, trust))
    before = (folder / "values").stat().st_mtime_ns
    mapped[:] = 7
    assert (folder / "values").stat().st_mtime_ns == before, "a kernel for which this test means nothing"
    output.finish()
    assert content(local_store, identity, trust) == {"values": b"\7" * 100_000}


def test_sockets_and_pipes_hold_no_results(
    sealer: Sealer, folder: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    output = sealer()
    output.start()
    os.mkfifo(folder / "pipe")
    (folder / "deep").mkdir()
    (folder / "deep" / "pipe").write_bytes(b"a file of the same name")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(folder / "socket"))
        output.finish()
    assert content(local_store, identity, trust) == {"deep/pipe": b"a file of the same name"}


def test_only_recipients_can_open(
    sealer: Sealer, folder: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    output = sealer()
    output.start()
    (folder / "a").write_bytes(b"a")
    output.finish()
    with pytest.raises(KeyAccessError):
        content(local_store, Identity.generate(), trust)
    assert content(local_store, identity, trust) == {"a": b"a"}


def test_address_is_claimed_at_the_start(sealer: Sealer) -> None:
    """Whoever else wanted it learns so before training."""
    first = sealer()
    first.start()
    with pytest.raises(UsageError, match="there is a dataset at"):
        sealer().start()
    first.finish()


def test_store_that_is_away_shows_at_the_start(sealer: Sealer, local_store: LocalStore) -> None:
    store = Switched(local_store)
    store.on = False
    with pytest.raises(StoreError):
        sealer(cast(ObjectStore, store)).start()


def test_needs_a_recipient_and_an_empty_folder(
    sealer: Sealer, memory: Path, folder: Path, local_store: LocalStore
) -> None:
    with pytest.raises(UsageError, match="nobody could open"):
        OutputSealer(folder, local_store, [], memory / "state")
    (folder / "x").touch()
    with pytest.raises(UsageError, match="not empty"):
        sealer().start()


def test_store_that_is_away_in_the_end_fails(sealer: Sealer, folder: Path, local_store: LocalStore) -> None:
    store = Switched(local_store)
    output = sealer(cast(ObjectStore, store), interval=0.05)
    output.start()
    store.on = False
    (folder / "a").write_bytes(b"a")
    time.sleep(0.3)  # the interval's snapshots fail, and do not end anything
    with pytest.raises(StoreError, match="switched off"):
        output.finish()


def test_store_that_comes_back_in_time(
    sealer: Sealer, folder: Path, local_store: LocalStore, identity: Identity, trust: TrustStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("sealfs.periodic._PAUSE", 0.1)
    store = Switched(local_store)
    output = sealer(cast(ObjectStore, store), patience=60.0)
    output.start()
    store.on = False
    (folder / "a").write_bytes(b"a")
    timer = threading.Timer(0.5, lambda: setattr(store, "on", True))
    timer.start()
    output.finish()
    timer.join()
    assert content(local_store, identity, trust) == {"a": b"a"}


def test_rolled_back_address_fails(sealer: Sealer, folder: Path, local_store: LocalStore, tmp_path: Path) -> None:
    """Whoever runs the store puts an earlier head back: the run must not go on from there."""
    output = sealer(interval=NEVER)
    output.start()
    shutil.rmtree(tmp_path / "store")
    (folder / "a").write_bytes(b"a")
    with pytest.raises(TrustError):
        output.finish()


IN_PROCESS = """
import atexit, os, signal, sys, threading, time
from pathlib import Path
from sealfs.enclave.output import OutputSealer, sealed_to_the_end
from sealfs.errors import SealfsError
from sealfs.keys import load_identity
from sealfs.store.local import LocalStore
top, store, identity, how = sys.argv[1:]
out = Path(top) / "content"
recipient = load_identity(Path(identity)).recipient
sealer = OutputSealer(out, LocalStore(Path(store)), [recipient], Path(top) / "state", patience=0)
sealer.start()

def script():
    atexit.register(lambda: (out / "late").write_bytes(b"at exit"))
    (out / "a").write_bytes(b"a")
    def later():
        time.sleep(0.3)
        (out / "thread").write_bytes(b"thread")
    threading.Thread(target=later).start()
    if how == "fork":
        child = os.fork()
        if child == 0:
            sys.exit(0)
        os.waitpid(child, 0)
        (out / "after the fork").touch()
    elif how == "error":
        raise RuntimeError("of the script")
    elif how == "code":
        sys.exit(3)
    elif how == "away":
        os.rename(store, store + ".away")
        Path(store).touch()
    elif how == "wait":
        print("ready", flush=True)
        time.sleep(60)

try:
    with sealed_to_the_end(sealer):
        script()
except SealfsError as error:
    print("sealfs:", error.message, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(
    ("how", "code"), [("return", 0), ("fork", 0), ("error", 1), ("code", 3), ("away", 6), ("wait", 143)]
)
def test_in_the_process_of_the_script(
    memory: Path, folder: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path,
    how: str, code: int,
) -> None:  # fmt: skip
    identity.save(tmp_path / "identity")
    store = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-c", IN_PROCESS, memory, store, tmp_path / "identity", how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if how == "wait":
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    if how == "away":
        assert "sealfs: " in stderr
        return
    found = content(local_store, identity, trust)
    assert found == files(folder)
    assert (found["late"], found["thread"]) == (b"at exit", b"thread")
    assert ("RuntimeError: of the script" in stderr) == (how == "error")
    assert newest(local_store, trust) == 2


@pytest.mark.parametrize("weighed", [True, False], ids=["before", "grown since it was weighed"])
@pytest.mark.parametrize("kind", ["file", "large file", "name", "folder", "link"])
def test_no_more_leaves_than_may_whatever_it_is_hidden_in(
    memory: Path, folder: Path, local_store: LocalStore, identity: Identity, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, kind: str, weighed: bool,
) -> None:  # fmt: skip
    output = OutputSealer(
        folder, local_store, [identity.recipient], memory / "state", interval=NEVER, patience=0.0, max_size=100
    )
    output.start()
    if not weighed:
        monkeypatch.setattr(OutputSealer, "check_size", lambda self: None)
    try:
        secret = "s" * 101
        if kind == "file":
            (folder / "f").write_text(secret)
        elif kind == "large file":
            (folder / "f").write_bytes(bytes(100_000_000))
        elif kind == "name":
            (folder / secret).touch()
        elif kind == "folder":
            (folder / secret).mkdir()
        else:
            (folder / "l").symlink_to(secret)
        with pytest.raises(UsageError, match="100 are allowed" if weighed else "more to seal than may be sent"):
            output.finish()
    finally:
        output.abandon()
    assert newest(local_store, TrustStore(memory / "state" / "trust")) == 1
    assert sum(path.stat().st_size for path in (tmp_path / "store" / "packs").glob("*")) == 0


def test_what_vanishes_while_sizes_are_added_up_fails_nothing(
    memory: Path, folder: Path, local_store: LocalStore, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that the script left behind may still be tidying up."""
    output = OutputSealer(
        folder, local_store, [identity.recipient], memory / "state", interval=NEVER, patience=0.0, max_size=100
    )
    output.start()
    (folder / "weights").write_bytes(b"weights")
    (folder / "a.tmp").touch()

    def vanishing(real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def look(path: Any, *rest: Any, **words: Any) -> os.stat_result:
            if not isinstance(path, int) and os.fsencode(path).endswith(b".tmp"):
                Path(os.fsdecode(path)).unlink(missing_ok=True)
            return real(path, *rest, **words)

        return look

    with monkeypatch.context() as patch:
        patch.setattr("os.lstat", vanishing(os.lstat))
        patch.setattr("os.stat", vanishing(os.stat))
        output.finish()
    assert content(local_store, identity, TrustStore(memory / "state" / "trust")) == {"weights": b"weights"}
