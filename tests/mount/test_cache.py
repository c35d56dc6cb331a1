"""The cache on disk: ciphertext only, never over its size, never believed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import InProcess, Sealfs, detach, flip_bit, mounted, wait_for

from mount.bucket import PLACE, Bucket, running_bucket
from mount.conftest import MountFactory
from sealfs.keys import Identity

MARKER = b"a diagnosis that nobody may see. "
BLOCK = 4 << 20
SMALL_CACHE = 2 * BLOCK + 1000


@dataclass(frozen=True)
class Remote:
    """A dataset in a bucket: 14 MiB of text, and a few small files."""

    bucket: Bucket
    source: Path

    def content(self, name: str) -> bytes:
        return (self.source / name).read_bytes()


@pytest.fixture(scope="module")
def remote(provider: Sealfs) -> Iterator[Remote]:
    source = provider.home / "source"
    source.mkdir()
    lines = (14 << 20) // 64
    text = b"".join(b"%s%031d" % (MARKER, number) for number in random.Random(1).sample(range(lines), lines))
    (source / "patient-records.txt").write_bytes(text)
    for number in range(5):
        (source / f"small-{number}").write_bytes(MARKER * 1000 + b"%d" % number)
    with running_bucket() as bucket:
        provider("push", source, PLACE, env=bucket.environment())
        yield Remote(bucket, source)


@pytest.fixture
def sealfs(tmp_path: Path, identity: Identity, remote: Remote) -> Sealfs:
    return InProcess(tmp_path / "home", identity, **remote.bucket.environment())


def blocks(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file() and path.name != "lock"]


def size_of(cache: Path) -> int:
    total = 0
    for folder, _, names in os.walk(cache):
        for name in names:
            try:
                total += os.stat(os.path.join(folder, name)).st_size
            except FileNotFoundError:  # dropped since
                continue
    return total


def read_dropped(path: Path) -> bytes:
    """Read a file as if the kernel had nothing of it."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return file.readall()


def test_only_ciphertext_touches_the_disk(remote: Remote, mount: MountFactory, sealfs: Sealfs) -> None:
    here = mount(PLACE)
    for name in os.listdir(remote.source):
        assert (here.path / name).read_bytes() == remote.content(name)
    cache = sealfs.home / "cache" / "sealfs"
    wait_for(lambda: size_of(cache) > 14 << 20)
    for path in (path for path in sealfs.home.rglob("*") if path.is_file()):
        content = path.read_bytes()
        assert MARKER[:16] not in content, path
        assert b"patient-records" not in content, path
        assert "patient" not in path.name
        assert path.stat().st_mode & 0o077 == 0 or path.parent.stat().st_mode & 0o077 == 0, path
    wait_for(lambda: here.status()["cache"]["size"] == size_of(cache))


def test_never_over_its_size(remote: Remote, mount: MountFactory, sealfs: Sealfs) -> None:
    here = mount(PLACE, "--cache-size", SMALL_CACHE)
    cache = sealfs.home / "cache" / "sealfs"
    content = remote.content("patient-records.txt")
    done = threading.Event()
    largest = 0
    failures: list[object] = []

    def read_here_and_there(seed: int) -> None:
        rng = random.Random(seed)
        with (here.path / "patient-records.txt").open("rb", buffering=0) as file:
            for _ in range(25):
                offset = rng.randrange(len(content))
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                if os.pread(file.fileno(), 5000, offset) != content[offset : offset + 5000]:
                    failures.append(offset)

    threads = [threading.Thread(target=read_here_and_there, args=(seed,)) for seed in range(4)]

    def watch() -> None:
        nonlocal largest
        while not done.wait(0.002):
            largest = max(largest, size_of(cache))

    watcher = threading.Thread(target=watch)
    watcher.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done.set()
    watcher.join()
    assert not failures
    assert 0 < largest <= SMALL_CACHE + BLOCK  # looking takes time: a block may be seen, and later its successor
    wait_for(lambda: here.status()["cache"]["size"] == size_of(cache))  # read ahead may still be under way
    assert 0 < size_of(cache) <= SMALL_CACHE


def test_survives_kill_9(remote: Remote, sealfs: Sealfs, tmp_path: Path) -> None:
    cache = sealfs.home / "cache" / "sealfs"
    with mounted(sealfs, PLACE, tmp_path / "mnt") as first:
        assert (first.path / "patient-records.txt").read_bytes() == remote.content("patient-records.txt")
        wait_for(lambda: size_of(cache) > 14 << 20)
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
        detach(first.path)
    (blocks(cache)[0].parent / f"{blocks(cache)[0].name}.tmp").write_bytes(b"half a block")
    before = remote.bucket.fetches()
    with mounted(sealfs, PLACE, tmp_path / "mnt") as second:
        assert (second.path / "patient-records.txt").read_bytes() == remote.content("patient-records.txt")
        assert second.status()["cache"]["hits"] > 0
    assert remote.bucket.fetches() == before
    assert not list(cache.rglob("*.tmp"))


LESS_LIKELY = [pytest.param(damage, marks=pytest.mark.slow) for damage in ("cut", "empty", "grow", "replace")]


