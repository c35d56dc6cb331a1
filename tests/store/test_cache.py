"""The ciphertext cache: bounded, shared, robust against rot, crashes, full disks and a store that is away."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dataset.tools import Spy, opened, push, read, state_of_folder, state_of_view

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.errors import IntegrityError, LocalIOError, ObjectNotFoundError, ObjectSizeError, StoreError
from sealfs.keys import Identity
from sealfs.opening import CacheSettings, open_view
from sealfs.store import cache
from sealfs.store.cache import BlockCache, DiskBlocks, MemoryBlocks
from sealfs.store.local import LocalStore

BLOCK = 1000
NAME = "packs/0000000000000001-00000000000000000000000000000001"
OTHER = "packs/0000000000000001-00000000000000000000000000000002"
DATA = os.urandom(10 * BLOCK + 123)


class Distant(Spy):
    """A store behind a network: counts, can be slow, and can go away."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self.asked: Counter[tuple[str, int]] = Counter()
        self.delay, self.away, self.closed = 0.0, False, False
        self.gate = threading.Event()
        self.gate.set()

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        self.asked[key, offset] += 1
        assert self.gate.wait(60)
        time.sleep(self.delay)
        if self.away:
            raise StoreError("the network is down")
        super().read_into(key, offset, buffer)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "BLOCK_SIZE", BLOCK)
    monkeypatch.setattr(cache, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(cache, "_LONGEST_PAUSE", 0.02)


@pytest.fixture
def distant(local_store: LocalStore) -> Distant:
    local_store.put(NAME, DATA)
    local_store.put(OTHER, DATA[::-1])
    return Distant(local_store)


@pytest.fixture(params=["disk", "memory"])
def cached(request: pytest.FixtureRequest, distant: Distant, tmp_path: Path) -> Iterator[BlockCache]:
    limit = 5 * BLOCK
    blocks = DiskBlocks(tmp_path / "cache", limit) if request.param == "disk" else MemoryBlocks(limit)
    source = BlockCache(distant, blocks, deadline=0.5)
    yield source
    distant.gate.set()
    source.close()


def fetch(source: BlockCache, offset: int, size: int, name: str = NAME) -> bytes:
    buffer = bytearray(size)
    source.read_into(name, len(DATA), offset, memoryview(buffer))
    return bytes(buffer)


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("??/*"))


def eventually(condition: object) -> None:
    give_up = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < give_up
        time.sleep(0.002)


def test_every_range_is_right(cached: BlockCache) -> None:
    for offset in range(0, len(DATA), 333):
        for size in {min(size, len(DATA) - offset) for size in (0, 1, 999, 1000, 1001, 2500)}:
            assert fetch(cached, offset, size) == DATA[offset : offset + size]
            assert cached.size <= 5 * BLOCK


def test_what_is_cached_is_not_fetched_again(cached: BlockCache, distant: Distant) -> None:
    fetch(cached, 0, 3 * BLOCK)
    before = distant.asked.copy()
    fetch(cached, 100, 2 * BLOCK)
    assert distant.asked == before
    assert (cached.counters.misses, cached.counters.fetched) == (3, 3 * BLOCK)
    assert cached.counters.hits == 3


def test_the_least_recently_used_goes_first(cached: BlockCache, distant: Distant) -> None:
    fetch(cached, 0, 5 * BLOCK)
    fetch(cached, 0, 1)
    fetch(cached, 5 * BLOCK, 1)
    distant.asked.clear()
    fetch(cached, 0, 1)
    assert not distant.asked
    fetch(cached, BLOCK, 1)
    assert distant.asked == {(NAME, BLOCK): 1}


def test_a_block_that_many_want_is_fetched_once(cached: BlockCache, distant: Distant) -> None:
    distant.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        wanted = [pool.submit(fetch, cached, 10 * n, 10) for n in range(8)]
        eventually(lambda: distant.asked)
        distant.gate.set()
        assert [future.result() for future in wanted] == [DATA[10 * n : 10 * n + 10] for n in range(8)]
    assert distant.asked == {(NAME, 0): 1}


