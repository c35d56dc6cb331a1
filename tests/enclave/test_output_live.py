"""Results are sealed while the script goes on writing them: no snapshot has what never was."""

from __future__ import annotations

import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from commands import wait_for

from enclave.sealed import Sealer, content, files, newest
from sealfs.dataset.content import ChangedWhileReadError, OpenFile
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.errors import LocalIOError
from sealfs.keys import Identity
from sealfs.store.local import LocalStore
from sealfs.xdg import state_directory

MARK = b"PLAINTEXT-THAT-MUST-NOT-LEAVE"


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
