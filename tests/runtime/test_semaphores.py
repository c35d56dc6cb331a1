"""Named semaphores over pipes, on a kernel without shared memory: multiprocessing must not tell the difference."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.conftest import Sealed

PRELUDE = """
import multiprocessing, os, queue, signal, time
c = multiprocessing.get_context("fork")
def pipes():
    links = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
    return sum("pipe:" in os.readlink(link) for link in links if os.path.islink(link))
"""
CASES = {
    "locks": """
lock = c.Lock()
def add(path):
    for _ in range(200):
        with lock:
            n = int(open(path).read())
            open(path, "w").write(str(n + 1))
path = os.environ["TMPDIR"] + "/counter"
open(path, "w").write("0")
workers = [c.Process(target=add, args=(path,)) for _ in range(3)]
for w in workers: w.start()
for w in workers: w.join()
print(open(path).read())
""",
    "a process that is killed while it waits": """
lock = c.Lock()
lock.acquire()
waiting = c.Process(target=lock.acquire)
waiting.start()
time.sleep(0.2)
waiting.kill()
waiting.join()
lock.release()
print(waiting.exitcode, lock.acquire(timeout=10), lock.acquire(block=False))
""",
    "counting": """
s, b = c.Semaphore(3), c.BoundedSemaphore(2)
print([s.acquire(block=False) for _ in range(4)], s.get_value(), s.acquire(timeout=0.05))
s.release()
print(s.get_value(), s.acquire(timeout=10))
b.acquire(); b.release()
try: b.release()
except ValueError as error: print(error)
""",
    "many units": """
s = c.Semaphore(0)
for _ in range(5000): s.release()
print(s.get_value(), sum(s.acquire(False) for _ in range(5001)), s.get_value())
big = c.Semaphore(2000)
for turn in range(3):
    print(sum(big.acquire(False) for _ in range(2500)))
    for _ in range(2000): big.release()
""",
    "queues": """
many, few = c.Queue(), c.Queue(3)
def feed():
    for i in range(3000): many.put(i)
p = c.Process(target=feed)
p.start()
print(sum(many.get(timeout=60) for _ in range(3000)))
p.join()
for i in range(3): few.put(i)
try: few.put_nowait(1)
except queue.Full: print("full")
print([few.get() for _ in range(3)], many.empty())
""",
    "an unbounded queue is not bounded": """
q = c.Queue()
for i in range(70_000): q._sem.acquire()
for i in range(70_000): q._sem.release()
print(q._sem.acquire(block=False))
""",
    "events and conditions": """
event, cond, ready = c.Event(), c.Condition(), c.Semaphore(0)
def wait():
    with cond:
        ready.release()
        cond.wait(60)
    os._exit(0 if event.is_set() else 1)
ps = [c.Process(target=wait) for _ in range(3)]
for p in ps: p.start()
for p in ps: ready.acquire()
event.set()
with cond: cond.notify_all()
for p in ps: p.join()
print([p.exitcode for p in ps], event.is_set(), event.wait(0))
""",
    "pools": """
def square(x): return x * x
with c.Pool(2) as pool: print(sum(pool.map(square, range(1000))), pool.apply_async(square, (7,)).get(60))
""",
    "other programs": """
import subprocess, sys
if __name__ == "__main__":
    s = multiprocessing.get_context("spawn")
    count = s.Semaphore(2)
    code = ("import _multiprocessing, sys; n = _multiprocessing.SemLock._rebuild(0, 1, 2, sys.argv[1]);"
            "print(n.acquire(False), n.acquire(False), n.acquire(False)); n.release(); n.release()")
    def ask(**how):
        command = [sys.executable, "-c", code, count._semlock.name]
        return subprocess.run(command, capture_output=True, text=True, **how)
    print(ask().stdout, count.acquire(False))
    with s.Pool(2) as pool:
        print(sum(pool.map(abs, range(-100, 0))))
        pool.close()
        pool.join()
""",
    "interrupted": """
s = c.Semaphore(0)
signal.signal(signal.SIGALRM, lambda *_: (print("alarm"), s.release()))
signal.alarm(1)
print(s.acquire(timeout=30))
""",
    "same name": """
import _multiprocessing
names = lambda kind, name, unlink: _multiprocessing.SemLock(kind, 1, 1, name, unlink)
a = names(1, "/one-name", False)
try: names(1, "/one-name", False)
except FileExistsError: print("exists")
b = _multiprocessing.SemLock._rebuild(0, 1, 1, "/one-name")
print(a.acquire(False), b.acquire(False))
a.release()
print(b.acquire(False))
_multiprocessing.sem_unlink("/one-name")
try: _multiprocessing.SemLock._rebuild(0, 1, 1, "/one-name")
except FileNotFoundError: print("gone")
try: _multiprocessing.sem_unlink("/one-name")
except FileNotFoundError: print("gone")
b.release()
print(a.acquire(False))
""",
}


def run(sealed: Sealed, case: str, folder: Path, under: tuple[Path, ...]) -> str:
    done = sealed.python(PRELUDE + CASES[case], under=under, env={"TMPDIR": str(folder)}, timeout=120)
    said = [line for line in done.stderr.splitlines() if not line.startswith("sealfs: first use of ")]
    assert (done.returncode, said) == (0, [])
    return done.stdout


@pytest.mark.parametrize("case", CASES)
def test_same_as_libc(case: str, sealed: Sealed, without: Path, tmp_path: Path) -> None:
    expected = run(sealed, case, tmp_path, ())
    assert expected
    assert run(sealed, case, tmp_path, (without,)) == expected


def test_pipes_only_where_there_is_no_shared_memory(sealed: Sealed, without: Path) -> None:
    code = PRELUDE + "before = pipes()\nlocks = [c.Lock() for _ in range(4)]\nprint(pipes() - before)"
    assert [sealed.python(code, under=under).stdout for under in ((), (without,))] == ["0\n", "8\n"]
    code += "\ndel locks\nprint(pipes() - before)"
    assert sealed.python(code, under=(without,)).stdout == "8\n0\n"


def test_what_does_not_fit_is_refused(sealed: Sealed, without: Path) -> None:
    code = PRELUDE + "try: c.Semaphore(1_000_000)\nexcept OSError as error: print(error.errno)"
    done = sealed.python(code, under=(without,))
    assert (done.stdout, done.stderr) == ("28\n", "sealfs: a semaphore can't start above 61440 here\n")
