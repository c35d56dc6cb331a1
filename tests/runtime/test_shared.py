"""Open files share a placeholder: none may ever be taken for another, whoever moves offsets or closes numbers."""

# ruff: noqa: E501 - pieces of programs
from __future__ import annotations

import pytest

from runtime.conftest import Sealed

START = """
import array, ctypes, errno, fcntl, os, random, socket, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
LSEEK, CLOSE_RANGE, FSTAT = 8, 436, 5
def raw_seek(fd, offset, whence):
    return libc.syscall(LSEEK, fd, ctypes.c_long(offset), whence)
def refusal(call):
    try:
        return f"no error: {call()!r}"
    except OSError as error:
        return errno.errorcode[error.errno]
def plain(path):
    with open(P + path, "rb") as file:
        return file.read()
"""


def run(sealed: Sealed, code: str, **how: object) -> list[str]:
    done = sealed.python(START + code, timeout=100, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_they_are_shared(sealed: Sealed) -> None:
    """Otherwise the other tests here show nothing."""
    code = """
fds = [os.open(M + f"/many/{n:03}.bin", os.O_RDONLY) for n in range(50)]
links = {os.readlink(f"/proc/self/fd/{fd}") for fd in fds}
status = [ctypes.create_string_buffer(144) for _ in fds]
for fd, buffer in zip(fds, status): libc.syscall(FSTAT, fd, buffer)
print(len(links), len({bytes(buffer[8:16]) for buffer in status}))
"""
    assert run(sealed, code) == ["50 1"]


def test_offset_moved_by_raw_calls(sealed: Sealed) -> None:
    """Zero, the end, far away: unreadable. Relative moves within the file are as good as the library's own."""
    code = """
content = plain("/bin/large.bin")
for offset, whence in ((0, 0), (5, 0), (0, 2), (1 << 39, 1), (-(1 << 39), 1), (1 << 62, 0), ((1 << 63) - 1, 0)):
    fd = os.open(M + "/bin/large.bin", os.O_RDONLY)
    raw_seek(fd, offset, whence)
    print(refusal(lambda: os.read(fd, 10)), refusal(lambda: os.pread(fd, 10, 0)))
    os.close(fd)
fd = os.open(M + "/bin/large.bin", os.O_RDONLY)
os.read(fd, 1000)
raw_seek(fd, 234, 1)
print(os.read(fd, 50) == content[1234:1284])
raw_seek(fd, -2000, 1)
print(refusal(lambda: os.read(fd, 10)))
"""
    assert run(sealed, code) == ["EBADF EBADF"] * 7 + ["True", "EBADF"]


def test_offsets_too_far(sealed: Sealed) -> None:
    code = """
fd = os.open(M + "/text", os.O_RDONLY)
size = os.fstat(fd).st_size
print([refusal(lambda: os.lseek(fd, offset, whence)) for offset, whence in
       ((1 << 50, 0), ((1 << 63) - 1, 0), ((1 << 63) - 1, 1), (-1, 0), (-size - 1, 2), (-1, 1))])
print(os.lseek(fd, 1 << 37, 0), os.read(fd, 10), os.lseek(fd, 0, 1) == 1 << 37, os.lseek(fd, 0, 0))
print(os.read(fd, 1 << 20) == plain("/text"), os.read(fd, 10), os.lseek(fd, 0, 1) == size)
"""
    refused = "['EINVAL', 'EINVAL', 'EINVAL', 'EINVAL', 'EINVAL', 'EINVAL']"
    assert run(sealed, code) == [refused, f"{1 << 37} b'' True 0", "True b'' True"]


@pytest.mark.parametrize("other", ["/dev/null", "/dev/zero", "/bin/sh"])
def test_numbers_closed_by_raw_calls(sealed: Sealed, other: str) -> None:
    """The library's own numbers are gone, and are other files now: sealed files open all the same, and as themselves."""
    code = """
before = os.open(M + "/bin/small.bin", os.O_RDONLY)
os.dup2(before, 3)
print(libc.syscall(CLOSE_RANGE, 4, 4000, 0))
others = [os.open(other, os.O_RDONLY) for _ in range(1020)]
os.close(others.pop())
os.close(others.pop())
again = os.open(M + "/text", os.O_RDONLY)
print(os.read(again, 1 << 20) == plain("/text"), os.read(3, 1 << 20) == plain("/bin/small.bin"))
large = os.open(M + "/bin/large.bin", os.O_RDONLY)
print(os.read(large, 1 << 30) == plain("/bin/large.bin"))
print(all(os.readlink(f"/proc/self/fd/{fd}") == os.path.realpath(other) for fd in others))
"""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (1100, 4096))"
    assert run(sealed, f"{limit}\nother = {other!r}\n{code}") == ["0", "True True", "True", "True"]


