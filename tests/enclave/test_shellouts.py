"""What is answered without a child must be what the child says; everything else is run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sealfs.enclave.shellouts import answer

ANSWERED: list[tuple[Any, bool]] = [
    ("ldd --version | awk '/ldd/{print $NF}'", True),
    ("cat /proc/cpuinfo | grep -i avx", True),
    ("cat /proc/cpuinfo | grep AVX", True),
    ("cat /proc/cpuinfo | grep processor", True),
    (["which", "sh"], False),
    (["which", "no-such-program"], False),
    (("which", "sh"), False),
]
RUN: list[tuple[Any, bool]] = [
    ("ldd --version", True),
    ("cat /proc/cpuinfo | grep -i avx; id", True),
    ("cat /proc/cpuinfo | grep -v avx", True),
    ("cat /proc/cpuinfo | grep a.*x", True),
    (["which", "-a", "sh"], False),
    (["which", "/bin/sh"], False),
    (["which", "-a"], False),
    (["which", b"sh"], False),
    (["which", "sh"], True),
    ("which sh", False),
    ("which sh", True),
    (b"which sh", True),
    (["/usr/bin/which", "sh"], False),
]


@pytest.mark.parametrize(("command", "shell"), ANSWERED)
def test_same_as_the_child(command: Any, shell: bool) -> None:
    done = subprocess.run(command, shell=shell, stdout=subprocess.PIPE, check=False)
    found = answer(command, shell)
    assert found is not None
    code, text = found
    assert code == done.returncode
    if "cpuinfo" in command:  # holds the frequency of the moment
        assert text.count(b"\n") == done.stdout.count(b"\n")
        assert [line.split(b":")[0] for line in text.splitlines()] == [
            line.split(b":")[0] for line in done.stdout.splitlines()
        ]
    else:
        assert text == done.stdout


@pytest.mark.parametrize(("command", "shell"), RUN)
def test_everything_else_is_run(command: Any, shell: bool) -> None:
    assert answer(command, shell) is None


def test_which_looks_where_the_child_would(tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    assert answer(["which", "tool"], False, {"PATH": str(tmp_path)}) == (1, b"")
    program.chmod(0o755)
    assert answer(["which", "tool"], False, {"PATH": f"/nowhere:{tmp_path}"}) == (0, f"{program}\n".encode())
    assert answer(["which", "tool"], False, {"PATH": f".:{tmp_path}"}) is None
    assert answer(["which", "tool"], False, {}) is None


CODE = """
import os, subprocess, sys
from sealfs.enclave.shellouts import answer_shell_outs
real = subprocess.Popen
answer_shell_outs()
assert subprocess.Popen is real
LDD = "ldd --version | awk '/ldd/{print $NF}'"
with os.popen("cat /proc/cpuinfo | grep -i processor") as pipe: print(pipe.read() != "", pipe.close())
p = subprocess.Popen(LDD, stdout=-1, stderr=-1, shell=True)
print(p.communicate()[1], p.returncode, p.wait(), p.poll(), p.kill(), p.terminate(), p.send_signal(9))
with subprocess.Popen(["which", "sh"], stdin=-1, stdout=-1, text=True) as p: print(p.stdout.readline())
try: subprocess.check_output(["which", "no-such-program"])
except subprocess.CalledProcessError as error: print(error.returncode, error.output)
sys.stdout.flush()
print(subprocess.run(["which", "sh"]).returncode, subprocess.call(["which", "sh"], stdout=subprocess.DEVNULL))
print(subprocess.run(["which", "sh"], capture_output=True, env={"PATH": "/usr/bin:/bin"}).stdout)
long = "cat /proc/cpuinfo | grep a"
print(len(subprocess.run(long, shell=True, capture_output=True).stdout) > 0)
print(subprocess.run("echo a child", shell=True, capture_output=True).stdout)
print(sorted(os.listdir("/proc/self/fd")))
"""


def test_subprocess(tmp_path: Path) -> None:
    """The same with and without answers; what is answered starts no process."""
    script = tmp_path / "script.py"
    outputs = []
    for text in (CODE.replace("answer_shell_outs()\nassert", "assert"), CODE):
        script.write_text(text)
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(
            [sys.executable, script], capture_output=True, text=True, check=False, env=environment
        )
        assert (done.returncode, done.stderr) == (0, "")
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    script.write_text(CODE.split('print(subprocess.run("echo', maxsplit=1)[0])
    log = tmp_path / "log"
    traced = ["strace", "-f", "-e", "trace=execve,fork,vfork", "-o", log, sys.executable, script]
    try:
        subprocess.run(traced, check=True, capture_output=True, env=environment)
    except FileNotFoundError:
        pytest.skip("no strace to see which processes start")
    assert log.read_text().count("execve(") == 1


@pytest.mark.slow
def test_paddle_is_imported_without_a_child(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from sealfs.enclave.shellouts import answer_shell_outs\nanswer_shell_outs()\n"
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event in ('os.fork', 'os.exec', 'os.posix_spawn', 'os.system'): raise RuntimeError(event)\n"
        "sys.addaudithook(refuse)\n"
        "import paddle, _posixsubprocess\n"
        "print(paddle.base.core.get_libc_ver())"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    log = tmp_path / "log"
    command = ["strace", "-f", "-e", "trace=execve", "-o", log, sys.executable, "-W", "ignore", script]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=200)
    except FileNotFoundError:
        pytest.skip("no strace to see which processes start")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("('glibc', '2.")
    assert log.read_text().count("execve(") == 1
