"""Calls libraries on the files below a folder and prints what they said, as JSON: the same for plain and sealed files.

    python probe.py FOLDER [CASE ...]

Each case is a function that gets the folder and returns something comparable. What it raises counts, too. The
folder's own name is replaced by ROOT in all that is printed.
"""

# ruff: noqa: E501, SIM115, UP031 - tables and pieces of programs; files are left open on purpose
from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import mmap
import os
import pathlib
import pickle
import select
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CASES: dict[str, Callable[[str], Any]] = {}
SIZES = ("small", "large")
CHUNK = 1 << 16


def case(function: Callable[[str], Any]) -> Callable[[str], Any]:
    CASES[function.__name__] = function
    return function


def sized(function: Callable[[str], Any]) -> None:
    """The function gets the path of a small and of a large file."""
    for size in SIZES:
        CASES[f"{function.__name__}_{size}"] = lambda root, size=size: function(f"{root}/bin/{size}.bin")


def digest(data: Any) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:16]}"


def refusal(call: Callable[[], Any]) -> str:
    try:
        return f"no error: {call()!r}"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


# --- descriptors ---


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
    with open(path, "rb") as file:
        return [len(part) for part in select.select([file], [], [], 0)]


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


# --- names ---


def described(path: str, **how: Any) -> Any:
    s = os.stat(path, **how)
    return oct(s.st_mode), s.st_size if not stat.S_ISDIR(s.st_mode) else 0, s.st_mtime_ns, s.st_uid, s.st_gid


@case
def stats(root: str) -> Any:
    names = [
        "",
        "/bin",
        "/bin/small.bin",
        "/bin/small.bin/",
        "/bin/../bin/./small.bin",
        "/nothing",
        "/link",
        "/dangling",
        "/bin//large.bin",
        "/no/such",
        "/bin/small.bin/x",
        "/out",
        "/up/bin",
        "/up/link",
        "/empty",
        "/" + "x" * 256,
        "/loop",
    ]
    result = []
    for name in names:
        for follow in (True, False):
            try:
                result.append(described(root + name, follow_symlinks=follow) if name else "root")
            except OSError as error:
                result.append((name[:20], errno.errorcode[error.errno or 0]))
    return result


@case
def identities(root: str) -> Any:
    a, b = os.stat(f"{root}/bin/small.bin"), os.stat(f"{root}/bin/large.bin")
    with open(f"{root}/bin/small.bin", "rb") as file:
        c = os.fstat(file.fileno())
    entries = {entry.name: entry.inode() for entry in os.scandir(f"{root}/bin")}
    return (
        a.st_ino != b.st_ino,
        a.st_dev == b.st_dev,
        os.path.samestat(a, c),
        entries["small.bin"] == a.st_ino,
        os.path.samefile(f"{root}/link", f"{root}/bin/small.bin"),
        a.st_dev == os.stat(root).st_dev,
    )


@case
def access(root: str) -> Any:
    return [
        os.access(root + name, mode)
        for name in ("/bin", "/bin/small.bin", "/script", "/no", "/link", "/dangling")
        for mode in (os.F_OK, os.R_OK, os.X_OK)
    ]


@case
def links(root: str) -> Any:
    return (
        os.readlink(f"{root}/link"),
        os.readlink(f"{root}/dangling"),
        refusal(lambda: os.readlink(f"{root}/bin")),
        os.path.realpath(f"{root}/link"),
        os.path.realpath(f"{root}/bin/../up/link"),
        os.path.realpath(f"{root}/out"),
        os.path.realpath(f"{root}/dangling"),
        refusal(lambda: os.path.realpath(f"{root}/dangling", strict=True)),
        digest(pathlib.Path(f"{root}/link").read_bytes()),
        digest(pathlib.Path(f"{root}/out").read_bytes()),
        digest(pathlib.Path(f"{root}/up/link").read_bytes()),
        refusal(lambda: os.open(f"{root}/link", os.O_RDONLY | os.O_NOFOLLOW)),
        refusal(lambda: open(f"{root}/loop")),
    )


