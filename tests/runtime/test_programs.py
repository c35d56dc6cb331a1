"""C and C++ programs must print the same for sealed files as for plain ones."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtime.conftest import Sealed

PROGRAMS = Path(__file__).with_name("programs")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    for compiler, source in (("gcc", "calls.c"), ("g++", "streams.cc")):
        options = ["-O2", "-D_FORTIFY_SOURCE=2", "-Wno-unused-result"]
        subprocess.run([compiler, *options, PROGRAMS / source, "-o", folder / Path(source).stem], check=True)
    return folder


@pytest.mark.parametrize("name", ["calls", "streams"])
@pytest.mark.parametrize("options", [(), ("--real-files",)], ids=["placeholders", "real files"])
def test_same_as_plain(name: str, options: tuple[str, ...], built: Path, sealed: Sealed) -> None:
    program, tag = built / name, str(os.getpid())
    plain = subprocess.run([program, sealed.plain, tag], capture_output=True, check=False)
    served = sealed.run(program, sealed.mount, tag, options=options, errors="surrogateescape")
    assert served.returncode == plain.returncode == 0, served.stderr
    expected = os.fsdecode(plain.stdout).replace(str(sealed.plain), "ROOT").splitlines()
    found = served.stdout.replace(str(sealed.mount), "ROOT").splitlines()
    assert found == expected
