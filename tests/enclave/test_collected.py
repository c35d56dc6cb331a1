"""Collecting finds what is loaded, by whom and how ever, and nothing else."""

from __future__ import annotations

import os
import py_compile
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sealfs.enclave.collected import Collected, LoadedFile, collect, hashed
from sealfs.errors import ExecutorError, LocalIOError

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")

SCRIPT = """
import os, subprocess, sys
import helper
open("data file", "rb").close()
open(b"odd \\xc3\\xa4", "rb").close()
os.chdir("deep")
open("../deep/beside", "rb").close()
fd = os.open("..", os.O_RDONLY)
os.close(os.open("from folder", os.O_RDONLY, dir_fd=fd))
subprocess.run(["cat", "../read by child"], check=True, stdout=subprocess.DEVNULL)
with open("../made", "w") as file:
    file.write("x")
open("../made").close()
open("../input/sample").close()
os.path.exists("../never opened")
for name in ("../missing", "/etc/resolv.conf"):
    try:
        open(name).close()
    except OSError:
        pass
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    (project / "deep").mkdir(parents=True)
    (project / "input").mkdir()
    for name in (
        "data file",
        "odd ä",
        "deep/beside",
        "from folder",
        "read by child",
        "input/sample",
        "never opened",
    ):
        (project / name).write_text(name)
    (project / "helper.py").write_text("")
    (project / "train.py").write_text(SCRIPT)
    return project


def names(paths: set[str], project: Path) -> set[str]:
    return {os.path.relpath(path, project) for path in paths if path.startswith(f"{project}/")}


def run(project: Path, code: int = 0) -> tuple[int, set[str]]:
    command = ["sh", "-c", 'cd "$0" && exec "$@"', str(project), sys.executable, "train.py", str(code)]
    trial = {"PYTHONDONTWRITEBYTECODE": "1"}
    return collect(command, environment=trial, excludes=[f"{project}/input/*"])


def test_what_is_loaded_and_nothing_else(project: Path) -> None:
    code, paths = run(project)
    assert code == 0
    assert names(paths, project) == {
        "train.py", "helper.py", "data file", "odd ä", "deep/beside", "from folder", "read by child",
    }  # fmt: skip
    assert sys.executable in paths
    assert os.path.realpath(sys.executable) in paths
    assert any(path.endswith("/libc.so.6") for path in paths)
    assert not any(path.startswith(("/proc/", "/dev/", "/sys/")) for path in paths)
    assert "/etc/resolv.conf" not in paths  # of the machine, not of the workload
    assert len(paths) < 1000


def test_twice_the_same(project: Path) -> None:
    first, second = (list(hashed(run(project)[1])) for _ in range(2))
    assert first == second
    assert first == sorted(first)


def test_exit_code(project: Path) -> None:
    assert run(project, 3)[0] == 3


def test_sources_of_compiled_modules(project: Path) -> None:
    py_compile.compile(str(project / "helper.py"))
    _, paths = run(project)
    assert {"helper.py", f"__pycache__/helper.{sys.implementation.cache_tag}.pyc"} <= names(paths, project)


def test_names_that_no_manifest_can_hold(tmp_path: Path) -> None:
    for name in ("{{ env }}", "line\nbreak", "{% x %}"):
        (tmp_path / name).touch()
        with pytest.raises(LocalIOError, match="no name for a manifest"):
            list(hashed([str(tmp_path / name)]))


def test_saved_and_loaded(project: Path, tmp_path: Path) -> None:
    collected = Collected.here([str(project / "train.py")], 2, "8G")
    collected = replace(collected, compiled=(LoadedFile("pycache/x.pyc", "00"),))
    collected.save(tmp_path)
    assert Collected.load(tmp_path) == collected
    (tmp_path / "collected.json").write_text('{"format": 3}')
    with pytest.raises(ExecutorError, match="cannot be used"):
        Collected.load(tmp_path)
    with pytest.raises(ExecutorError, match="has no"):
        Collected.load(project)