def test_a_slow_object_does_not_hold_up_another(cached: BlockCache, distant: Distant) -> None:
    fetch(cached, 0, 10, OTHER)
    distant.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(fetch, cached, 0, 10)
        eventually(lambda: distant.asked[NAME, 0])
        assert fetch(cached, 5, 5, OTHER) == DATA[::-1][5:10]
        assert not slow.done()
        distant.gate.set()
        assert slow.result() == DATA[:10]


def test_prefetch_returns_at_once_and_brings_what_was_asked(cached: BlockCache, distant: Distant) -> None:
    distant.gate.clear()
    cached.prefetch(NAME, len(DATA), 900, 2 * BLOCK)
    cached.prefetch(NAME, len(DATA), len(DATA) - 5, 10 * BLOCK)
    cached.prefetch(NAME, len(DATA), len(DATA) + 5 * BLOCK, BLOCK)
    assert not cached.counters.fetched  # the store has answered nothing yet
    distant.gate.set()
    cached.wait(NAME, len(DATA))
    eventually(lambda: cached.counters.fetched == 3 * BLOCK + 123)
    assert set(distant.asked) == {(NAME, n * BLOCK) for n in (0, 1, 2, 10)}
    before = distant.asked.copy()
    fetch(cached, 900, 2 * BLOCK)
    assert distant.asked == before


def test_away_until_the_deadline_then_an_error_then_well_again(cached: BlockCache, distant: Distant) -> None:
    distant.away = True
    began = time.monotonic()
    with pytest.raises(StoreError, match="network is down"):
        fetch(cached, 0, 10)
    assert 0.4 < time.monotonic() - began < 30
    assert distant.asked[NAME, 0] > 3
    assert cached.counters.errors > 3
    distant.away = False
    assert fetch(cached, 0, 10) == DATA[:10]


def test_a_short_absence_goes_unnoticed(cached: BlockCache, distant: Distant) -> None:
    distant.away = True
    timer = threading.Timer(0.08, lambda: setattr(distant, "away", False))
    timer.start()
    assert fetch(cached, 0, 10) == DATA[:10]
    timer.join()


@pytest.mark.parametrize(("change", "error"), [("delete", ObjectNotFoundError), ("cut", ObjectSizeError)])
def test_what_is_gone_or_cut_is_not_waited_for(
    cached: BlockCache, distant: Distant, change: str, error: type[StoreError]
) -> None:
    if change == "delete":
        distant.store.delete([NAME])
    else:
        distant.store.put(NAME, DATA[:50])
    with pytest.raises(error):
        fetch(cached, 0, 100)
    assert distant.asked == {(NAME, 0): 1}


def test_who_waits_when_it_closes_gets_an_error_and_so_does_who_comes_later(
    distant: Distant, tmp_path: Path
) -> None:
    source = BlockCache(distant, MemoryBlocks(5 * BLOCK), deadline=60)
    distant.gate.clear()
    with ThreadPoolExecutor(11) as pool:  # more than fetch at a time: some wait in the queue
        waiting = [pool.submit(fetch, source, n * BLOCK, 10) for n in range(11)]
        eventually(lambda: len(source._flying) == 11)
        distant.away = True
        source.close()
        distant.gate.set()
        for future in waiting:
            with pytest.raises(StoreError):
                future.result(10)
    with pytest.raises(StoreError, match="closed"):
        fetch(source, 0, 10)
    assert distant.closed


def test_the_caller_is_told_before_it_blocks_and_only_then(distant: Distant) -> None:
    told: list[int] = []
    source = BlockCache(distant, MemoryBlocks(5 * BLOCK), about_to_block=lambda: told.append(1))
    distant.delay = 0.05
    fetch(source, 0, 10)
    assert told == [1]
    fetch(source, 5, 10)
    assert told == [1]
    source.close()


# --- on disk ---


