"""Descriptors: reading, seeking, duplicates, mappings, copies, threads, fork."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import mmap
import os
import pathlib
import select
import shutil
import socket
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from runtime.probes.cases import digest, refusal, sized

CHUNK = 1 << 16


@sized
def open_read(path: str) -> Any:
    with open(path, "rb") as file:
        return digest(file.read())


@sized
def raw_reads(path: str) -> Any:
    fd = os.open(path, os.O_RDONLY)
    hasher, sizes = hashlib.sha256(), []
    for size in (1, 7, 4096, 65504, 65536, 65537, 1 << 20, 3):
        data = os.read(fd, size)
        sizes.append(len(data))
        hasher.update(data)
    while data := os.read(fd, 99_991):
        hasher.update(data)
    end = os.lseek(fd, 0, os.SEEK_CUR)
    after_end = os.read(fd, 10)
    os.close(fd)
    return sizes, hasher.hexdigest(), end, after_end


@sized
def pread_everywhere(path: str) -> Any:
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    pieces = [
        os.pread(fd, n, o)
        for o in (0, 1, 4095, 65503, 65504, size - 5, size, size + 9)
        for n in (0, 1, 100, 70_000)
    ]
    here = os.lseek(fd, 0, os.SEEK_CUR)
    os.close(fd)
    return [digest(piece) for piece in pieces], here


@sized
def vectors(path: str) -> Any:
    fd = os.open(path, os.O_RDONLY)
    buffers = [bytearray(n) for n in (10, 0, 4096, 100_000)]
    counts = [os.readv(fd, buffers), os.preadv(fd, buffers, 777), os.lseek(fd, 0, os.SEEK_CUR)]
    os.close(fd)
    return counts, [digest(buffer) for buffer in buffers]


@sized
def seeking(path: str) -> Any:
    fd = os.open(path, os.O_RDONLY)
    moves = [(100, 0), (50, 1), (-20, 1), (-10, 2), (0, 2), (5, 2), (0, os.SEEK_DATA), (0, os.SEEK_HOLE)]
    places = [os.lseek(fd, offset, whence) for offset, whence in moves]
    wrong = [
        refusal(lambda: os.lseek(fd, -1, 0)),
        refusal(lambda: os.lseek(fd, -(1 << 40), 2)),
        refusal(lambda: os.lseek(fd, 1 << 40, os.SEEK_DATA)),
        refusal(lambda: os.lseek(fd, 0, 77)),
    ]
    os.close(fd)
    return places, wrong


@sized
def duplicates(path: str) -> Any:
    fd = os.open(path, os.O_RDONLY)
    again = os.dup(fd)
    third = fcntl.fcntl(fd, fcntl.F_DUPFD, 50)
    fourth = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 60)
    os.dup2(fd, 70)
    parts = [os.read(n, 5).hex() for n in (fd, again, third, fourth, 70, fd)]
    os.close(fd)
    parts.append(os.read(again, 5).hex())
    with os.fdopen(third, "rb") as file:
        parts.append(digest(file.read()))
    for n in (again, fourth, 70):
        os.close(n)
    return parts, refusal(lambda: os.read(70, 1))


@sized
def lowest_number(path: str) -> Any:
    fds = [os.open(path, os.O_RDONLY) for _ in range(3)]
    os.close(fds[1])
    again = os.open(path, os.O_RDONLY)
    for fd in (fds[0], again, fds[2]):
        os.close(fd)
    return again == fds[1], fds[1] == fds[0] + 1


@sized
def reused_number(path: str) -> Any:
    """A number that was a sealed file and is now another."""
    with tempfile.TemporaryFile(buffering=0) as file:
        fd = os.open(path, os.O_RDONLY)
        os.dup2(file.fileno(), fd)
        os.write(fd, b"something else")
        os.lseek(fd, 0, 0)
        data = os.read(fd, 100)
        os.close(fd)
    return data


@sized
def flags(path: str) -> Any:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    result = [fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_CLOEXEC, fcntl.fcntl(fd, fcntl.F_GETFD)]
    fcntl.fcntl(fd, fcntl.F_SETFL, 0)
    result.append(fcntl.fcntl(fd, fcntl.F_GETFL))
    os.close(fd)
    return result


@sized
def locks(path: str) -> Any:
    with open(path, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        fcntl.lockf(file, fcntl.LOCK_SH)
        fcntl.lockf(file, fcntl.LOCK_UN)
        return refusal(lambda: fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB))


@sized
def advice(path: str) -> Any:
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return refusal(lambda: os.fsync(file.fileno())), os.isatty(file.fileno()), file.readable(), file.seekable()


@sized
def polling(path: str) -> Any:
    """Beside pipes that are ready and that are not."""
    quiet, speaking = os.pipe(), os.pipe()
    os.write(speaking[1], b"x")
    result = []
    with open(path, "rb") as file:
        names = {file.fileno(): "file", quiet[0]: "quiet", speaking[0]: "speaking"}
        result += [[names[fd] for fd in part] for part in select.select(names, [], [], 0)]
        result += [[names[fd] for fd in part] for part in select.select([file.fileno(), quiet[0]], [], [])]
        poller = select.poll()
        for fd in names:
            poller.register(fd, select.POLLIN)
        result.append(sorted((names[fd], events) for fd, events in poller.poll()))
        for pipe in (quiet, speaking):
            for fd in pipe:
                os.close(fd)
        result.append(sorted((names[fd], events) for fd, events in poller.poll(1000)))
    return result


@sized
def maps(path: str) -> Any:
    with open(path, "rb") as file:
        shared = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        private = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        second = mmap.mmap(file.fileno(), 500, prot=mmap.PROT_READ, offset=4096)
        before = digest(shared), digest(private), digest(second)
        private[0:3] = b"new"
        after = digest(shared), digest(private)
        refused = refusal(lambda: mmap.mmap(file.fileno(), 0))
    return before, after, refused


@sized
def writes_by_descriptor(path: str) -> Any:
    fd = os.open(path, os.O_RDONLY)
    calls = [
        lambda: os.write(fd, b"x"),
        lambda: os.pwrite(fd, b"x", 0),
        lambda: os.writev(fd, [b"x"]),
        lambda: os.ftruncate(fd, 0),
    ]
    result = [refusal(call) for call in calls]
    os.close(fd)
    return result


@sized
def sendfile(path: str) -> Any:
    with open(path, "rb") as source, tempfile.TemporaryFile() as target:
        size = os.fstat(source.fileno()).st_size
        sent = [os.sendfile(target.fileno(), source.fileno(), 10, 1000)]
        while count := os.sendfile(target.fileno(), source.fileno(), None, 1 << 20):
            sent.append(count)
        target.seek(0)
        return sum(sent) == size + 1000, digest(target.read()), source.tell()


@sized
def copy_file_range(path: str) -> Any:
    with open(path, "rb") as source, tempfile.TemporaryFile() as target:
        os.copy_file_range(source.fileno(), target.fileno(), 1000, 10, 100)
        while os.copy_file_range(source.fileno(), target.fileno(), 1 << 20):
            pass
        target.seek(0)
        return digest(target.read())


@sized
def splice(path: str) -> Any:
    library = ctypes.CDLL(None, use_errno=True)
    reading, writing = os.pipe()
    with open(path, "rb") as source:
        count = library.splice(source.fileno(), None, writing, None, ctypes.c_size_t(5000), 0)
        data = os.read(reading, 10_000)
        here = os.lseek(source.fileno(), 0, 1)
    os.close(reading)
    os.close(writing)
    return count == len(data) == here, digest(data[:4096])


@sized
def sockets(path: str) -> Any:
    left, right = socket.socketpair()
    with left, right, open(path, "rb") as file:
        sender = threading.Thread(target=lambda: (left.sendfile(file), left.shutdown(socket.SHUT_WR)))
        sender.start()
        data = b"".join(iter(lambda: right.recv(CHUNK), b""))
        sender.join()
    return digest(data)


@sized
def shutil_copy(path: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        copied = shutil.copy2(path, folder)
        status = os.stat(copied)
        return digest(pathlib.Path(copied).read_bytes()), status.st_mtime_ns, oct(status.st_mode)


@sized
def proc_fd(path: str) -> Any:
    with open(path, "rb") as file:
        name = f"/proc/self/fd/{file.fileno()}"
        with open(name, "rb") as again:
            content = digest(again.read())
        with open(f"/dev/fd/{file.fileno()}", "rb") as again:
            content += digest(again.read(10))
        return content, os.readlink(name), os.stat(name).st_size, os.path.realpath(name)


@sized
def text_and_buffers(path: str) -> Any:
    with open(path, encoding="latin-1", newline="") as file:
        lines = [len(file.readline()) for _ in range(5)]
        file.seek(0)
        lines.append(len(file.read(1000)))
    with open(path, "rb", buffering=0) as raw:
        raw.seek(-100, 2)
        tail = digest(raw.readall())
    with open(path, "rb", buffering=1 << 20) as file:
        head = digest(file.read(3) + file.peek(1)[:10] + file.read1(50)[:20])
    return lines, tail, head


@sized
def threads(path: str) -> Any:
    fd = os.open(path, os.O_RDONLY)
    size = os.fstat(fd).st_size
    offsets = [i * 7919 % size for i in range(400)]
    with ThreadPoolExecutor(8) as pool:
        data = b"".join(pool.map(lambda offset: os.pread(fd, 9000, offset), offsets))
        shared = list(pool.map(lambda _: len(os.read(fd, 10_007)), range(-(-size // 10_007) + 3)))
    os.close(fd)
    return digest(data), sum(shared)


@sized
def forked(path: str) -> Any:
    fd = os.open(path, os.O_RDONLY)
    head = os.read(fd, 100)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open(path, "rb") as file:
            os.write(writing, hashlib.sha256(os.read(fd, 1000) + file.read()).digest())
        os._exit(0)
    os.waitpid(pid, 0)
    answer = os.read(reading, 100)
    rest = os.read(fd, 1000)  # the offset is shared
    for n in (reading, writing, fd):
        os.close(n)
    return digest(head), answer.hex(), digest(rest)