def test_sent_to_another_process(sealed: Sealed) -> None:
    """By a socket, to a process that was forked before the file was opened, and back after both went on."""
    code = """
left, right = socket.socketpair()
os.open(M + "/text", os.O_RDONLY)
if os.fork() == 0:
    own = [os.open(M + f"/many/{n:03}.bin", os.O_RDONLY) for n in range(60, 90)]
    for fd in own: os.read(fd, 7)
    received = socket.recv_fds(right, 100, 30)[1]
    for n, fd in enumerate(received):
        data = os.read(fd, 100_000)
        assert data == plain(f"/many/{n + 20:03}.bin")[11:], n
    socket.send_fds(right, [b"x"], own)
    os._exit(0)
fds = [os.open(M + f"/many/{n:03}.bin", os.O_RDONLY) for n in range(20, 50)]
for fd in fds: os.read(fd, 11)
socket.send_fds(left, [b"x"], fds)
back = socket.recv_fds(left, 100, 30)[1]
print(all(os.read(fd, 100_000) == plain(f"/many/{n + 60:03}.bin")[7:] for n, fd in enumerate(back)))
print(os.wait()[1], [os.read(fd, 1) for fd in fds] == [b""] * 30)
"""
    assert run(sealed, code) == ["True", "0 True"]


def test_threads_on_many_files(sealed: Sealed) -> None:
    code = """
contents = [plain(f"/many/{n:03}.bin") for n in range(120)] + [plain("/bin/large.bin")]
names = [f"/many/{n:03}.bin" for n in range(120)] + ["/bin/large.bin"]
shared = os.open(M + "/bin/large.bin", os.O_RDONLY)
wrong = []
def work(seed):
    rng = random.Random(seed)
    for _ in range(400):
        n = rng.randrange(len(names))
        fd = os.open(M + names[n], os.O_RDONLY)
        start = rng.randrange(len(contents[n]) + 1)
        os.lseek(fd, start, 0)
        if os.read(fd, 5000) != contents[n][start : start + 5000]: wrong.append(n)
        again = os.dup(fd)
        os.close(fd)
        if os.pread(again, 50, 0) != contents[n][:50]: wrong.append(n)
        os.close(again)
        if os.read(shared, 1000) not in contents[-1]: wrong.append("shared")
threads = [threading.Thread(target=work, args=[seed]) for seed in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(wrong, os.lseek(shared, 0, 1))
"""
    assert run(sealed, code) == ["[] 2400000"]


def test_locks_keep_nobody_out(sealed: Sealed) -> None:
    code = """
one, two = (os.open(M + name, os.O_RDONLY) for name in ("/text", "/bin/small.bin"))
fcntl.flock(one, fcntl.LOCK_SH)
fcntl.flock(two, fcntl.LOCK_EX | fcntl.LOCK_NB)
fcntl.flock(two, fcntl.LOCK_UN)
print(refusal(lambda: fcntl.flock(one, 77)))
"""
    assert run(sealed, code) == ["EINVAL"]
