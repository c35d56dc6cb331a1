"""Built for musl the library compiles without warnings, and with a libcrypto that was built for musl it serves."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime.conftest import RUNTIME, Sealed
from runtime.test_programs import PROGRAMS

BUILT = RUNTIME / "build" / "musl" / "libsealfs.so"

GLOB = """
#include <errno.h>
#include <glob.h>
#include <stdio.h>
int main(int count, char **patterns) {
    glob_t found;
    for (int i = 1; i < count; i++)
        printf("%d\\n", glob(patterns[i], 0, NULL, &found) == 0 ? (int)found.gl_pathc : -errno);
}
"""

# The launcher and its library are glibc's. What it attached, a program inherits by the environment and by
# descriptors, whatever its libc: it is started past the hooks, which would have it load glibc's library.
EXECUTE = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
state = b"SEALFS_RUNTIME=" + libc.getenv(b"SEALFS_RUNTIME")
def array(items):
    return (ctypes.c_char_p * (len(items) + 1))(*items, None)
command = [os.fsencode(item) for item in sys.argv[2:]]
SYS_EXECVE = 59 if os.uname().machine == "x86_64" else 221
libc.syscall(SYS_EXECVE, command[0], array(command), array([state, b"LD_PRELOAD=" + os.fsencode(sys.argv[1])]))
sys.exit("no execve")
"""


def comparable(text: str, root: Path) -> list[str]:
    """What does not depend on the libc. Programs that `calls` starts are glibc's, and can't have musl's library.

    Left out: fdopen() to write what is open for reading, which musl allows and the library refuses, and a directory
    that nftw() reaches twice through a symlink, which the library, as glibc, visits once.
    """
    lines = text.replace(str(root), "ROOT").partition("vfork ")[0].splitlines()
    left_out = ("fdopen w: ", "nftw /up ")
    return [line for line in lines if line and not line.startswith(left_out) and "  ROOT/" not in line]


@pytest.fixture(scope="module")
def libcrypto() -> str:
    """A libcrypto.a for musl, or nothing."""
    if shutil.which("musl-gcc") is None:
        pytest.skip("no musl-gcc (Debian: musl-tools)")
    return os.environ.get("MUSL_LIBCRYPTO", "")


@pytest.fixture(scope="module")
def musl(libcrypto: str) -> Path | None:
    """The library, if it could be linked."""
    make = ["make", "-s", "-C", RUNTIME, "musl", f"MUSL_LIBCRYPTO={libcrypto}"]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    return BUILT if libcrypto else None


@pytest.mark.slow
def test_it_compiles(musl: Path | None) -> None:
    objects = {path.stem for path in (RUNTIME / "build" / "musl").glob("*/*.o")}
    sources = {path.stem for folder in ("src", "preload") for path in (RUNTIME / folder).glob("*.c")}
    assert objects >= sources


@pytest.mark.slow
def test_a_program_of_musl_reads_the_same(musl: Path | None, sealed: Sealed, tmp_path: Path) -> None:
    if musl is None:
        pytest.skip("no libcrypto for musl: MUSL_LIBCRYPTO names none")
    program, tag = tmp_path / "calls", str(os.getpid())
    subprocess.run(["musl-gcc", "-O2", "-Wno-unused-result", PROGRAMS / "calls.c", "-o", program], check=True)
    plain = subprocess.run([program, sealed.plain, tag], capture_output=True, check=False)
    served = sealed.python(EXECUTE, musl, program, sealed.mount, tag, errors="surrogateescape")
    assert served.returncode == plain.returncode == 0, served.stderr
    expected = comparable(os.fsdecode(plain.stdout), sealed.plain)
    assert comparable(served.stdout, sealed.mount) == expected
    assert len(expected) > 1000


@pytest.mark.slow
def test_globbing_is_refused_where_it_would_find_nothing(musl: Path | None, sealed: Sealed, tmp_path: Path) -> None:
    """musl's glob calls the kernel itself."""
    if musl is None:
        pytest.skip("no libcrypto for musl: MUSL_LIBCRYPTO names none")
    (tmp_path / "glob.c").write_text(GLOB)
    subprocess.run(["musl-gcc", "-Wall", "-Werror", tmp_path / "glob.c", "-o", tmp_path / "glob"], check=True)
    inside = [f"{sealed.mount}/*", f"{sealed.mount.parent}/*/bin/*.bin", f"{sealed.mount}//text"]
    outside = [f"{sealed.plain}/bin/*.bin", f"{sealed.mount.parent}/*", f"{sealed.mount.parent}/other/*"]
    served = sealed.python(EXECUTE, musl, tmp_path / "glob", *inside, *outside)
    refused = f"-{errno.ENOSYS}"
    assert served.stdout.splitlines() == [refused] * 3 + ["2", "1", f"-{errno.ENOENT}"], served.stderr
