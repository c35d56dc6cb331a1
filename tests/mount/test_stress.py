"""Many readers at once get right bytes, and the process that serves them stays small."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import PATIENCE, Mounted, Sealfs, mounted, python, wait_for

from mount.bucket import PLACE, running_bucket

SECONDS = 2.5
WORKER = """
import os, random, sys, time
source, mountpoint, seed, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
rng, give_up, done = random.Random(seed), time.monotonic() + seconds, 0
names = sorted(os.listdir(source))
while time.monotonic() < give_up or done < 20:
    name = rng.choice(names)
    with open(f"{source}/{name}", "rb", 0) as a, open(f"{mountpoint}/{name}", "rb", 0) as b:
        size = os.fstat(a.fileno()).st_size
        for _ in range(3):
            offset, length = rng.randrange(size + 10), rng.choice((1, 511, 4096, 70_000, 1_500_000))
            if rng.random() < 0.5:
                os.posix_fadvise(b.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if os.pread(a.fileno(), length, offset) != os.pread(b.fileno(), length, offset):
                sys.exit(f"{name} differs at {offset}, length {length}")
            done += 1
print(done)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("stress")
    rng = random.Random(11)
    for number in range(60):
        (top / f"{number:02}").write_bytes(rng.randbytes(rng.choice((10, 5_000, 66_000, 400_000))))
    for number in range(3):
        (top / f"big-{number}").write_bytes(rng.randbytes((9 << 20) + number))
    return top


@pytest.fixture(params=["local", pytest.param("bucket", marks=pytest.mark.slow)])
def tree(source: Path, sealfs: Sealfs, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Mounted]:
    """Little memory and a tiny cache on disk, so that everything is evicted all the time."""
    options = ("--cache-memory", "4M", "--cache-size", "9M")
    if request.param == "local":
        sealfs("push", source, tmp_path / "store")
        with mounted(sealfs, tmp_path / "store", tmp_path / "mnt", *options) as mount:
            yield mount
    else:
        with running_bucket() as bucket:
            sealfs.env.update(bucket.environment())
            sealfs("push", source, PLACE)
            with mounted(sealfs, PLACE, tmp_path / "mnt", *options) as mount:
                yield mount


def resident(pid: int, what: str = "VmHWM") -> int:
    """The most memory a process has had at a time (or has now: VmRSS), bytes."""
    with open(f"/proc/{pid}/status") as lines:
        (line,) = (line for line in lines if line.startswith(what))
    return int(line.split()[1]) << 10


def test_random_reads_from_many_processes(tree: Mounted, source: Path) -> None:
    workers = [
        subprocess.Popen(python(WORKER, source, tree.path, seed, SECONDS), stdout=subprocess.PIPE, text=True)
        for seed in range(8)
    ]
    try:
        done = [worker.communicate(timeout=PATIENCE)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * 8
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert sum(map(int, done)) > 100
    status = tree.status()
    assert status["errors"] == 0
    assert status["poisoned"] is None
    assert status["reads"] > 50
    assert status["bytes_read"] > 1 << 20
    if "cache" in status:
        assert status["cache"]["hits"] > 0
        assert 0 < status["cache"]["size"] <= 9 << 20
        assert status["cache"]["fetched"] >= status["cache"]["size"]
        assert status["cache"]["misses"] > 0
    wait_for(lambda: len(os.listdir(f"/proc/{tree.pid}/task")) < 30)
    assert resident(tree.pid) < 600 << 20


def test_threads_that_share_a_descriptor(tree: Mounted, source: Path) -> None:
    content = (source / "big-1").read_bytes()
    give_up = time.monotonic() + SECONDS / 2
    descriptor = os.open(tree.path / "big-1", os.O_RDONLY)

    def work(seed: int) -> int:
        rng, done = random.Random(seed), 0
        while time.monotonic() < give_up or done < 5:
            offset = rng.randrange(len(content))
            if seed == 0:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(descriptor, 30_000, offset) == content[offset : offset + 30_000]
            done += 1
        return done

    try:
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(work, range(8))) >= 40
    finally:
        os.close(descriptor)


@pytest.mark.slow
def test_memory_stays_bounded_while_a_gigabyte_streams_through(sealfs: Sealfs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    piece = random.Random(1).randbytes(1 << 20)
    with (source / "big").open("wb") as file:
        for number in range(1024):
            file.write(number.to_bytes(8, "big") + piece[8:])
    sealfs("push", source, tmp_path / "store")
    with mounted(sealfs, tmp_path / "store", tmp_path / "mnt") as here:
        subprocess.run(["cmp", source / "big", here.path / "big"], check=True, timeout=10 * PATIENCE)
        assert resident(here.pid) < 600 << 20
        assert here.status()["bytes_read"] >= 1 << 30


@pytest.mark.slow
def test_memory_stays_bounded_over_a_bucket(sealfs: Sealfs, tmp_path: Path) -> None:
    """With blocks in flight, blocks in memory and many readers on top."""
    source = tmp_path / "source"
    source.mkdir()
    for number in range(4):
        (source / str(number)).write_bytes(random.Random(number).randbytes(100 << 20))
    with running_bucket() as bucket:
        sealfs.env.update(bucket.environment())
        sealfs("push", source, PLACE)
        with mounted(sealfs, PLACE, tmp_path / "mnt", "--cache-size", "0") as here:
            pairs = [(source / str(n % 4), here.path / str(n % 4)) for n in range(8)]
            readers = [subprocess.Popen(["cmp", *pair]) for pair in pairs]
            try:
                assert [reader.wait(5 * PATIENCE) for reader in readers] == [0] * 8
            finally:
                for reader in readers:
                    reader.kill()
                    reader.wait()
            assert resident(here.pid) < 700 << 20
