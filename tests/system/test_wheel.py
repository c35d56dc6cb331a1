"""The wheel says what it is: for this platform with the C library in it, for any without."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLATFORM = sysconfig.get_platform().replace("-", "_").replace(".", "_")
LIBRARY = "sealfs/enclave/libsealfs.so"

pytestmark = pytest.mark.slow


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The tracked files: what was built in the checkout must not get in."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    names = subprocess.check_output(["git", "-C", ROOT, "ls-files", "-z"], text=True).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "source" / name)
    return tmp_path / "source"


def build(source: Path, path: str) -> tuple[Path, list[str], str]:
    """Build a wheel with the programs in `path`; return it, its files, and its metadata."""
    out = source.parent / "out"
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", out, source]
    env = os.environ | {"PATH": path}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=550)
    if done.returncode and "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("no package index to get setuptools from")
    assert done.returncode == 0, done.stderr[-3000:]
    (wheel,) = out.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        tags = archive.read(next(name for name in names if name.endswith(".dist-info/WHEEL"))).decode()
    return wheel, names, tags


def test_with_library(source: Path) -> None:
    if shutil.which("gcc") is None or not Path("/usr/include/openssl/evp.h").exists():
        pytest.skip("no C compiler, or no headers of OpenSSL")
    wheel, names, tags = build(source, os.environ["PATH"])
    assert wheel.name.endswith(f"-py3-none-{PLATFORM}.whl")
    assert LIBRARY in names
    assert f"Tag: py3-none-{PLATFORM}\n" in tags
    assert "Root-Is-Purelib: false\n" in tags


def test_without_compiler(source: Path) -> None:
    wheel, names, tags = build(source, str(Path(sys.executable).parent))
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not [name for name in names if name.endswith(".so")]
    assert "sealfs/enclave/attach.py" in names
    assert "Root-Is-Purelib: true\n" in tags
