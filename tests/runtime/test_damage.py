"""Fails closed: the first damage ends the process, for an errno would be swallowed; never zeros, never less."""

# ruff: noqa: E501 - tables and pieces of programs
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from runtime.conftest import Sealed
from sealfs.enclave.attach import INTEGRITY_EXIT
from sealfs.floe import HEADER_SIZE


@pytest.fixture
def copied(sealed: Sealed, tmp_path: Path) -> Sealed:
    shutil.copytree(sealed.store, tmp_path / "store")
    (tmp_path / "mnt").mkdir()
    return Sealed(sealed.plain, tmp_path / "store", tmp_path / "mnt", sealed.identity, sealed.home)


def flip(sealed: Sealed, path: bytes, offset: int) -> None:
    """Change one bit of a file's ciphertext."""
    _, _, index = sealed.opened()
    for extent in index.extents(index.resolve(path)):
        if offset < extent.length:
            pack = index.pack(extent.pack)
            room = pack.layout.segment_length - 32
            place = HEADER_SIZE + (extent.offset + offset) // room * pack.layout.segment_length + 50
            with (sealed.store / pack.name).open("r+b") as file:
                file.seek(place)
                byte = file.read(1)[0]
                file.seek(place)
                file.write(bytes([byte ^ 4]))
            return
        offset -= extent.length


def test_small_file(copied: Sealed) -> None:
    flip(copied, b"text", 100)
    code = """
for attempt in (lambda: open(M + "/text"), lambda: open(M + "/bin/small.bin"), lambda: __import__("os").listdir(M)):
    try:
        attempt()
    except OSError as error:
        print(error.errno)
"""
    done = copied.python(code)
    assert (done.returncode, done.stdout) == (INTEGRITY_EXIT, "")
    assert done.stderr.count("INTEGRITY FAILURE") == 1
    assert "'text' is not what the provider sealed" in done.stderr


LARGE = {
    "read": "f = open(M + '/bin/large.bin', 'rb', buffering=0)\nwhile f.read(100_000): pass",
    "mmap": "import mmap\nf = open(M + '/bin/large.bin', 'rb')\nmmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)",
    "fread": "import numpy as np\nnp.fromfile(M + '/bin/large.bin', np.uint8)",
    "sendfile": "import os\nf = open(M + '/bin/large.bin', 'rb')\nwhile os.sendfile(os.open('/dev/null', 1), f.fileno(), None, 1 << 20): pass",
}


@pytest.mark.parametrize("how", LARGE)
def test_large_file(copied: Sealed, how: str) -> None:
    flip(copied, b"bin/large.bin", 9 << 20)
    done = copied.python(
        f"print('start', flush=True)\ntry:\n{_indented(LARGE[how])}\nexcept BaseException: pass\nprint('went on')"
    )
    assert done.returncode == INTEGRITY_EXIT
    assert done.stdout == "start\n"
    assert "'bin/large.bin' is not what the provider sealed" in done.stderr


def _indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.splitlines())


def test_large_file_is_good_up_to_the_damage(copied: Sealed) -> None:
    flip(copied, b"bin/large.bin", 9 << 20)
    code = "import os\nf = os.open(M + '/bin/large.bin', 0)\nassert os.pread(f, 8 << 20, 0) == open(P + '/bin/large.bin', 'rb').read(8 << 20)"
    assert copied.python(code).returncode == 0


def test_damage_after_opening(copied: Sealed) -> None:
    """The file was good when it was opened; then its ciphertext changed, and the cache has forgotten it."""
    code = """
import sys
f = open(M + "/bin/small.bin", "rb", buffering=0)
assert len(f.read(100)) == 100
open(M + "/bin/large.bin", "rb").read(9 << 20)
for pack in __import__("pathlib").Path(sys.argv[1]).iterdir():
    data = bytearray(pack.read_bytes())
    for place in range(1000, len(data), 20_000):
        data[place] ^= 1
    pack.write_bytes(data)
f.read(100)
print("went on")
"""
    done = copied.python(code, copied.store / "packs", options=("--cache-memory", "65536"))
    assert (done.returncode, done.stdout) == (INTEGRITY_EXIT, "")


def test_missing_pack(copied: Sealed) -> None:
    for pack in (copied.store / "packs").iterdir():
        pack.unlink()
    done = copied.python(
        "import os\nos.stat(M + '/text')\ntry: open(M + '/text')\nexcept OSError as e: print(e.errno)"
    )
    assert (done.returncode, done.stdout) == (INTEGRITY_EXIT, ""), done.stderr


def test_who_goes_past_the_library_finds_nothing(sealed: Sealed) -> None:
    """Raw system calls and static programs see an empty folder and unreadable descriptors, not zeros."""
    code = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(M + "/text", os.O_RDONLY)
buffer = ctypes.create_string_buffer(10)
print(libc.syscall(0, fd, buffer, 10), errno.errorcode[ctypes.get_errno()], buffer.raw == bytes(10))
print(libc.syscall(2, os.fsencode(M + "/text"), 0), errno.errorcode[ctypes.get_errno()])
"""
    assert sealed.python(code).stdout == "-1 EBADF True\n-1 ENOENT\n"
