"""Large reads shared with the library's own threads: the same bytes and failures, and nobody notices a thread."""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.conftest import Sealed, seal
from runtime.core import opened
from runtime.test_damage import flip
from runtime.test_programs import PROGRAMS

LARGE = b"bin/large.bin"
SHARED = 1 << 20  # bytes: more than the least that is shared
MAX_HELPERS = 3
HELPERS = min(len(os.sched_getaffinity(0)) - 1, MAX_HELPERS)

#: For programs below: the helpers' folders in /proc, which the kernel keeps for a moment after they were joined.
TASKS = """
import os, sys, threading, time
def helpers():
    found = []
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/comm") as file:
                if file.read().strip() == "sealfs-helper":
                    found.append(f"/proc/self/task/{task}")
        except FileNotFoundError:
            pass
    return found
def wait_for_none():
    deadline = time.monotonic() + 20
    while helpers() and time.monotonic() < deadline:
        time.sleep(0.001)
    return not helpers()
with open(P + "/bin/large.bin", "rb") as file:
    expected = file.read()
def read():
    descriptor = os.open(M + "/bin/large.bin", os.O_RDONLY)
    content = os.read(descriptor, 1 << 30)
    os.close(descriptor)
    assert content == expected
"""


@pytest.fixture(scope="module", params=[4096, 64 << 10, 1 << 20], ids=["4 KiB", "64 KiB", "1 MiB"])
def segments(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, plain: Path) -> Sealed:
    return seal(tmp_path_factory.mktemp("shared"), plain, segment_length=request.param)


@pytest.mark.parametrize("cache", [1, 64 << 20])
def test_ranges(segments: Sealed, library: Path, cache: int) -> None:
    """By one thread and by several at once, with parts of it in the cache and without."""
    _, keys, index = segments.opened()
    number = index.resolve(LARGE)
    content = (segments.plain / os.fsdecode(LARGE)).read_bytes()
    with opened(library, segments.store, index, keys, cache) as core:

        def check(seed: int) -> bool:
            rng = random.Random(seed)
            offset, size = rng.randrange(len(content) - SHARED), rng.randrange(SHARED // 4, 4 * SHARED)
            return core.pread(number, size, offset) == content[offset : offset + size]

        assert all(map(check, range(30)))
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(check, range(30, 130)))


