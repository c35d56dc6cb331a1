# ruff: noqa: PT017 - long tables; what is caught is one of several allowed outcomes
"""The core against the Python reader: the same bytes, names, order, links and refusals."""

from __future__ import annotations

import errno
import hashlib
import random
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.conftest import Sealed, seal
from runtime.core import Core, opened
from sealfs.dataset.keyring import DatasetKeys
from sealfs.floe import HEADER_SIZE
from sealfs.opening import CacheSettings, open_view
from sealfs.vfs import WHOLE_FILE_LIMIT, View


@pytest.fixture(scope="module", params=[4096, 64 << 10], ids=["4 KiB segments", "64 KiB segments"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, plain: Path) -> Sealed:
    return seal(tmp_path_factory.mktemp("core"), plain, segment_length=request.param)


def view_of(sealed: Sealed) -> View:
    dataset, keys, _ = sealed.opened()
    return open_view(dataset, keys, CacheSettings())[0]


def read(view: View, number: int, size: int, offset: int) -> bytes:
    out = bytearray(size)
    return bytes(out[: view.read_into(number, offset, memoryview(out))])


@pytest.mark.parametrize("cache", [1, 100_000, 64 << 20])
def test_same_tree_and_bytes(both: Sealed, library: Path, cache: int) -> None:
    _, keys, index = both.opened()
    view = view_of(both)
    with opened(library, both.store, index, keys, cache) as core:
        for number in index.walk():
            path, entry = index.path(number), index.entry(number)
            assert core.lookup(path) == number
            assert core.path(number) == path
            if entry.is_directory:
                expected = [(name, child, index.entry(child).mode) for name, child in view.list(number)]
                assert list(core.list(number)) == expected
                with pytest.raises(OSError, match="directory") as caught:
                    core.pread(number, 1, 0)
                assert caught.value.errno == errno.EISDIR
            elif entry.is_symlink:
                assert core.readlink(number) == view.readlink(number)
            else:
                rng = random.Random(number)
                ranges = [
                    (0, entry.size),
                    (0, 1),
                    (entry.size, 9),
                    (entry.size + 5, 1),
                    (max(0, entry.size - 7), 100),
                ]
                ranges += [(rng.randrange(entry.size + 1), rng.randrange(200_000)) for _ in range(6)]
                for offset, size in ranges:
                    assert core.pread(number, size, offset) == read(view, number, size, offset)
                core.prepare(number)
    view.close()


def test_names_that_are_not_there(both: Sealed, library: Path) -> None:
    _, keys, index = both.opened()
    with opened(library, both.store, index, keys) as core:
        for path, number in (
            (b"no", errno.ENOENT),
            (b"bin/no", errno.ENOENT),
            (b"text/x", errno.ENOTDIR),
            (b"link/x", errno.ENOTDIR),
        ):
            with pytest.raises(OSError) as caught:  # noqa: PT011
                core.lookup(path)
            assert caught.value.errno == number
        assert core.lookup(b"/bin//./small.bin/") == index.resolve(b"bin/small.bin")
        assert core.failure is None


STREAM = """
import hashlib, os, sys
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
buffer, digest = memoryview(bytearray(int(sys.argv[1]))), hashlib.sha256()
with open(M + "/large", "rb", buffering=0) as file:
    digest.update(buffer[: file.readinto(buffer)])
    before = resident()
    while count := file.readinto(buffer):
        digest.update(buffer[:count])
print(resident() - before, digest.hexdigest())
"""


def test_streaming_a_large_file_takes_no_more_memory_on_the_way(tmp_path: Path, library: Path) -> None:
    """Each piece ends within a segment that the next one begins with: once it has, that segment is done with."""
    (tmp_path / "plain").mkdir()
    content = random.Random(1).randbytes(64 << 20)
    (tmp_path / "plain" / "large").write_bytes(content)
    sealed = seal(tmp_path, tmp_path / "plain")
    for piece in (1 << 20, 200_000):
        done = sealed.python(STREAM, piece)
        growth, digest = done.stdout.split()
        assert digest == hashlib.sha256(content).hexdigest(), done.stderr
        assert int(growth) < 1 << 20, f"{growth} bytes more, in pieces of {piece}"


def test_threads(both: Sealed, library: Path) -> None:
    _, keys, index = both.opened()
    number = index.resolve(b"bin/large.bin")
    content = (both.plain / "bin/large.bin").read_bytes()
    with opened(library, both.store, index, keys, cache=300_000) as core, ThreadPoolExecutor(8) as pool:

        def check(seed: int) -> bool:
            rng = random.Random(seed)
            offset, size = rng.randrange(len(content)), rng.randrange(300_000)
            return core.pread(number, size, offset) == content[offset : offset + size]

        assert all(pool.map(check, range(300)))


def damaged(both: Sealed, tmp_path: Path, change: str) -> tuple[Path, int]:
    """A copy of the store in which one pack is bad; returns it and the small file that lies in that pack."""
    _, _, index = both.opened()
    store = tmp_path / "store"
    shutil.copytree(both.store, store)
    number = index.resolve(b"bin/small.bin")
    extent = index.extents(number)[0]
    pack = index.pack(extent.pack)
    path = store / pack.name
    data = bytearray(path.read_bytes())
    room = pack.layout.segment_length - 32
    place = HEADER_SIZE + (extent.offset + 100) // room * pack.layout.segment_length
    if change == "flip":
        data[place + 40] ^= 1
    elif change == "cut":
        del data[place + 100 :]
    elif change == "swap":
        length = pack.layout.segment_length
        other = HEADER_SIZE if place != HEADER_SIZE else HEADER_SIZE + length
        data[place : place + length], data[other : other + length] = (
            data[other : other + length],
            data[place : place + length],
        )
    elif change == "missing":
        path.unlink()
        return store, number
    elif change == "folder":
        path.unlink()
        path.mkdir()
        return store, number
    path.write_bytes(data)
    return store, number


@pytest.mark.parametrize("change", ["flip", "cut", "swap", "missing", "folder"])
def test_damage_is_found_and_poisons(both: Sealed, library: Path, tmp_path: Path, change: str) -> None:
    store, number = damaged(both, tmp_path, change)
    _, keys, index = both.opened()
    with opened(library, store, index, keys) as core:
        for attempt in (
            lambda: core.prepare(number),
            lambda: core.pread(number, 10, 0),
            lambda: core.lookup(b"text"),
        ):
            with pytest.raises(OSError) as caught:  # noqa: PT011
                attempt()
            assert caught.value.errno == errno.EIO
        assert core.failure == "'bin/small.bin' is not what the provider sealed"


def test_no_byte_of_a_small_file_before_all_is_authenticated(both: Sealed, library: Path, tmp_path: Path) -> None:
    store, number = damaged(both, tmp_path, "flip")
    _, keys, index = both.opened()
    with opened(library, store, index, keys) as core, pytest.raises(OSError, match="Input/output"):
        core.pread(number, 1, index.entry(number).size - 1)


def test_wrong_keys(both: Sealed, library: Path) -> None:
    _, keys, index = both.opened()
    wrong = DatasetKeys.generate(keys.dataset)
    with opened(library, both.store, index, wrong) as core, pytest.raises(OSError, match="Input/output"):
        core.prepare(index.resolve(b"text"))
    core = Core(library, both.store, bytes(index.data), keys, set())
    with pytest.raises(OSError, match="Input/output"):
        core.pread(index.resolve(b"text"), 5, 0)
    core.close()


def test_changed_index_never_crashes(both: Sealed, library: Path) -> None:
    """Any byte of the header and of the columns may be anything: refusals, or answers as Python gives them."""
    _, keys, index = both.opened()
    rng = random.Random(5)
    data = bytes(index.data)
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 3, 30))):
            changed[rng.randrange(len(changed))] = rng.choice((0, 1, 0x7F, 0xFF, rng.randrange(256)))
        if rng.random() < 0.1:
            del changed[rng.randrange(len(changed)) :]
        try:
            core = Core(library, both.store, bytes(changed), keys, {1})
        except OSError as error:
            assert error.errno == errno.EIO
            continue
        pending = [0]
        seen = 0
        while pending and seen < 300:
            number = pending.pop()
            seen += 1
            try:
                items = list(core.list(number))
                pending += [entry for _, entry, mode in items if stat.S_ISDIR(mode)]
                for name, entry, mode in items[:20]:
                    core.path(entry)
                    if stat.S_ISREG(mode):
                        core.pread(entry, 100, 0)
                    assert b"/" not in name
            except OSError as error:
                assert error.errno in (errno.EIO, errno.ENOTDIR, errno.ERANGE, errno.EINVAL)
                break
        core.close()


def test_limit_is_the_same_as_in_python() -> None:
    header = (Path(__file__).parents[2] / "runtime/include/sealfs.h").read_text()
    assert f"SEALFS_DEFAULT_WHOLE_FILE_LIMIT ({WHOLE_FILE_LIMIT >> 20}u << 20)" in header