@pytest.mark.parametrize("damage", ["flip", *LESS_LIKELY])
def test_damaged_blocks_are_fetched_again(remote: Remote, sealfs: Sealfs, tmp_path: Path, damage: str) -> None:
    cache = sealfs.home / "cache" / "sealfs"
    sealfs("warm", PLACE)
    for number, path in enumerate(sorted(blocks(cache))):
        if damage == "flip":
            flip_bit(path, path.stat().st_size // 2)
        elif damage == "cut":
            os.truncate(path, path.stat().st_size // 2)
        elif damage == "empty":
            os.truncate(path, 0)
        elif damage == "grow":
            os.truncate(path, path.stat().st_size + 10)
        else:
            path.write_bytes(random.Random(number).randbytes(path.stat().st_size))
    with mounted(sealfs, PLACE, tmp_path / "mnt") as here:
        for name in os.listdir(remote.source):
            assert (here.path / name).read_bytes() == remote.content(name)
        assert here.status()["poisoned"] is None
        assert here.status()["errors"] == 0
    before = remote.bucket.fetches()
    with mounted(sealfs, PLACE, tmp_path / "mnt") as here:  # and what replaced them is good
        assert (here.path / "patient-records.txt").read_bytes() == remote.content("patient-records.txt")
    assert remote.bucket.fetches() == before


@pytest.mark.slow
def test_damage_under_a_running_mount(remote: Remote, mount: MountFactory, sealfs: Sealfs) -> None:
    cache = sealfs.home / "cache" / "sealfs"
    here = mount(PLACE, "--cache-memory", "0")
    victim = here.path / "patient-records.txt"
    for deed in ("read", "flip", "delete"):
        for path in blocks(cache):
            if deed == "flip":
                flip_bit(path, path.stat().st_size // 3)
            elif deed == "delete":
                path.unlink()
        assert read_dropped(victim) == remote.content("patient-records.txt")
    assert here.status()["poisoned"] is None
    assert here.status()["errors"] == 0


@pytest.mark.slow
def test_second_mount_falls_back_to_memory(remote: Remote, sealfs: Sealfs, tmp_path: Path) -> None:
    cache = sealfs.home / "cache" / "sealfs"
    with (
        mounted(sealfs, PLACE, tmp_path / "first") as first,
        mounted(sealfs, PLACE, tmp_path / "second") as second,
    ):
        assert "caching in memory instead" in second.words()
        assert (second.path / "patient-records.txt").read_bytes() == remote.content("patient-records.txt")
        assert size_of(cache) == 0
        assert (first.path / "small-1").read_bytes() == remote.content("small-1")
        wait_for(lambda: size_of(cache) > 0)
    with mounted(sealfs, PLACE, tmp_path / "third") as third:  # the lock is free again
        assert "memory instead" not in third.words()


@pytest.mark.slow
def test_no_cache_on_disk_if_so_told(remote: Remote, mount: MountFactory, sealfs: Sealfs) -> None:
    here = mount(PLACE, "--cache-size", "0")
    assert (here.path / "patient-records.txt").read_bytes() == remote.content("patient-records.txt")
    assert not (sealfs.home / "cache").exists()


@pytest.mark.slow
def test_warm_then_no_fetch(remote: Remote, mount: MountFactory, sealfs: Sealfs) -> None:
    assert "are in the cache" in sealfs("warm", PLACE).text
    before = remote.bucket.fetches()
    here = mount(PLACE)
    for name in os.listdir(remote.source):
        assert (here.path / name).read_bytes() == remote.content(name)
    assert remote.bucket.fetches() == before


@pytest.mark.slow
def test_warm_only_some_paths(remote: Remote, sealfs: Sealfs, tmp_path: Path) -> None:
    source, place = tmp_path / "two", "s3://bucket/two"
    source.mkdir()
    for name, size in {"first": 3_000_000, "second": 1_000_000}.items():
        (source / name).write_bytes(os.urandom(size))
        sealfs("push", source, place)  # each version has a pack of its own
    sealfs("warm", place, "second")
    assert 1_000_000 < size_of(sealfs.home / "cache" / "sealfs") < 1_100_000
    assert "do not fit into a cache" in sealfs("warm", PLACE, "--cache-size", "1M", code=2).complaint
    assert "'nothing'" in sealfs("warm", PLACE, "nothing", code=3).complaint


def test_relative_cache_folder(remote: Remote, sealfs: Sealfs, tmp_path: Path) -> None:
    """A mount in the background leaves the working folder; what it was told there still holds."""
    (tmp_path / "mnt").mkdir()
    sealfs("mount", PLACE, "mnt", "--cache-dir", "kept here", cwd=tmp_path)
    try:
        assert (tmp_path / "mnt" / "small-1").read_bytes() == remote.content("small-1")
        wait_for(lambda: blocks(tmp_path / "kept here"), 20)
    finally:
        sealfs("umount", tmp_path / "mnt")


@pytest.mark.slow
def test_full_disk_is_no_obstacle(remote: Remote, sealfs: Sealfs, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can mount a small file system to fill")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6M", "tmpfs", disk], check=True)
    try:
        with mounted(sealfs, PLACE, tmp_path / "mnt", "--cache-dir", disk / "cache") as here:
            assert (here.path / "patient-records.txt").read_bytes() == remote.content("patient-records.txt")
            here.wait_until("cannot cache a block on disk (No space left on device); going on without")
            assert here.status()["errors"] == 0
            time.sleep(0.1)
            assert not list(disk.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("obstacle", ["file", pytest.param("link", marks=pytest.mark.slow)])
def test_unusable_cache_folder(remote: Remote, mount: MountFactory, tmp_path: Path, obstacle: str) -> None:
    if obstacle == "file":
        (tmp_path / "cache").write_text("in the way")
    else:
        (tmp_path / "cache").symlink_to("/proc/nowhere")
    here = mount(PLACE, "--cache-dir", tmp_path / "cache")
    assert "caching in memory instead" in here.words()
    assert (here.path / "small-1").read_bytes() == remote.content("small-1")