def test_damage_in_any_part(segments: Sealed, library: Path, tmp_path: Path) -> None:
    """Whichever thread meets it: the read fails as a whole, and no later one succeeds."""
    _, keys, index = segments.opened()
    number = index.resolve(LARGE)
    size = index.entry(number).size
    for place in [0, size - 1, *range(size // 17, size, size // 9)]:
        shutil.copytree(segments.store, tmp_path / "store", dirs_exist_ok=True)
        flip(dataclasses.replace(segments, store=tmp_path / "store"), LARGE, place)
        with opened(library, tmp_path / "store", index, keys) as core:
            with pytest.raises(OSError, match="Input/output") as caught:
                core.pread(number, size, 0)
            assert caught.value.errno == errno.EIO
            assert "'bin/large.bin' is not what the provider sealed" in (core.failure or "")
            with pytest.raises(OSError, match="Input/output"):
                core.pread(number, 1, place - 1 if place else 1)


def test_threads_come_with_a_large_read_and_go_before_a_fork(sealed: Sealed) -> None:
    code = """
print(len(helpers()))
with open(M + "/bin/large.bin", "rb", buffering=0) as file:
    for _ in range(100):
        assert len(file.read(100_000)) == 100_000
print(len(helpers()))
read()
print(len(helpers()))
for task in helpers():
    with open(task + "/status") as file:
        blocked = next(line for line in file if line.startswith("SigBlk"))
    blocked = int(blocked.split()[1], 16)
    print([n for n in range(1, 65) if not blocked >> (n - 1) & 1])
for _ in range(3):
    read()
    child = os.fork()
    if child == 0:
        none = wait_for_none()
        read()
        os._exit(0 if none and len(helpers()) == int(sys.argv[1]) else 1)
    assert wait_for_none()
    assert os.waitpid(child, 0)[1] == 0
"""
    done = sealed.python(TASKS + code, HELPERS)
    assert done.returncode == 0, done.stderr
    # SIGKILL, SIGSTOP, those that a thread causes itself, and the two that libc keeps to itself
    unblocked = [f"[4, 5, 7, 8, 9, 11, 19, 31{rest}]" for rest in ("", ", 32", ", 33", ", 32, 33")]
    counts, masks = done.stdout.splitlines()[:3], done.stdout.splitlines()[3:]
    assert counts == ["0", "0", str(HELPERS)]
    assert len(masks) == HELPERS
    assert set(masks) <= set(unblocked)


def test_none_where_there_is_one_processor(sealed: Sealed) -> None:
    code = "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\nread()\nprint(len(helpers()))"
    done = sealed.python(TASKS + code)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_signals_during_large_reads(sealed: Sealed) -> None:
    """They arrive, in the thread for which they are, and no read is cut short."""
    code = """
import signal
caught = []
signal.signal(signal.SIGALRM, lambda *_: caught.append(threading.current_thread()))
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
deadline = time.monotonic() + 60
while len(caught) < 200 and time.monotonic() < deadline:
    read()
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(caught) >= 200, set(caught) == {threading.main_thread()})
"""
    done = sealed.python(TASKS + code)
    assert (done.returncode, done.stdout) == (0, "True True\n"), done.stderr


def test_threads_that_read_and_fork_at_once(sealed: Sealed) -> None:
    code = """
stop = threading.Event()
def loop():
    while not stop.is_set():
        read()
threads = [threading.Thread(target=loop) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(30):
    child = os.fork()
    if child == 0:
        read()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads:
    thread.join()
print("done")
"""
    done = sealed.python(TASKS + code, timeout=120)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program; beside it, with the suffix .so, a library that reads while it is loaded."""
    program = tmp_path_factory.mktemp("interrupted") / "interrupted"
    compile_it = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", PROGRAMS / "interrupted.c", "-o"]
    subprocess.run([*compile_it, program], check=True)
    subprocess.run([*compile_it, program.with_suffix(".so"), "-shared", "-fPIC", "-DCONSTRUCTOR"], check=True)
    return program


@pytest.mark.parametrize("mode", ["jump", "fork", "fault", "exit"])
def test_large_reads_interrupted(sealed: Sealed, interrupted: Path, mode: str) -> None:
    """None of it hangs, and every child that was forked reads the file whole."""
    large = sealed.mount / os.fsdecode(LARGE)
    for _ in range(2):
        done = sealed.run(interrupted, mode, env={"LARGE": str(large)}, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ("8388608\n" if mode == "exit" else "")


def test_large_read_while_a_library_is_loaded(sealed: Sealed, interrupted: Path) -> None:
    """The loader's lock is held by who reads: no helper may need it."""
    code = "import ctypes, sys\nctypes.CDLL(sys.argv[1])"
    large = sealed.mount / os.fsdecode(LARGE)
    for _ in range(8):
        done = sealed.python(code, interrupted.with_suffix(".so"), env={"LARGE": str(large)}, timeout=60)
        assert (done.returncode, done.stdout) == (0, "8388608\n"), done.stderr


def test_idle_threads_end(sealed: Sealed) -> None:
    done = sealed.python(TASKS + "read()\nnone = wait_for_none()\nread()\nprint(none, len(helpers()))")
    assert (done.returncode, done.stdout) == (0, f"True {HELPERS}\n"), done.stderr


def test_pack_closed_under_two_readers(sealed: Sealed) -> None:
    """By raw calls, again and again: each reader opens it anew, and closes nobody else's."""
    code = """
import ctypes
libc = ctypes.CDLL(None)
descriptor = os.open(M + "/bin/large.bin", os.O_RDONLY)
size, rounds, deadline = len(expected), 0, time.monotonic() + 8
while time.monotonic() < deadline:
    for name in os.listdir("/proc/self/fd"):
        try:
            if "/packs/" in os.readlink(f"/proc/self/fd/{name}"):
                libc.syscall(3, int(name))
        except FileNotFoundError:
            pass
    offset = rounds * 700_001 % (size - (1 << 20))
    assert os.pread(descriptor, 1 << 20, offset) == expected[offset : offset + (1 << 20)]
    rounds += 1
print("done", rounds > 100)
"""
    done = sealed.python(TASKS + code)
    assert (done.returncode, done.stdout) == (0, "done True\n"), done.stderr
