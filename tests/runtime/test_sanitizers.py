"""The same programs under ASan, UBSan and valgrind; C unit tests; a short run of the fuzz target."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.conftest import RUNTIME, Sealed
from runtime.test_programs import PROGRAMS

SANITIZERS = {
    "asan": "-O1 -g -fno-omit-frame-pointer -fsanitize=address",
    "ubsan": "-O1 -g -fsanitize=undefined -fno-sanitize-recover=all",
}


def make(*arguments: str) -> str:
    done = subprocess.run(["make", "-s", "-C", RUNTIME, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "warning" not in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("calls") / "calls"
    subprocess.run(["gcc", "-g", "-O1", "-Wno-unused-result", PROGRAMS / "calls.c", "-o", program], check=True)
    return program


#: Of the ciphers besides OpenSSL's: the header that is there with each, and what is in it from the first version on
#: that is used.
OPTIONAL = {
    "ipsec-mb": ("intel-ipsec-mb.h", r"IMB_VERSION_STR"),
    "libgcrypt": ("gcrypt.h", r"GCRYPT_VERSION_NUMBER 0x01(0[a-f]|[1-9a-f])"),
}


def usable(header: str, version: str) -> bool:
    path = Path("/usr/include", header)
    return platform.machine() == "x86_64" and path.exists() and re.search(version, path.read_text()) is not None


def test_unit_tests() -> None:
    """With all ciphers that are there, and with OpenSSL's alone."""
    found = make("test")
    for cipher, library in OPTIONAL.items():
        assert (f"floe: {cipher}: 8 known answers" in found) == usable(*library)
    alone = make("test", "IPSEC_MB=", "LIBGCRYPT=", "BUILD=build/openssl")
    assert "floe: openssl: 8 known answers" in alone
    assert not any(cipher in alone for cipher in OPTIONAL)


@pytest.mark.slow
def test_threads_with_sanitizer() -> None:
    if subprocess.run(["setarch", "-R", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("no way to turn off address space randomisation, without which this TSan does not run")
    assert make("tsan") == "helpers\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", SANITIZERS)
def test_unit_tests_with_sanitizers(name: str) -> None:
    make(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", SANITIZERS)
def test_programs_with_sanitizers(name: str, calls: Path, sealed: Sealed, library: Path) -> None:
    folder = f"build/{name}"
    make(f"BUILD={folder}", f"CFLAGS={SANITIZERS[name]}", "LDFLAGS=", f"{folder}/{library.name}")
    preload = str(RUNTIME / folder / library.name)
    if name == "asan":
        runtime = subprocess.check_output(["gcc", "-print-file-name=libasan.so"], text=True).strip()
        preload = f"{os.path.realpath(runtime)}:{preload}"
    expected = sealed.run(calls, sealed.mount, errors="surrogateescape")
    found = sealed.run(
        calls, sealed.mount, errors="surrogateescape", env={"LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0"}
    )
    assert found.returncode == 0, found.stderr
    assert "runtime error" not in found.stderr
    assert "ERROR: AddressSanitizer" not in found.stderr
    # what follows starts a program in an empty environment, to which ASan's own library can't be added
    assert found.stdout.partition("vfork 0")[0] == expected.stdout.partition("vfork 0")[0]


@pytest.mark.slow
def test_programs_under_valgrind(calls: Path, sealed: Sealed) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("no valgrind")
    expected = sealed.run(calls, sealed.mount, errors="surrogateescape")
    options = [
        "-q",
        "--error-exitcode=9",
        "--leak-check=full",
        "--show-leak-kinds=definite",
        "--errors-for-leak-kinds=definite",
    ]
    found = sealed.run("valgrind", *options, calls, sealed.mount, errors="surrogateescape")
    assert found.returncode == 0, found.stderr[-5000:]
    assert found.stdout == expected.stdout


@pytest.mark.slow
def test_fuzzing(sealed: Sealed, tmp_path: Path) -> None:
    if shutil.which("clang") is None:
        pytest.skip("no clang")
    make("fuzz")
    _, _, index = sealed.opened()
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    (seeds / "index").write_bytes(b"\0" + bytes(index.data))
    (seeds / "floe").write_bytes(b"\1" + next((sealed.store / "packs").iterdir()).read_bytes()[:200])
    limits = ["-max_len=65536", "-malloc_limit_mb=8", "-rss_limit_mb=1024"]
    # a process's peak counts what its parent had when it forked, and this one may have more than the limit
    own_process = ["sh", "-c", '"$@"; exit $?', "sh"]
    command = [*own_process, RUNTIME / "build/fuzz", "-max_total_time=20", *limits, seeds]
    # freed memory that ASan keeps back counts as well
    environment = {**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=32"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