@case
def host_link(root: str) -> Any:
    """A symlink outside of the tree that leads into it."""
    with tempfile.TemporaryDirectory() as folder:
        os.symlink(root, f"{folder}/data")
        os.symlink(f"{root}/bin/small.bin", f"{folder}/file")
        os.symlink(f"{folder}/data/bin", f"{folder}/second")
        listing = os.listdir(f"{folder}/data"), os.listdir(f"{folder}/second")
        content = [
            digest(pathlib.Path(f"{folder}/{name}").read_bytes())
            for name in ("file", "data/bin/small.bin", "second/large.bin")
        ]
        here = os.open(folder, os.O_RDONLY)
        inside = os.open("data/bin/small.bin", os.O_RDONLY, dir_fd=here)
        content.append(digest(os.read(inside, 1 << 20)))
        os.close(inside)
        os.close(here)
        return (
            listing,
            content,
            os.stat(f"{folder}/file").st_size,
            os.path.realpath(f"{folder}/second/small.bin"),
            os.path.exists(f"{folder}/data/no"),
            os.path.isdir(f"{folder}/data/bin"),
            sorted(glob.glob(f"{folder}/data/*"))
            == sorted(f"{folder}/data/{name}" for name in listing[0] if not name.startswith(".")),
        )


@case
def listings(root: str) -> Any:
    walked = [(base, folders, files) for base, folders, files in os.walk(root)]
    scanned = [
        (
            e.name,
            e.is_file(follow_symlinks=False),
            e.is_dir(follow_symlinks=False),
            e.is_symlink(),
            e.stat(follow_symlinks=False).st_size if e.name != "bin" and "." in e.name else 0,
        )
        for e in os.scandir(root)
    ]
    bytes_names = os.listdir(os.fsencode(root))
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    by_fd = os.listdir(fd), os.listdir(fd), [entry.name for entry in os.scandir(fd)]
    os.close(fd)
    return (
        walked,
        scanned,
        [name.hex() for name in bytes_names],
        by_fd,
        refusal(lambda: os.listdir(f"{root}/bin/small.bin")),
    )


@case
def fwalk(root: str) -> Any:
    return [
        (base, folders, files, len(os.stat(files[0], dir_fd=fd, follow_symlinks=False)) if files else 0)
        for base, folders, files, fd in os.fwalk(root)
    ]


@case
def globs(root: str) -> Any:
    found = glob.glob(f"{root}/**", recursive=True), sorted(map(str, pathlib.Path(root).rglob("*.bin")))
    library = ctypes.CDLL(None)
    buffer = (ctypes.c_size_t * 32)()
    code = library.glob(os.fsencode(f"{root}/bin/*.bin"), 0, None, buffer)
    names = ctypes.cast(buffer[1], ctypes.POINTER(ctypes.c_char_p))
    libc = [os.fsdecode(names[i] or b"") for i in range(buffer[0])]
    return found, code, libc


@case
def relative(root: str) -> Any:
    fd = os.open(f"{root}/bin", os.O_RDONLY | os.O_DIRECTORY)
    file = os.open("small.bin", os.O_RDONLY, dir_fd=fd)
    result = [
        digest(os.read(file, 1 << 20)),
        os.stat("large.bin", dir_fd=fd).st_size,
        os.stat("../link", dir_fd=fd).st_size,
        os.readlink("../link", dir_fd=fd),
        os.access("no", os.R_OK, dir_fd=fd),
        refusal(lambda: os.read(fd, 1)),
        refusal(lambda: os.open("x", os.O_RDONLY, dir_fd=file)),
        stat.S_ISDIR(os.fstat(fd).st_mode),
    ]
    os.close(fd)
    os.close(file)
    return result


