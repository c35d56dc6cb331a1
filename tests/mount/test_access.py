"""The ways in which loaders get at files, from traces of PaddleSeg, PaddleClas, PaddleRec and 57 library calls."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import multiprocessing
import os
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from commands import Sealfs, mounted, python

SIZE = 9_000_001  # above the limit up to which files are authenticated whole, and no multiple of anything


@pytest.fixture(scope="module")
def source(provider: Sealfs) -> Path:
    top = provider.home / "source"
    top.mkdir()
    (top / "big.bin").write_bytes(random.Random(1).randbytes(SIZE))
    (top / "small.bin").write_bytes(random.Random(2).randbytes(10_001))
    (top / "empty").touch()
    np.save(top / "array.npy", np.arange(300_000, dtype=np.float32).reshape(300, 1000))
    with contextlib.closing(sqlite3.connect(top / "table.sqlite")) as database:
        database.execute("create table samples (id integer primary key, label text)")
        database.executemany("insert into samples values (?, ?)", [(i, f"label {i}") for i in range(2000)])
        database.commit()
    (top / "link").symlink_to("small.bin")
    (top / "folder").mkdir()
    return top


@pytest.fixture(scope="module")
def tree(source: Path, provider: Sealfs) -> Iterator[Path]:
    store = provider.home / "store"
    provider("push", source, store)
    with mounted(provider, store, provider.home / "mnt") as mount:
        yield mount.path


@pytest.mark.parametrize("name", ["big.bin", "small.bin"])
@pytest.mark.parametrize("flags", [mmap.MAP_SHARED, mmap.MAP_PRIVATE])
def test_mmap(tree: Path, source: Path, name: str, flags: int) -> None:
    content = (source / name).read_bytes()
    with (tree / name).open("rb") as file, mmap.mmap(file.fileno(), 0, flags, mmap.PROT_READ) as area:
        for offset in (len(content) - 1, 0, 4095, len(content) // 2):
            assert area[offset : offset + 70_000] == content[offset : offset + 70_000]
        assert area.find(content[-100:]) == len(content) - 100


def test_private_mmap_may_be_written_and_changes_nothing(tree: Path, source: Path) -> None:
    protection = mmap.PROT_READ | mmap.PROT_WRITE
    with (tree / "small.bin").open("rb") as file:
        with mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, protection) as area:
            area[:5] = b"mine!"
            assert area[:5] == b"mine!"
        with pytest.raises(PermissionError):
            mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, protection)
    assert (tree / "small.bin").read_bytes() == (source / "small.bin").read_bytes()


@pytest.mark.parametrize("mode", ["r", "c"])
def test_numpy_mmap_mode(tree: Path, mode: str) -> None:
    array = np.load(tree / "array.npy", mmap_mode=mode)
    assert array[299, 999] == 299_999
    assert array[::7, ::13].sum() == np.arange(300_000, dtype=np.float32).reshape(300, 1000)[::7, ::13].sum()
    if mode == "c":
        array[0, 0] = -1
        assert np.load(tree / "array.npy")[0, 0] == 0


def test_numpy_fromfile(tree: Path, source: Path) -> None:
    assert np.fromfile(tree / "big.bin", np.uint8).tobytes() == (source / "big.bin").read_bytes()


@pytest.mark.parametrize(
    "deed",
    [
        lambda top: (top / "new").write_text("x"),
        lambda top: (top / "small.bin").unlink(),
        lambda top: (top / "folder").rmdir(),
        lambda top: (top / "new").mkdir(),
        lambda top: (top / "small.bin").rename(top / "other"),
        lambda top: (top / "small.bin").chmod(0o600),
        lambda top: os.chown(top / "small.bin", 1, 1),
        lambda top: os.utime(top / "small.bin"),
        lambda top: os.truncate(top / "small.bin", 0),
        lambda top: os.close(os.open(top / "small.bin", os.O_RDWR)),
        lambda top: os.close(os.open(top / "small.bin", os.O_WRONLY | os.O_TRUNC)),
        lambda top: os.close(os.open(top / "small.bin", os.O_RDONLY | os.O_TRUNC)),
        lambda top: os.close(os.open(top / "small.bin", os.O_WRONLY | os.O_APPEND)),
        lambda top: os.symlink("x", top / "new"),
        lambda top: os.link(top / "small.bin", top / "new"),
        lambda top: os.mkfifo(top / "new"),
        lambda top: os.setxattr(top / "small.bin", "user.x", b"x"),
    ],
)
def test_writers_are_told_that_it_is_read_only(tree: Path, source: Path, deed: object) -> None:
    assert callable(deed)
    with pytest.raises(OSError, match="Read-only") as caught:
        deed(tree)
    assert caught.value.errno == errno.EROFS
    assert sorted(os.listdir(tree)) == sorted(os.listdir(source))


def test_xattrs_are_not_supported(tree: Path) -> None:
    for name in ("user.x", "security.capability", "trusted.x"):
        with pytest.raises(OSError, match="Operation not supported") as caught:
            os.getxattr(tree / "small.bin", name)
        assert caught.value.errno == errno.ENOTSUP


def test_what_is_not_there(tree: Path) -> None:
    for path in ("nothing", "folder/nothing", "small.bin/nothing", "link/nothing"):
        for _ in range(2):  # the second answer is the kernel's own
            with pytest.raises(OSError, match=r"No such file|Not a directory"):
                (tree / path).stat()
    with pytest.raises(IsADirectoryError):
        (tree / "folder").read_bytes()
    with pytest.raises(OSError, match="Invalid argument"):
        os.readlink(tree / "small.bin")
    with pytest.raises(OSError, match=r"File name too long|No such file"):
        (tree / ("x" * 256)).stat()


def test_locks_are_the_kernels(tree: Path) -> None:
    other = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
try:
    getattr(fcntl, sys.argv[2])(descriptor, int(sys.argv[3]) | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(17)
"""

    def taken_by_other(call: str, operation: int) -> bool:
        code = subprocess.run(python(other, tree / "small.bin", call, operation), check=False).returncode
        assert code in {0, 17}
        return code == 17

    for call in ("flock", "lockf"):
        with (tree / "small.bin").open("rb") as file:
            getattr(fcntl, call)(file, fcntl.LOCK_SH)
            assert not taken_by_other(call, fcntl.LOCK_SH)
            if call == "flock":  # POSIX write locks want a file opened for writing
                fcntl.flock(file, fcntl.LOCK_EX)
                assert taken_by_other(call, fcntl.LOCK_SH)
        assert not taken_by_other(call, fcntl.LOCK_SH)


