"""Mappings are copies: what a copy can't do must be loud, and what it costs bounded."""

# ruff: noqa: E501 - pieces of programs
from __future__ import annotations

import signal

from runtime.conftest import Sealed

START = """
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
for name in ("mmap", "mremap"):
    getattr(libc, name).restype = ctypes.c_void_p
FAILED = ctypes.c_void_p(-1).value
size_t, void = ctypes.c_size_t, ctypes.c_void_p
def map_file(path, size, offset=0, flags=mmap.MAP_PRIVATE, at=None):
    fd = os.open(path, os.O_RDONLY)
    address = libc.mmap(void(at), size_t(size), 1, flags, fd, ctypes.c_long(offset))
    os.close(fd)
    return address
def byte(address):
    pid = os.fork()
    if pid == 0:
        os._exit(ctypes.c_ubyte.from_address(address).value & 1)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)
"""


def both(sealed: Sealed, code: str) -> tuple[str, str]:
    """Run code that gets a folder F on the plain and on the sealed files."""
    results = []
    for folder in ("P", "M"):
        done = sealed.python(f"{START}\nF = {folder}\n{code}")
        assert done.returncode == 0, done.stderr
        results.append(done.stdout)
    return results[0], results[1]


def test_access_behind_the_end(sealed: Sealed) -> None:
    code = """
size = os.path.getsize(F + "/bin/small.bin")
for flags in (mmap.MAP_PRIVATE, mmap.MAP_SHARED):
    address = map_file(F + "/bin/small.bin", 5 * 4096, flags=flags)
    print(size, byte(address + size - 1), byte(address + 8191), byte(address + 8192), byte(address + 5 * 4096 - 1))
print(byte(map_file(F + "/bin/small.bin", 4096, 1 << 20)), byte(map_file(F + "/nothing", 4096)))
"""
    plain, served = both(sealed, code)
    assert served == plain
    assert f" {-signal.SIGBUS} {-signal.SIGBUS}\n" in plain


def test_mapping_far_beyond_the_file(sealed: Sealed) -> None:
    """As LMDB does it: the address space of the largest size that the database may ever have."""
    code = """
with open(F + "/bin/large.bin", "rb") as file:
    content = file.read()
address = map_file(F + "/bin/large.bin", 1 << 40, flags=mmap.MAP_SHARED)
print(address != FAILED and ctypes.string_at(address, len(content)) == content, byte(address + (1 << 39)))
print(libc.munmap(void(address), size_t(1 << 40)))
"""
    plain, served = both(sealed, code)
    assert served == plain == f"True {-signal.SIGBUS}\n0\n"


def test_no_mapping_grows_by_zeros(sealed: Sealed) -> None:
    code = """
address = map_file(M + "/bin/large.bin", 8192)
print(libc.mremap(void(address), size_t(8192), size_t(1 << 20), 1) == FAILED, os.strerror(ctypes.get_errno()))
print(libc.mremap(void(address), size_t(8192), size_t(4096), 1) == address)
print(libc.mremap(void(address), size_t(4096), size_t(8192), 1) == FAILED)
print(ctypes.string_at(address, 4096) == open(P + "/bin/large.bin", "rb").read(4096))
print(libc.munmap(void(address), size_t(4096)))
other = libc.mmap(void(address), size_t(4096), 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10, -1, ctypes.c_long(0))
print(libc.mremap(void(other), size_t(4096), size_t(1 << 20), 1) != FAILED)
three = map_file(M + "/bin/large.bin", 3 * 4096)
libc.munmap(void(three + 4096), size_t(4096))
middle = libc.mmap(void(three + 4096), size_t(4096), 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x10, -1, ctypes.c_long(0))
print([libc.mremap(void(three + page * 4096), size_t(4096), size_t(8192), 1) == FAILED for page in range(3)])
"""
    done = sealed.python(START + code)
    expected = "True Cannot allocate memory\nTrue\nTrue\nTrue\n0\nTrue\n[True, False, True]\n"
    assert done.stdout == expected, done.stderr


def test_forks_while_others_map(sealed: Sealed) -> None:
    code = """
import threading
stop = False
def work():
    while not stop:
        libc.munmap(void(map_file(M + "/bin/small.bin", 4096)), size_t(4096))
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads: thread.start()
for _ in range(100):
    pid = os.fork()
    if pid == 0:
        libc.munmap(void(map_file(M + "/bin/small.bin", 4096)), size_t(4096))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop = True
for thread in threads: thread.join()
print("done")
"""
    assert sealed.python(START + code, timeout=60).stdout == "done\n"