@case
def current_directory(root: str) -> Any:
    before = os.getcwd()
    try:
        os.chdir(f"{root}/bin")
        result = [
            os.getcwd(),
            os.listdir("."),
            digest(pathlib.Path("small.bin").read_bytes()),
            os.path.abspath("x"),
            os.stat("../link").st_size,
            os.path.exists("no"),
            subprocess.check_output(["pwd"], text=True),
            subprocess.check_output("cat < small.bin | wc -c; cd ..; pwd", shell=True, text=True),
            subprocess.check_output(["cat", "small.bin"])[:9].hex(),
        ]
        fd = os.open("..", os.O_RDONLY)
        os.fchdir(fd)
        os.close(fd)
        result += [os.getcwd(), os.path.isfile("bin/small.bin")]
        os.chdir("..")
        result += [os.getcwd() == os.path.dirname(root), os.path.exists(os.path.basename(root) + "/bin")]
        result += [
            subprocess.check_output(["pwd"], text=True, cwd=f"{root}/bin"),
            os.getcwd() == os.path.dirname(root),
        ]
        result += [refusal(lambda: os.chdir(f"{root}/bin/small.bin")), refusal(lambda: os.chdir(f"{root}/no"))]
        return result
    finally:
        os.chdir(before)


@case
def file_systems(root: str) -> Any:
    a, b = os.statvfs(root), os.statvfs(f"{root}/bin/small.bin")
    with open(f"{root}/bin/small.bin", "rb") as file:
        c = os.statvfs(file.fileno())
    return a.f_namemax, a.f_bsize == b.f_bsize == c.f_bsize, refusal(lambda: os.statvfs(f"{root}/no"))


@case
def attributes(root: str) -> Any:
    path = f"{root}/bin/small.bin"
    with open(path, "rb") as file:
        return (
            os.listxattr(path),
            refusal(lambda: os.getxattr(path, "user.x")),
            refusal(lambda: os.getxattr(file.fileno(), "user.x")),
            os.listxattr(file.fileno()),
            refusal(lambda: os.getxattr(f"{root}/no", "user.x")),
        )


# --- libraries ---


@case
def numpy_load(root: str) -> Any:
    import numpy as np

    result = []
    for size in SIZES:
        for mode in (None, "r", "c"):
            array = np.load(f"{root}/np/{size}.npy", mmap_mode=mode)
            result.append((str(array.dtype), array.shape, digest(np.ascontiguousarray(array).tobytes())))
        result.append(digest(np.fromfile(f"{root}/bin/{size}.bin", np.uint8, count=1000, offset=33).tobytes()))
        with open(f"{root}/bin/{size}.bin", "rb") as file:
            file.read(10)
            result.append(digest(np.fromfile(file, np.uint8, count=1000).tobytes()))
            result.append(digest(file.read(50)))
        result.append(digest(np.memmap(f"{root}/bin/{size}.bin", np.uint8, "r", 10)[:100].tobytes()))
        with np.load(f"{root}/np/{size}.npz") as archive:
            result.append([(name, digest(archive[name].tobytes())) for name in archive.files])
    return result


@case
def pillow(root: str) -> Any:
    from PIL import Image

    result = []
    for suffix in ("png", "jpg", "tif", "bmp"):
        with Image.open(f"{root}/pictures/picture.{suffix}") as image:
            result.append((image.size, image.mode, digest(image.convert("RGB").tobytes())))
    return result


@case
def opencv(root: str) -> Any:
    import cv2

    return [
        digest(cv2.imread(f"{root}/pictures/picture.{suffix}").tobytes()) for suffix in ("png", "jpg", "tif", "bmp")
    ]


