"""A store that is away, slow or lying: reads wait, then fail, and go on when it is back; nobody else is stalled."""

from __future__ import annotations

import errno
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import PATIENCE, InProcess, Mounted, Sealfs, mounted

from mount.bucket import PLACE, Bucket, running_bucket
from mount.conftest import MountFactory
from sealfs.keys import Identity

NAMES = ("one", "two", "three", "four")
SIZE = 3_000_000


@dataclass(frozen=True)
class Remote:
    """A dataset in a bucket, each file in a pack of its own."""

    bucket: Bucket
    contents: dict[str, bytes]
    packs: dict[str, str]  # URL path of each file's pack


@pytest.fixture(scope="module")
def pushed(provider: Sealfs) -> Iterator[Remote]:
    source = provider.home / "source"
    source.mkdir()
    contents, packs = {}, {}
    with running_bucket() as bucket:
        for name in NAMES:
            before = bucket.packs()
            contents[name] = random.Random(name).randbytes(SIZE)
            (source / name).write_bytes(contents[name])
            provider("push", source, PLACE, env=bucket.environment())
            (packs[name],) = bucket.packs() - before
        yield Remote(bucket, contents, packs)


@pytest.fixture
def remote(pushed: Remote) -> Iterator[Remote]:
    """The same, with the bucket as it was before."""
    objects = dict(pushed.bucket.objects)
    yield pushed
    pushed.bucket.stop()
    pushed.bucket.gates.clear()
    pushed.bucket.lies.clear()
    pushed.bucket.objects.clear()
    pushed.bucket.objects.update(objects)
    pushed.bucket.start()


@pytest.fixture
def sealfs(tmp_path: Path, identity: Identity, pushed: Remote) -> Sealfs:
    return InProcess(tmp_path / "home", identity, **pushed.bucket.environment())


@pytest.fixture
def readers() -> Iterator[ThreadPoolExecutor]:
    """Threads to read with: the main one must never wait for a mount that may hang."""
    with ThreadPoolExecutor(100) as pool:
        yield pool


