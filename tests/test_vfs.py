"""The view: reads equal slices, small files are whole or nothing, and one bad segment ends everything."""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from dataset.tools import push, read, state_of_folder, state_of_view
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.index import HOLE, Index
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.reader import PackReader
from sealfs.dataset.trust import TrustStore
from sealfs.errors import IntegrityError, NotADatasetError, ObjectNotFoundError, StoreError
from sealfs.keys import Identity
from sealfs.store.local import LocalStore
from sealfs.vfs import View

SEGMENT = 512
ROOM = SEGMENT - 32
LIMIT = 4 * ROOM  # of what is authenticated whole


class Source:
    """Ciphertext from a store, with changes on the way and a count of what was asked for."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store
        self.change: Callable[[str, int, memoryview], None] = lambda name, offset, buffer: None
        self.reads = 0
        self.prefetched: list[tuple[str, int, int]] = []
        self.closed = False

    def read_into(self, name: str, size: int, offset: int, buffer: memoryview) -> None:
        assert 0 <= offset <= offset + len(buffer) <= size
        self.reads += 1
        self.store.read_into(name, offset, buffer)
        self.change(name, offset, buffer)

    def prefetch(self, name: str, size: int, offset: int, length: int) -> None:
        assert offset < size
        self.prefetched.append((name, offset, length))

    def discard(self, name: str, offset: int, length: int) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


@dataclass
class Made:
    store: LocalStore
    index: Index
    keys: DatasetKeys
    files: dict[bytes, bytes]
    source: Path

    def view(self, *, segments: int = 0, whole: int = 0, limit: int = LIMIT) -> tuple[View, Source]:
        source = Source(self.store)
        packs = PackReader(self.index, self.keys, source, segments)
        return View(self.index, packs, whole_file_cache=whole, whole_file_limit=limit), source


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    top = tmp_path_factory.mktemp("view")
    source = top / "source"
    source.mkdir()
    contents = {b"empty": b"", b"one": b"1", b"limit": os.urandom(LIMIT), b"over": os.urandom(LIMIT + 1)}
    contents |= {b"small%d" % n: os.urandom(100 + 97 * n) for n in range(12)}
    contents |= {b"big": os.urandom(40 * ROOM + 17), b"even": os.urandom(20 * ROOM)}
    for name, data in contents.items():
        (source / name.decode()).write_bytes(data)
    with (source / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(1 << 20)
        file.write(b"middle" * 1000)
        file.truncate((2 << 20) + 7)
    contents[b"sparse"] = (source / "sparse").read_bytes()
    (source / "link").symlink_to("one")
    (source / "folder").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(top / "state"))
        patch.setattr("sealfs.dataset.packer.PACK_SIZE", 8 * SEGMENT)
        store, identity, trust = LocalStore(top / "store"), Identity.generate(), TrustStore(top / "trust")
        push(source, store, identity, trust, segment_length=SEGMENT)
    dataset = Dataset.open(store, trust)
    keys = dataset.keys(identity)
    yield Made(store, dataset.index(keys), keys, contents, source)
    store.close()


def flip(name: str, place: int) -> Callable[[str, int, memoryview], None]:
    """A change of one ciphertext byte at `place` of an object."""

    def change(found: str, offset: int, buffer: memoryview) -> None:
        if found == name and offset <= place < offset + len(buffer):
            buffer[place - offset] ^= 1

    return change


def segment_at(made: Made, path: bytes, offset: int) -> tuple[str, int, int]:
    """Object, a place in its ciphertext within the segment that holds this byte, and where that segment starts."""
    number = made.index.resolve(path)
    at = 0
    for extent in made.index.extents(number):
        if offset < at + extent.length:
            assert extent.pack != HOLE
            pack = made.index.pack(extent.pack)
            inside = extent.offset + offset - at
            start, _ = pack.layout.segment_range(inside // ROOM)
            return pack.name, start + 30, at + max(0, inside // ROOM * ROOM - extent.offset)
        at += extent.length
    raise AssertionError


# --- right bytes ---


def test_the_view_is_the_folder(made: Made) -> None:
    view, source = made.view()
    assert list(state_of_view(view).items()) == list(state_of_folder(made.source).items())
    view.close()
    assert source.closed


@pytest.mark.parametrize("caches", [0, 5 * ROOM, 1 << 20])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_reads_equal_slices(made: Made, caches: int, data: st.DataObject) -> None:
    view, _ = made.view(segments=caches, whole=caches, limit=data.draw(st.sampled_from([0, 1, LIMIT, 1 << 30])))
    for _ in range(data.draw(st.integers(1, 12))):
        name = data.draw(st.sampled_from(sorted(made.files)))
        content = made.files[name]
        places = st.integers(0, len(content) + 10) | st.integers(0, 5).map(lambda n: n * ROOM)
        offset, size = data.draw(places), data.draw(st.integers(0, 5000))
        assert read(view, view.lookup(name), offset, size) == content[offset : offset + size]


@pytest.mark.parametrize("step", [1, 7, ROOM - 1, ROOM, ROOM + 1, 4096])
@pytest.mark.parametrize("name", [b"big", b"limit", b"even", b"small3"])
def test_sequential_reads_add_up(made: Made, name: bytes, step: int) -> None:
    view, _ = made.view(segments=2 * ROOM, whole=0)
    number, content = view.lookup(name), made.files[name][: 300 * step]
    found = b"".join(read(view, number, offset, step) for offset in range(0, len(content), step))
    assert found[: len(content)] == content


def test_a_buffer_larger_than_the_file_is_not_touched_beyond_it(made: Made) -> None:
    view, _ = made.view()
    for name, content in made.files.items():
        if len(content) < 1 << 16:
            out = bytearray(b"\xaa" * (len(content) + 50))
            assert view.read_into(view.lookup(name), 0, memoryview(out)) == len(content)
            assert out == content + b"\xaa" * 50


def test_threads_read_what_one_does(made: Made) -> None:
    view, _ = made.view(segments=3 * ROOM, whole=3 * ROOM)
    wrong: list[object] = []

    def hammer(seed: int) -> None:
        for step in range(250):
            name = sorted(made.files)[(seed * 31 + step * 7) % len(made.files)]
            content = made.files[name]
            offset = (seed * 1009 + step * 977) % (len(content) + 1)
            try:
                if read(view, view.lookup(name), offset, 1500) != content[offset : offset + 1500]:
                    wrong.append((name, offset))
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert view.counters.reads > 1500
    assert view.counters.errors == 0


# --- how much is kept and read ---


def test_a_small_file_is_fetched_once_while_it_is_cached(made: Made) -> None:
    view, source = made.view(whole=1 << 20)
    number = view.lookup(b"limit")
    read(view, number, 10, 5)
    once = source.reads
    for offset in range(0, LIMIT, 100):
        read(view, number, offset, 100)
    assert source.reads == once


def test_the_caches_never_hold_more_than_they_may(made: Made) -> None:
    view, _ = made.view(segments=3 * ROOM + 5, whole=LIMIT)
    for name, content in made.files.items():
        for offset in range(0, min(len(content), 1 << 16), 333):
            read(view, view.lookup(name), offset, 10)
            assert view._whole.size <= LIMIT
            assert view._packs._segments.size <= 3 * ROOM + 5  # type: ignore[attr-defined]
    view.close()
    assert view._whole.size == 0
    assert view._packs._segments.size == 0  # type: ignore[attr-defined]


def test_sequential_reading_asks_ahead_and_random_reading_does_not(made: Made) -> None:
    view, source = made.view(limit=0)
    number = view.lookup(b"big")
    for offset in range(0, 10 * ROOM, ROOM):
        read(view, number, offset, ROOM)
    assert len(source.prefetched) >= 5
    reader = PackReader(made.index, made.keys, source, 0)
    source.prefetched.clear()
    pack = made.index.extents(number)[0].pack
    for offset in (3 * ROOM, 1 * ROOM, 5 * ROOM, 2 * ROOM):
        reader.read_into(pack, offset, memoryview(bytearray(10)))
    assert source.prefetched == []


# --- fails closed ---


@pytest.mark.error_logs
@pytest.mark.parametrize("touch", [0, 1, LIMIT - 1])
@pytest.mark.parametrize("bad", [0, 1, 2, 3])
def test_of_a_small_file_not_a_byte_is_served_when_any_of_it_is_bad(made: Made, touch: int, bad: int) -> None:
    view, source = made.view()
    name, place, _ = segment_at(made, b"limit", bad * ROOM)
    source.change = flip(name, place)
    out = bytearray(b"\xaa")
    with pytest.raises(IntegrityError, match="limit"):
        view.read_into(view.lookup(b"limit"), touch, memoryview(out))
    assert out == b"\xaa"


@pytest.mark.error_logs
@pytest.mark.parametrize("bad", [0, 3 * ROOM, 20 * ROOM + 100, 40 * ROOM + 16])
def test_in_a_big_file_what_comes_before_the_bad_segment_is_right_and_nothing_comes_after(
    made: Made, bad: int, caplog: pytest.LogCaptureFixture
) -> None:
    view, source = made.view()
    told: list[str] = []
    view.on_poison(told.append)
    number, other, content = view.lookup(b"big"), view.lookup(b"one"), made.files[b"big"]
    name, place, start = segment_at(made, b"big", bad)
    source.change = flip(name, place)
    for offset in range(0, start, 100):
        size = min(100, start - offset)
        assert read(view, number, offset, size) == content[offset : offset + size]
    assert told == []
    with caplog.at_level(logging.CRITICAL), pytest.raises(IntegrityError, match=r"big: packs/"):
        read(view, number, bad, 1)
    assert len(told) == 1
    assert "big" in told[0]
    assert [record.levelname for record in caplog.records] == ["CRITICAL"]
    source.change = lambda name, offset, buffer: None  # the store is well again: too late
    for call in (
        lambda: read(view, number, 0, 1),
        lambda: view.read_into(other, 0, memoryview(bytearray(1))),
        lambda: view.lookup(b"one"),
        lambda: view.lookup(b"no such file"),
        lambda: view.entry(0),
        lambda: view.list(0),
        lambda: view.readlink(number),
        view.check,
    ):
        with pytest.raises(IntegrityError, match="big") as caught:
            call()
        assert caught.value.errno == errno.EIO
    assert len(told) == 1
    assert view.counters.errors >= 9


@pytest.mark.error_logs
def test_a_small_file_that_was_authenticated_once_is_authenticated_again(made: Made) -> None:
    view, source = made.view(whole=LIMIT)
    number = view.lookup(b"limit")
    read(view, number, 0, 1)
    for name in sorted(made.files):  # pushes it out of the cache
        read(view, view.lookup(name), 0, 1)
    name, place, _ = segment_at(made, b"limit", 2 * ROOM)
    source.change = flip(name, place)
    with pytest.raises(IntegrityError):
        read(view, number, 2 * ROOM, 10)
    assert view.poisoned


@pytest.mark.error_logs
@pytest.mark.parametrize("loss", [ObjectNotFoundError("gone")])
def test_a_missing_object_poisons(made: Made, loss: Exception) -> None:
    view, source = made.view()

    def lose(name: str, offset: int, buffer: memoryview) -> None:
        raise loss

    source.change = lose
    with pytest.raises(IntegrityError, match="missing from the store"):
        read(view, view.lookup(b"big"), 0, 10)
    assert view.poisoned


def test_a_store_that_is_away_does_not_poison(made: Made) -> None:
    view, source = made.view()

    def away(name: str, offset: int, buffer: memoryview) -> None:
        raise StoreError("the store is away")

    source.change = away
    for name in (b"big", b"limit", b"small1"):
        with pytest.raises(StoreError):
            read(view, view.lookup(name), 0, 10)
    assert view.poisoned is None
    source.change = lambda name, offset, buffer: None
    for name in (b"big", b"limit", b"small1"):
        assert read(view, view.lookup(name), 0, 10) == made.files[name][:10]


@pytest.mark.error_logs
def test_of_many_threads_that_hit_bad_segments_the_listener_hears_once(made: Made) -> None:
    view, source = made.view()
    told: list[str] = []
    view.on_poison(told.append)
    numbers = [view.lookup(name) for name in (b"big", b"even", b"limit", b"over")]

    def spoil(name: str, offset: int, buffer: memoryview) -> None:
        buffer[-1] ^= 1

    source.change = spoil
    gate, served = threading.Barrier(8), []

    def hammer(seed: int) -> None:
        gate.wait()
        for step in range(20):
            try:
                read(view, numbers[(seed + step) % 4], step, 10)
                served.append(step)
            except IntegrityError:
                pass

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 1
    assert served == []


def test_what_is_not_there_does_not_poison(made: Made) -> None:
    view, _ = made.view()
    for path in (b"nothing", b"one/below", b"link/below", b"folder/nothing", b"\xff"):
        with pytest.raises(NotADatasetError) as caught:
            view.lookup(path)
        assert caught.value.errno == errno.ENOENT
    with pytest.raises(OSError, match="symbolic link"):
        view.readlink(view.lookup(b"one"))
    assert view.poisoned is None
    assert view.readlink(view.lookup(b"link")) == b"one"