@case
def archives(root: str) -> Any:
    import gzip
    import tarfile
    import zipfile

    result = []
    with gzip.open(f"{root}/archives/a.gz") as file:
        result.append(digest(file.read()))
    with tarfile.open(f"{root}/archives/a.tar.gz") as tar:
        result += [(member.name, digest(tar.extractfile(member).read())) for member in tar if member.isfile()]
    with zipfile.ZipFile(f"{root}/archives/a.zip") as archive:
        result += [(name, digest(archive.read(name))) for name in archive.namelist()]
    return result


@case
def sqlite(root: str) -> Any:
    import sqlite3

    result = []
    for address in (f"file:{root}/tables/a.sqlite?mode=ro", f"file:{root}/tables/a.sqlite?immutable=1"):
        with sqlite3.connect(address, uri=True) as database:
            result.append(
                database.execute("select count(*), sum(n), group_concat(text) from t where n < 50").fetchall()
            )
            result.append(database.execute("pragma integrity_check").fetchall())
        database.close()
    return result


@case
def pandas(root: str) -> Any:
    import pandas as pd

    return [
        digest(pd.read_csv(f"{root}/tables/a.csv").to_csv().encode()),
        digest(pd.read_csv(f"{root}/tables/a.csv", memory_map=True).to_csv().encode()),
        digest(pd.read_parquet(f"{root}/tables/a.parquet").to_csv().encode()),
    ]


@case
def pyarrow(root: str) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pa.memory_map(f"{root}/bin/large.bin") as mapped, pa.OSFile(f"{root}/bin/large.bin") as file:
        parts = digest(mapped.read()), digest(file.read())
    return (
        parts,
        pq.read_table(f"{root}/tables/a.parquet").num_rows,
        pq.read_table(f"{root}/tables/a.parquet", memory_map=True).num_rows,
    )


@case
def hdf5(root: str) -> Any:
    import h5py

    with h5py.File(f"{root}/tables/a.h5", "r") as file:
        return digest(file["x"][:].tobytes()), digest(file["x"][5:9].tobytes())


@case
def lmdb(root: str) -> Any:
    import lmdb as database

    with (
        database.open(f"{root}/lmdb", readonly=True, lock=False) as environment,
        environment.begin() as transaction,
    ):
        return [(key, digest(value)) for key, value in transaction.cursor()]


@case
def safetensors(root: str) -> Any:
    from safetensors import safe_open

    with safe_open(f"{root}/tables/a.safetensors", framework="numpy") as file:
        return [(name, digest(file.get_tensor(name).tobytes())) for name in sorted(file.keys())]


@case
def tifffile(root: str) -> Any:
    import tifffile as tiff

    return digest(tiff.imread(f"{root}/pictures/picture.tif").tobytes()), digest(
        tiff.memmap(f"{root}/pictures/raw.tif", mode="r").tobytes()
    )


@case
def pickles(root: str) -> Any:
    with open(f"{root}/tables/a.pickle", "rb") as file:
        return pickle.load(file) == list(range(1000))


@case
def importing(root: str) -> Any:
    sys.path.insert(0, f"{root}/code")
    sys.dont_write_bytecode = True
    try:
        import sealed_module

        return sealed_module.VALUE, sealed_module.__file__
    finally:
        del sys.path[0]


# --- children ---