def test_sqlite(tree: Path) -> None:
    with contextlib.closing(sqlite3.connect(f"file:{tree}/table.sqlite?mode=ro", uri=True)) as database:
        assert database.execute("select count(*), max(label) from samples").fetchone() == (2000, "label 999")
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            database.execute("insert into samples values (-1, 'x')")


def test_descriptors_duplicated_and_closed_again_and_again(tree: Path, source: Path) -> None:
    content = (source / "small.bin").read_bytes()
    for _ in range(50):  # cv2.imread opens each image twice, and each close is a flush
        first = os.open(tree / "small.bin", os.O_RDONLY)
        second, third = os.dup(first), os.open(tree / "small.bin", os.O_RDONLY)
        assert os.read(first, 10) == content[:10]
        os.close(first)
        assert os.read(second, 10) == content[10:20]  # it shares the offset
        os.fsync(second)
        os.close(second)
        assert os.read(third, 10) == content[:10]
        os.close(third)


def _checksums(path: str, seed: int) -> int:
    with open(path, "rb") as file:
        total = 0
        for offset in random.Random(seed).sample(range(SIZE), 30):
            file.seek(offset)
            total += sum(file.read(3000))
        return total


def test_forked_workers(tree: Path, source: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        found = pool.starmap(_checksums, [(str(tree / "big.bin"), seed) for seed in range(8)])
    assert found == [_checksums(str(source / "big.bin"), seed) for seed in range(8)]


def test_a_descriptor_inherited_by_a_child(tree: Path, source: Path) -> None:
    content = (source / "big.bin").read_bytes()
    with (tree / "big.bin").open("rb") as file:
        file.seek(SIZE - 1000)
        told = subprocess.run(["cat"], stdin=file, stdout=subprocess.PIPE, check=True).stdout
    assert told == content[-1000:]


@pytest.mark.parametrize("command", ["cat < {}", "cat {}", "dd if={} bs=64k status=none", "tail -c +1 {}"])
def test_shell_commands(tree: Path, source: Path, command: str) -> None:
    for name in ("big.bin", "small.bin", "empty", "link"):
        done = subprocess.run(["sh", "-c", command.format(tree / name)], stdout=subprocess.PIPE, check=True)
        assert done.stdout == (source / name).read_bytes()


@pytest.mark.parametrize("way", ["sendfile", "splice"])
def test_copied_by_the_kernel(tree: Path, source: Path, tmp_path: Path, way: str) -> None:
    with (tree / "big.bin").open("rb") as file, (tmp_path / "copy").open("wb") as copy:
        position = 0
        while position < SIZE:
            if way == "sendfile":
                position += os.sendfile(copy.fileno(), file.fileno(), position, SIZE - position)
            else:
                position += _splice(file.fileno(), copy.fileno(), position)
    assert (tmp_path / "copy").read_bytes() == (source / "big.bin").read_bytes()


def _splice(source: int, target: int, position: int) -> int:
    reader, writer = os.pipe()
    try:
        count = left = os.splice(source, writer, min(SIZE - position, 65536), offset_src=position)
        while left:
            left -= os.splice(reader, target, left)
        return count
    finally:
        os.close(reader)
        os.close(writer)


def test_copied_by_cp(tree: Path, source: Path, tmp_path: Path) -> None:
    """It tries copy_file_range, and has to find out that it can't."""
    subprocess.run(["cp", "-a", tree / "big.bin", tmp_path / "copy"], check=True)
    assert (tmp_path / "copy").read_bytes() == (source / "big.bin").read_bytes()
    assert (tmp_path / "copy").stat().st_mtime_ns == (source / "big.bin").stat().st_mtime_ns


def test_direct_io_gives_no_wrong_bytes(tree: Path, source: Path) -> None:
    content = (source / "big.bin").read_bytes()
    descriptor = os.open(tree / "big.bin", os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, 1 << 20) as aligned:
            for offset in (0, 4096, 5 << 20, SIZE - SIZE % 4096):
                count = os.preadv(descriptor, [aligned], offset)
                assert aligned[:count] == content[offset : offset + (1 << 20)]
    finally:
        os.close(descriptor)


def test_small_files_stay_right_when_the_page_cache_is_dropped(tree: Path, source: Path) -> None:
    content = (source / "small.bin").read_bytes()
    with (tree / "small.bin").open("rb") as file:
        for offset in (9000, 0, 4096, 8192, 9000):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert os.pread(file.fileno(), 500, offset) == content[offset : offset + 500]


def test_permissions_are_the_providers(tree: Path) -> None:
    """default_permissions: the kernel checks modes; the files belong to who mounted them."""
    status = (tree / "small.bin").stat()
    assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    assert os.access(tree / "small.bin", os.R_OK)
    assert not os.access(tree / "small.bin", os.W_OK)


def test_other_users_may_not_look_in_unless_allowed(tree: Path, provider: Sealfs, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can become another user")

    def as_nobody(folder: Path) -> subprocess.CompletedProcess[bytes]:
        command = ["cat", "small.bin"]  # in a working folder inherited from root: the way there is private
        return subprocess.run(command, cwd=folder, user=65534, group=65534, capture_output=True, check=False)

    with mounted(provider, provider.home / "store", tmp_path / "open", "--allow-other") as mount:
        assert len(as_nobody(mount.path).stdout) == 10_001
    refused = as_nobody(tree)
    assert refused.returncode != 0
    assert b"Permission denied" in refused.stderr
