"""Copies of compiled modules: what Python took in the trial, checked against nothing, and only that."""

from __future__ import annotations

import hashlib
import os
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from sealfs.enclave.collected import hashed, source_of
from sealfs.enclave.compiled import FOLDER, copies_of, copy_of

TAG = sys.implementation.cache_tag
MODES = py_compile.PycInvalidationMode


@pytest.fixture
def enclave(tmp_path: Path) -> Path:
    (tmp_path / "enclave").mkdir()
    return tmp_path / "enclave"


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    module = tmp_path / "code" / "module.py"
    module.write_text("VALUE = 'as compiled'\n")
    return module


def compiled(module: Path, mode: py_compile.PycInvalidationMode = MODES.TIMESTAMP) -> Path:
    return Path(py_compile.compile(str(module), invalidation_mode=mode, doraise=True) or "")


def imported(module: Path, prefix: Path) -> str:
    """What Python finds in the module when it looks for compiled ones below a folder."""
    command = [sys.executable, "-c", "import module; print(module.VALUE, module.__cached__)"]
    environment = {
        "PYTHONPATH": str(module.parent),
        "PYTHONPYCACHEPREFIX": str(prefix),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.check_output(command, env=environment, text=True)


@pytest.mark.parametrize("mode", list(MODES))
def test_taken_whatever_the_time(module: Path, enclave: Path, mode: py_compile.PycInvalidationMode) -> None:
    (copy,) = copies_of(hashed([str(module), str(compiled(module, mode))]), enclave)
    assert copy.path == f"{FOLDER}{module.parent}/module.{TAG}.pyc"
    assert copy.sha256 == hashlib.sha256((enclave / copy.path).read_bytes()).hexdigest()
    os.utime(module, (0, 0))
    assert imported(module, enclave / FOLDER) == f"as compiled {enclave / copy.path}\n"
    module.write_text("VALUE = 'as changed'\n")  # no enclave would open it: this shows whence the value came
    assert imported(module, enclave / FOLDER).startswith("as compiled")


def test_the_same_each_time(module: Path, enclave: Path) -> None:
    files = list(hashed([str(module), str(compiled(module))]))
    assert copies_of(files, enclave) == copies_of(files, enclave)


def test_the_users_own_stay(module: Path, enclave: Path) -> None:
    path = compiled(module)
    before = path.read_bytes(), path.stat().st_mtime_ns
    copies_of(hashed([str(path)]), enclave)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


@pytest.mark.parametrize("mode", [MODES.TIMESTAMP, MODES.CHECKED_HASH])
def test_stale_ones_are_left_out(module: Path, enclave: Path, mode: py_compile.PycInvalidationMode) -> None:
    """Python compiled those anew in the trial, and does so in the enclave."""
    path = compiled(module, mode)
    module.write_text("VALUE = 'as changed later'\n")
    assert copies_of(hashed([str(module), str(path)]), enclave) == ()
    assert imported(module, enclave / FOLDER).startswith("as changed later")


def test_what_python_would_not_take(module: Path, enclave: Path) -> None:
    path = compiled(module)
    good = path.read_bytes()
    for bad in (b"", good[:16], good[:4] + b"\x04\0\0\0" + good[8:]):
        path.write_bytes(bad)
        assert copies_of(hashed([str(path)]), enclave) == ()
    path.write_bytes(good)
    module.unlink()
    assert copies_of(hashed([str(path)]), enclave) == ()


def test_names() -> None:
    path = "/opt/lib/__pycache__/m.cpython-311.opt-1.pyc"
    assert (source_of(path), copy_of(path)) == ("/opt/lib/m.py", f"{FOLDER}/opt/lib/m.cpython-311.opt-1.pyc")
    for other in ("/opt/lib/m.pyc", "/opt/lib/m.py", "/opt/__pycache__/x/m.cpython-311.pyc", "relative.pyc"):
        assert source_of(other) is None
        assert copy_of(other) is None