def read(mount: Mounted, name: str, offset: int = 0, size: int = SIZE) -> bytes:
    """Read past the kernel's page cache."""
    descriptor = os.open(mount.path / name, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def is_waiting(reading: Future[bytes]) -> bool:
    """Whether it is not done, even a while later."""
    try:
        reading.result(0.7)
    except TimeoutError:
        return True
    return False


def test_away_then_eio_then_back(remote: Remote, mount: MountFactory, readers: ThreadPoolExecutor) -> None:
    here = mount(PLACE, "--deadline", "4")
    assert readers.submit(read, here, "one").result(PATIENCE) == remote.contents["one"]
    remote.bucket.stop()
    waiting = readers.submit(read, here, "two")
    assert is_waiting(waiting)
    # what is here is served meanwhile
    assert readers.submit(read, here, "one").result(PATIENCE) == remote.contents["one"]
    assert readers.submit(os.listdir, here.path).result(PATIENCE)
    assert readers.submit(os.stat, here.path / "three").result(PATIENCE).st_size == SIZE
    error = waiting.exception(PATIENCE)
    assert isinstance(error, OSError)
    assert error.errno == errno.EIO
    status = here.status()
    assert status["poisoned"] is None
    assert status["errors"] > 0
    assert status["cache"]["errors"] > 0
    assert "no complete answer" in here.words()
    remote.bucket.start()
    for name in NAMES:
        assert readers.submit(read, here, name).result(PATIENCE) == remote.contents[name]


@pytest.mark.slow
def test_away_for_a_moment_is_a_delay(remote: Remote, mount: MountFactory, readers: ThreadPoolExecutor) -> None:
    here = mount(PLACE)
    remote.bucket.stop()
    waiting = [readers.submit(read, here, name) for name in NAMES]
    assert is_waiting(waiting[0])
    remote.bucket.start()
    assert [each.result(PATIENCE) for each in waiting] == list(remote.contents.values())


def test_one_slow_object_stalls_nobody_else(
    remote: Remote, mount: MountFactory, readers: ThreadPoolExecutor
) -> None:
    here = mount(PLACE)
    gate = remote.bucket.gates[remote.packs["two"]] = threading.Event()
    slow = [readers.submit(read, here, "two", number * 10_000, 5_000) for number in range(30)]
    assert is_waiting(slow[0])
    for name in ("three", "one", "four"):  # fetched now, past thirty who wait
        assert readers.submit(read, here, name).result(PATIENCE) == remote.contents[name]
    assert readers.submit(os.listdir, here.path).result(PATIENCE)
    assert not any(each.done() for each in slow)
    gate.set()
    for number, each in enumerate(slow):
        assert each.result(PATIENCE) == remote.contents["two"][number * 10_000 :][:5_000]


def test_a_fetch_that_many_want_is_made_once(
    remote: Remote, mount: MountFactory, readers: ThreadPoolExecutor
) -> None:
    here = mount(PLACE)
    before = remote.bucket.fetches()
    readings = [readers.submit(read, here, "two", number * 70_000, 60_000) for number in range(40)]
    for number, each in enumerate(readings):
        assert each.result(PATIENCE) == remote.contents["two"][number * 70_000 :][:60_000]
    assert remote.bucket.fetches() - before == 1


@pytest.mark.slow
def test_passing_faults_are_not_noticed(remote: Remote, mount: MountFactory, readers: ThreadPoolExecutor) -> None:
    here = mount(PLACE)
    for name, fault in zip(NAMES, ("truncate", "500 InternalError", "503 SlowDown", "whole"), strict=True):
        remote.bucket.plan(fault, fault)
        assert readers.submit(read, here, name).result(PATIENCE) == remote.contents[name]
    assert here.status()["errors"] == 0
    assert here.status()["cache"]["errors"] == 2 * len(NAMES)


def test_a_lie_told_once_is_asked_about_again(
    remote: Remote, mount: MountFactory, readers: ThreadPoolExecutor
) -> None:
    """A bit that flipped on the way is no reason to stop: only what the store keeps saying is."""
    here = mount(PLACE)
    remote.bucket.lies[remote.packs["one"]] = 1
    assert readers.submit(read, here, "one").result(PATIENCE) == remote.contents["one"]
    assert here.status()["poisoned"] is None
    assert remote.bucket.lies[remote.packs["one"]] == 0


def test_a_lie_that_is_kept_up_poisons(remote: Remote, mount: MountFactory, readers: ThreadPoolExecutor) -> None:
    here = mount(PLACE)
    assert readers.submit(read, here, "two").result(PATIENCE) == remote.contents["two"]
    remote.bucket.lies[remote.packs["one"]] = 1000
    assert _errno(readers.submit(read, here, "one")) == errno.EIO
    assert "one: packs/" in here.status()["poisoned"]
    assert _errno(readers.submit(read, here, "two")) == errno.EIO


@pytest.mark.slow
def test_a_lost_object_poisons(remote: Remote, mount: MountFactory, readers: ThreadPoolExecutor) -> None:
    here = mount(PLACE)
    del remote.bucket.objects[remote.packs["one"]]
    assert _errno(readers.submit(read, here, "one")) == errno.EIO
    assert "is missing from the store" in here.status()["poisoned"]


def _errno(reading: Future[bytes]) -> int | None:
    error = reading.exception(PATIENCE)
    assert isinstance(error, OSError)
    return error.errno


@pytest.mark.slow
def test_away_while_mounting(remote: Remote, sealfs: Sealfs, tmp_path: Path) -> None:
    (tmp_path / "mnt").mkdir()
    remote.bucket.stop()
    outcome = sealfs("mount", PLACE, tmp_path / "mnt", code=7)
    assert "no complete answer from 127.0.0.1" in outcome.complaint
    assert not os.path.ismount(tmp_path / "mnt")


@pytest.mark.slow
def test_server_hangs_while_told_to_end(remote: Remote, mount: MountFactory, readers: ThreadPoolExecutor) -> None:
    here = mount(PLACE)
    remote.bucket.gates[remote.packs["two"]] = threading.Event()
    waiting = readers.submit(read, here, "two")
    assert is_waiting(waiting)
    began = time.monotonic()
    assert here.end() == 0
    assert time.monotonic() - began < 25  # nor botocore's own patience of half a minute and more
    assert isinstance(waiting.exception(PATIENCE), OSError)


@pytest.mark.slow
def test_told_to_end_while_reads_wait(remote: Remote, mount: MountFactory, readers: ThreadPoolExecutor) -> None:
    here = mount(PLACE)
    remote.bucket.stop()
    waiting = [readers.submit(read, here, "two", number * 70_000, 10) for number in range(40)]
    assert is_waiting(waiting[0])
    began = time.monotonic()
    assert here.end() == 0
    assert time.monotonic() - began < 40  # not two seconds for each of them
    assert all(isinstance(each.exception(PATIENCE), OSError) for each in waiting)


@pytest.mark.slow
def test_aws_own_retries_do_not_stretch_the_deadline_for_ever(
    remote: Remote, identity: Identity, tmp_path: Path, readers: ThreadPoolExecutor
) -> None:
    """As a user has it who has configured nothing."""
    plain = Sealfs(tmp_path / "plain", identity, **remote.bucket.environment())
    del plain.env["AWS_MAX_ATTEMPTS"]
    with mounted(plain, PLACE, tmp_path / "mnt", "--deadline", "2") as here:
        remote.bucket.stop()
        assert _errno(readers.submit(read, here, "two")) == errno.EIO