@case
def shells(root: str) -> Any:
    commands = [
        "cat < {0}/bin/small.bin | sha256sum",
        "sha256sum {0}/bin/*.bin",
        "sh -c 'cat < {0}/bin/large.bin' | sha256sum",
        "head -c 100 {0}/bin/large.bin | sha256sum",
        "tail -c 100 {0}/bin/large.bin | sha256sum",
        "wc -c < {0}/bin/large.bin",
        "ls -U {0}",
        "ls -lL --time-style=+%s {0}/bin | tail -n +2 | awk '{{print $1,$5,$6,$7}}'",
        "find {0} -name '*.bin' | sort",
        "cp -r {0}/bin $T/copy && sha256sum < $T/copy/large.bin",
        "tar cf - -C {0} bin | tar tf - | sort",
        "grep -c line {0}/text",
        "(read a; read b; echo $b; cat) < {0}/text | head -5",
        "while read line; do echo $line; done < {0}/text | head -3",
        "cmp {0}/bin/small.bin {0}/link && echo same",
        "stat -c '%s %F %a' {0}/bin/small.bin {0}/link",
        "diff {0}/text {0}/text && echo equal",
        "cat {0}/no",
        "cat {0}",
        "{0}/script",
        "sh {0}/script",
        "test -r {0}/text && echo readable",
        "readlink -f {0}/link",
        "sort {0}/text | head -3",
        "dd if={0}/bin/large.bin bs=1000 skip=3 count=2 2>/dev/null | sha256sum",
        "python3 -c 'print(len(open(\"{0}/text\").read()))' || true",
        "env -i /bin/cat {0}/text | head -1",
        "env -i /bin/sh -c 'cat < {0}/text' | head -1",
        "exec 5< {0}/text; head -c 5 <&5; cat /dev/fd/5 | head -2",
        "cat 7< {0}/text <&7 | head -1",
        "xargs -a {0}/text echo | sha256sum",
        "bash -c 'mapfile -t lines < {0}/text; echo ${{lines[1]}}'",
        "bash -c 'cat <(cat {0}/text)' | head -1",
        "du -a --apparent-size -b {0}/bin/small.bin",
        'perl -e \'open(F,"<{0}/text"); print scalar(<F>); print -s "{0}/text"\'',
    ]
    result = []
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            done = subprocess.run(
                command.format(root), shell=True, capture_output=True, env={**os.environ, "T": folder}, check=False
            )
            result.append((command, done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")))
    return result


@case
def inherited(root: str) -> Any:
    with open(f"{root}/text", "rb") as file:
        first = file.raw.read(10) if hasattr(file, "raw") else b""
        out = [subprocess.run(["head", "-c", "20"], stdin=file, capture_output=True, check=True).stdout]
        out.append(subprocess.run(["cat"], stdin=file, capture_output=True, check=True).stdout[:30])
    with open(f"{root}/text", "rb") as file:
        out.append(
            subprocess.run(
                ["sh", "-c", f"head -c 9 <&{file.fileno()}"],
                pass_fds=[file.fileno()],
                capture_output=True,
                check=True,
            ).stdout
        )
        out.append(subprocess.run(["cat"], stdin=file, capture_output=True, check=True, env={}).stdout[:30])
        out.append(
            subprocess.run(["cat"], stdin=file, capture_output=True, check=True, close_fds=False).stdout[:30]
        )
    return first, [data.hex() for data in out]


@case
def spawned(root: str) -> Any:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (program, environment) in enumerate(
            [(["cat"], os.environ), (["/bin/cat"], {}), (["sh", "-c", "cat"], os.environ)]
        ):
            out = f"{folder}/{number}"
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, f"{root}/text", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT, 0o600),
            ]
            pid = os.posix_spawnp(program[0], program, environment, file_actions=actions)
            results.append((os.waitpid(pid, 0)[1], digest(pathlib.Path(out).read_bytes())))
        pid = os.posix_spawn(
            f"{root}/script",
            ["script"],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, f"{folder}/s", 0o1101, 0o600)],
        )
        results.append((os.waitpid(pid, 0)[1], pathlib.Path(f"{folder}/s").read_text()))
    return results


@case
def close_storms(root: str) -> Any:
    """Children that close everything, while this process holds sealed files open."""
    with open(f"{root}/bin/large.bin", "rb") as file:
        head = digest(file.read(100_000))
        for _ in range(5):
            subprocess.run(["true"], close_fds=True, check=True)
        code = "import os; os.closerange(3, 5000); print(open('%s/text').readline(), end='')" % root
        closed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        code = f"import os,subprocess; os.closerange(3, 5000); print(subprocess.check_output(['cat', '{root}/text'])[:20])"
        again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        return head, digest(file.read()), closed.stdout, closed.stderr, again.stdout, again.stderr