def test_the_limit_holds_on_disk_at_every_moment_and_under_many_threads(distant: Distant, tmp_path: Path) -> None:
    folder, limit = tmp_path / "cache", 4 * BLOCK
    source = BlockCache(distant, DiskBlocks(folder, limit))
    stop, seen = threading.Event(), [0]

    def watch() -> None:
        while not stop.is_set():
            total = 0
            for path in folder.glob("??/*"):
                try:
                    total += path.stat().st_size
                except FileNotFoundError:
                    continue
            seen.append(total)

    def work(seed: int) -> bool:
        return all(
            fetch(source, at, 500) == DATA[at : at + 500]
            for step in range(150)
            for at in [(seed * 777 + step * 1313) % (len(DATA) - 500)]
        )

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))
    stop.set()
    watcher.join()
    assert source.size == on_disk(folder) <= limit
    # a look at the folder is no snapshot of it: one block may be seen that went while another came
    assert max(seen) <= limit + 2 * BLOCK
    source.close()


def test_blocks_survive_a_restart_and_leftovers_do_not(distant: Distant, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    source = BlockCache(distant, DiskBlocks(folder, 5 * BLOCK))
    fetch(source, 0, 4 * BLOCK)
    source._pool.shutdown()
    source.close()
    some = next(folder.glob("??/*"))
    leftovers = [some.with_name(some.name + ".tmp"), some.parent / "garbage", some.parent / "x.y"]
    for path in leftovers:
        path.write_bytes(b"half a block")
    distant.asked.clear()
    source = BlockCache(distant, DiskBlocks(folder, 5 * BLOCK))
    assert fetch(source, 0, 4 * BLOCK) == DATA[: 4 * BLOCK]
    assert not distant.asked
    assert not any(path.exists() for path in leftovers)
    assert source.size == on_disk(folder) == 4 * BLOCK
    source.close()


def test_a_smaller_limit_than_last_time_is_kept_too(distant: Distant, tmp_path: Path) -> None:
    blocks = DiskBlocks(tmp_path / "cache", 5 * BLOCK)
    for number in range(5):
        blocks.put((NAME, number), bytearray(BLOCK))
        os.utime(next((tmp_path / "cache").glob(f"??/*.{number}")), (number, number))
    blocks.close()
    blocks = DiskBlocks(tmp_path / "cache", 2 * BLOCK)
    assert blocks.size == on_disk(tmp_path / "cache") == 2 * BLOCK
    assert [n for n in range(5) if (NAME, n) in blocks] == [3, 4]
    blocks.close()


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "link", "folder"])
def test_a_block_file_that_something_happened_to_is_fetched_again(
    distant: Distant, tmp_path: Path, damage: str
) -> None:
    source = BlockCache(distant, DiskBlocks(tmp_path / "cache", 5 * BLOCK))
    fetch(source, 0, BLOCK)
    eventually(lambda: source.size)
    path = next((tmp_path / "cache").glob("??/*"))
    if damage in {"cut", "empty"}:
        os.truncate(path, 10 if damage == "cut" else 0)
    else:
        path.unlink()
    if damage == "link":
        path.symlink_to("/etc/passwd")
    elif damage == "folder":
        path.mkdir()
    assert fetch(source, 100, 800) == DATA[100:900]
    source.close()


def test_what_others_leave_in_the_folder_stops_nobody_and_is_not_written_through(
    distant: Distant, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    flat = NAME.replace("/", "_")
    folder = tmp_path / "cache" / flat[-2:]
    folder.mkdir(parents=True)
    (folder / f"{flat}.²").write_text("a digit, but no number")
    (folder / f"{flat}.0").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / f"{flat}.1")
    (folder / f"{flat}.2.tmp").symlink_to(victim)
    (folder / f"{flat}.3").mkdir()
    blocks = DiskBlocks(tmp_path / "cache", 50 * BLOCK)
    assert blocks.size == 0
    source = BlockCache(distant, blocks)
    assert fetch(source, 0, 4 * BLOCK) == DATA[: 4 * BLOCK]
    eventually(lambda: not source._flying)
    os.unlink(folder / f"{flat}.1")
    os.mkfifo(folder / f"{flat}.1")  # in place of one that is known
    assert fetch(source, 0, 4 * BLOCK) == DATA[: 4 * BLOCK]
    assert victim.read_text() == "precious"
    source.close()


