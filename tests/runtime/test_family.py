"""Damage that one process meets ends all that have the dataset, and nobody else."""

# ruff: noqa: E501 - pieces of programs
from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from runtime.conftest import Sealed
from runtime.test_damage import copied, flip
from sealfs.enclave.attach import INTEGRITY_EXIT

__all__ = ["copied"]
DAMAGED = "bin/large.bin"

HOW = {
    "fork": "if os.fork() == 0: read()\ntime.sleep(60)",
    "grandchild": "if os.fork() == 0:\n    if os.fork() == 0: read()\n    time.sleep(60)\ntime.sleep(60)",
    "shell that goes on": "os.system(f'cat {M}/bin/large.bin > /dev/null || true; sleep 60')",
    "popen": "subprocess.run(['sh', '-c', 'cat < \"$0\" | wc -c; sleep 60', M + '/bin/large.bin'])",
    "empty environment": "subprocess.run(['/bin/cat', M + '/bin/large.bin'], env={}, stdout=subprocess.DEVNULL); time.sleep(60)",
    "session of its own": "subprocess.run([sys.executable, '-c', f\"open('{M}/bin/large.bin', 'rb').read()\"], start_new_session=True); time.sleep(60)",
    "worker pool": "multiprocessing.get_context('fork').Pool(2).map(read, [1, 2, 3])",
    "thread waits": "threading.Thread(target=time.sleep, args=[60]).start()\nif os.fork() == 0: read()\nthreading.Event().wait()",
    "signal taken": "signal.signal(signal.SIGRTMAX - 6, lambda *_: None)\nif os.fork() == 0: read()\nwhile True: time.sleep(1)",
}
START = "import multiprocessing, os, signal, subprocess, sys, threading, time\ndef read(_=0): open(M + '/bin/large.bin', 'rb').read()\n"


@pytest.mark.parametrize("how", HOW)
def test_all_processes_end(copied: Sealed, how: str) -> None:
    flip(copied, DAMAGED.encode(), 9 << 20)
    began = time.monotonic()
    done = copied.python(START + HOW[how] + "\nprint('went on')", timeout=50)
    assert time.monotonic() - began < 40
    assert done.returncode == (-9 if how == "signal taken" else INTEGRITY_EXIT), done.stderr
    assert "went on" not in done.stdout
    assert "INTEGRITY FAILURE" in done.stderr


def test_parent_met_it(copied: Sealed) -> None:
    """The children end, too: none of them writes anything afterwards."""
    flip(copied, DAMAGED.encode(), 9 << 20)
    code = """
import sys
children = []
for number in range(3):
    if os.fork() == 0:
        time.sleep(5)
        open(sys.argv[1] + f"/{number}", "w").close()
        os._exit(0)
subprocess.Popen(["sh", "-c", 'sleep 5; echo > "$0/shell"', sys.argv[1]])
time.sleep(0.3)
read()
"""
    (copied.store / "written").mkdir()
    done = copied.python(START + code, copied.store / "written", timeout=50)
    assert done.returncode == INTEGRITY_EXIT
    time.sleep(5.5)
    assert not list((copied.store / "written").iterdir())


def test_others_live(copied: Sealed, sealed: Sealed) -> None:
    """Another task on this machine, in the same session, with a dataset of its own, is not touched."""
    flip(copied, DAMAGED.encode(), 9 << 20)
    other = subprocess.Popen(["sleep", "100"])
    try:
        code = "import subprocess, sys\nprint(open(M + '/text').readline(), flush=True)\nsys.stdin.readline()\nprint(open(M + '/text').readline())"
        script = sealed.home / "other.py"
        script.write_text(f"M = {str(sealed.mount)!r}\n{code}")
        with sealed.start(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as task:
            assert task.stdout is not None
            task.stdout.readline()
            assert copied.python(START + "if os.fork() == 0: read()\ntime.sleep(60)").returncode == INTEGRITY_EXIT
            out, _ = task.communicate("\n", timeout=30)
            assert task.returncode == 0
            assert "line 0" in out
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


STATIC = """
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **arguments) {
    char buffer[10];
    int number = open(arguments[1], O_RDONLY);
    printf("open %d %s\\n", number, strerrorname_np(errno));
    ssize_t got = read(0, buffer, sizeof buffer);
    printf("read %zd %s\\n", got, strerrorname_np(errno));
    printf("again %d\\n", open("/proc/self/fd/0", O_RDONLY) >= 0 ? (int)read(3, buffer, sizeof buffer) : -1);
    return count != 2;
}
"""


def test_static_program(sealed: Sealed, tmp_path: Path) -> None:
    """It finds an empty folder, and can't read what it inherits; nothing of it looks like zeros."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    (tmp_path / "static.c").write_text("#define _GNU_SOURCE\n" + STATIC)
    built = subprocess.run(
        ["gcc", "-static", tmp_path / "static.c", "-o", tmp_path / "static"], capture_output=True, check=False
    )
    if built.returncode:
        pytest.skip("no static libc")
    done = sealed.run("sh", "-c", f"{tmp_path}/static {sealed.mount}/text < {sealed.mount}/text")
    assert done.stdout.splitlines()[:2] == ["open -1 ENOENT", "read -1 EBADF"]