@case
def popened(root: str) -> Any:
    library = ctypes.CDLL(None)
    with os.popen(f"wc -c < {root}/bin/large.bin") as pipe:
        count = pipe.read()
    return (
        count,
        library.system(os.fsencode(f"grep -q line {root}/text")),
        library.system(os.fsencode(f"test -e {root}/no")),
    )


@case
def pools(root: str) -> Any:
    import multiprocessing

    results = []
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            results.append(pool.map(read_digest, [f"{root}/bin/{size}.bin" for size in SIZES] * 3))
    return results


def read_digest(path: str) -> str:
    with open(path, "rb") as file:
        return digest(file.read())


# --- changing things: only sealed files refuse these, so the plain run says what is expected ---


def read_only(root: str) -> Any:
    file, folder, new = f"{root}/bin/small.bin", f"{root}/bin", f"{root}/bin/new"
    changes: list[Callable[[], Any]] = [
        lambda: open(file, "wb"),
        lambda: open(file, "r+b"),
        lambda: open(file, "ab"),
        lambda: open(new, "wb"),
        lambda: os.open(file, os.O_RDONLY | os.O_TRUNC),
        lambda: os.open(root, os.O_TMPFILE | os.O_RDWR),
        lambda: os.unlink(file),
        lambda: os.rmdir(f"{root}/empty"),
        lambda: os.mkdir(new),
        lambda: os.rename(file, new),
        lambda: os.symlink("x", new),
        lambda: os.chmod(file, 0o600),
        lambda: os.chown(file, 1, 1),
        lambda: os.utime(file),
        lambda: os.truncate(file, 0),
        lambda: os.mkfifo(new),
        lambda: os.mknod(new),
        lambda: os.setxattr(file, "user.x", b"1"),
        lambda: os.removexattr(file, "user.x"),
        lambda: os.rename(folder, f"{root}/other"),
        lambda: os.link(file, new),
        lambda: tempfile.TemporaryFile(dir=None) and os.open(f"{root}/x", os.O_CREAT | os.O_WRONLY),
    ]
    result = [refusal(change) for change in changes]
    result += [
        refusal(lambda: os.mkdir(folder)),
        refusal(lambda: os.open(file, os.O_CREAT | os.O_EXCL)),
        refusal(lambda: open(folder, "wb")),
        refusal(lambda: os.rename(file, "/tmp/elsewhere")),
        refusal(lambda: os.mkdir(f"{root}/no/such")),
        os.access(file, os.W_OK),
    ]
    with tempfile.TemporaryDirectory() as outside:
        os.symlink(root, f"{outside}/data")
        result += [
            refusal(lambda: open(f"{outside}/data/new", "w")),
            refusal(lambda: os.mkdir(f"{outside}/data/new")),
            refusal(lambda: os.rename(f"{outside}/data/bin", f"{outside}/data/x")),
            refusal(lambda: open(f"{outside}/data/bin/new", "w")),
            refusal(lambda: shutil.copy(file, f"{outside}/data/new")),
            refusal(lambda: os.unlink(f"{outside}/data/link")),
        ]
    return result


EXPECTED_READ_ONLY = ["EROFS"] * 22 + ["EEXIST", "EEXIST", "EISDIR", "EXDEV", "ENOENT", False] + ["EROFS"] * 6
CASES["read_only"] = lambda root: read_only(root) if os.environ.get("PROBE_SEALED") else EXPECTED_READ_ONLY


def main() -> None:
    root, *wanted = sys.argv[1:]
    results = {}
    for name in wanted or CASES:
        try:
            value = CASES[name](root)
        except Exception as error:
            value = f"{type(error).__name__}: {error}"
        results[name] = json.loads(json.dumps(value, default=str).replace(root, "ROOT"))
        print(name, file=sys.stderr, flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