def test_a_full_disk_is_done_without(distant: Distant, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "cache"
    blocks = DiskBlocks(folder, 5 * BLOCK)
    source = BlockCache(distant, blocks)
    with pytest.MonkeyPatch.context() as patch:

        def full(self: Path, *args: object, **kwargs: object) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(Path, "open", full)
        assert fetch(source, 0, 3000) == DATA[:3000]
        eventually(lambda: not source._flying)
    assert "No space left" in caplog.text
    assert source.size == on_disk(folder) == 0
    assert fetch(source, 0, 3000) == DATA[:3000]
    eventually(lambda: source.size == 3000)
    source.close()


def test_a_block_larger_than_the_cache_throws_nothing_out(tmp_path: Path) -> None:
    blocks = DiskBlocks(tmp_path / "cache", 2 * BLOCK)
    blocks.put((NAME, 0), bytearray(BLOCK))
    blocks.put((NAME, 1), bytearray(2 * BLOCK + 1))
    assert (NAME, 0) in blocks
    assert (NAME, 1) not in blocks
    assert blocks.size == BLOCK
    blocks.close()


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    blocks = DiskBlocks(tmp_path / "cache", BLOCK)
    program = (
        "import sys, pathlib\nfrom sealfs.store.cache import DiskBlocks\nfrom sealfs.errors import LocalIOError\n"
        "try:\n    DiskBlocks(pathlib.Path(sys.argv[1]), 1)\n"
        "except LocalIOError as error:\n    print(error.message, '/', error.hint)\n"
    )

    def other() -> str:
        command = [sys.executable, "-c", program, tmp_path / "cache"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "another mount uses the cache" in other()
    assert "--cache-dir" in other()
    blocks.close()
    assert other() == ""


def test_a_folder_that_cannot_be_a_cache_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalIOError, match="cannot use the cache"):
        DiskBlocks(tmp_path / "file" / "cache", BLOCK)


# --- under a view ---


@pytest.mark.error_logs
@pytest.mark.parametrize("where", ["cache", "store", "both"])
def test_rot_in_the_cache_is_healed_and_rot_in_the_store_is_not_believed(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path, where: str
) -> None:
    push(tree, local_store, identity, trust)
    dataset = Dataset.open(Distant(local_store), trust)
    settings = CacheSettings(directory=tmp_path / "cache", memory_size=0, deadline=0.3)
    view, source = open_view(dataset, dataset.keys(identity), settings)
    assert state_of_view(view) == state_of_folder(tree)
    source._pool.shutdown()  # type: ignore[attr-defined]
    view.close()
    rotten = list((tmp_path / "cache").glob("*/??/*"))
    assert rotten
    if where in {"cache", "both"}:
        for path in rotten:
            path.write_bytes(bytes(b ^ 0x40 for b in path.read_bytes()))
    if where in {"store", "both"}:
        for ref in dataset.snapshot.packs:
            data, _ = local_store.get(ref.name, max_size=1 << 30)
            local_store.put(ref.name, bytes(b ^ 0x20 for b in data))
    view, _ = open_view(dataset, dataset.keys(identity), settings)
    if where == "cache":
        assert state_of_view(view) == state_of_folder(tree)
        assert view.poisoned is None
    elif where == "both":
        with pytest.raises(IntegrityError):
            state_of_view(view)
    else:  # what was cached when all was well is still authentic
        assert state_of_view(view) == state_of_folder(tree)
    view.close()


def test_a_cache_that_cannot_be_had_is_replaced_by_memory(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path
) -> None:
    push(tree, local_store, identity, trust)
    (tmp_path / "file").touch()
    dataset = Dataset.open(Distant(local_store), trust)
    view, _ = open_view(dataset, dataset.keys(identity), CacheSettings(directory=tmp_path / "file", deadline=0.3))
    assert state_of_view(view) == state_of_folder(tree)
    view.close()


def test_a_local_store_is_read_without_a_cache(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, own_folders: Path
) -> None:
    push(tree, local_store, identity, trust)
    with opened(local_store, identity, trust) as view:
        assert read(view, view.lookup(b"script")) == b"#!/bin/sh\n"
    assert not (own_folders / "cache").exists()
