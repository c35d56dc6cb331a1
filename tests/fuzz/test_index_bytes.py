"""An index of hostile bytes: errors of ours or right answers, never anything else, never a hang."""

from __future__ import annotations

import stat
import tracemalloc
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from sealfs.dataset.index import HEADER_BYTES, HOLE, ROOT, Extent, Index
from sealfs.dataset.index_builder import IndexBuilder
from sealfs.errors import FormatError, IntegrityError, NotADatasetError
from sealfs.floe import Encryptor

DATASET = bytes(16)
OURS = (IntegrityError, FormatError, NotADatasetError)


def _valid() -> bytes:
    builder = IndexBuilder(stat.S_IFDIR | 0o755, 1)
    pack = builder.add_pack(bytes(24), Encryptor(bytes(32), DATASET, 64).header, 1, 1000)
    folders = [builder.add(ROOT, b"folder%d" % n, stat.S_IFDIR | 0o755, 0, n) for n in range(3)]
    files = [builder.add(folder, b"file%d" % n, stat.S_IFREG, 150, n) for folder in folders for n in range(2)]
    for number in files:
        builder.set_content(number, [Extent(pack, 100, 100), Extent(HOLE, 0, 50)], bytes(32))
    inner = builder.add(folders[-1], b"deep", stat.S_IFDIR, 0, 0)
    builder.add_symlink(inner, b"link", stat.S_IFLNK, b"../file0", 5)
    return bytes(builder.build(DATASET, 1))


VALID = _valid()

MUTATIONS = st.lists(
    st.tuples(
        st.integers(HEADER_BYTES, len(VALID) - 1) | st.integers(0, len(VALID) - 1),
        st.sampled_from([0, 1, 2, 0x7F, 0x80, 0xFF]) | st.integers(0, 255),
        st.integers(1, 8),
    ),
    min_size=1,
    max_size=8,
)


def touch_everything(data: bytes) -> None:
    """Call every accessor for every entry, as a mount that is used by everybody would."""
    try:
        index = Index(data, DATASET)
    except OURS:
        return
    accessors: list[Callable[[int], object]] = [
        index.entry,
        index.name,
        index.parent,
        index.path,
        index.children,
        index.symlink_target,
        index.extents,
        index.sha256,
        lambda number: [index.find(number, name) for name in (b"file0", b"deep", b"", b"\xff", b"folder1")],
        lambda number: list(index.walk(number)),
        lambda number: index.resolve(index.path(number)),
    ]
    for number in range(index.entries):
        for accessor in accessors:
            try:
                found = accessor(number)
            except OURS:
                continue
            assert not isinstance(found, list) or len(found) <= index.entries + index.extent_count + 5
    for number in range(index.packs):
        try:
            index.pack(number)
        except OURS:
            continue
    index.totals()
    assert repr(index)


@settings(max_examples=300)
@given(MUTATIONS)
def test_mutated_index(mutations: list[tuple[int, int, int]]) -> None:
    data = bytearray(VALID)
    for place, value, count in mutations:
        data[place : place + count] = bytes([value]) * min(count, len(data) - place)
    touch_everything(bytes(data))


@settings(max_examples=100)
@given(st.integers(0, len(VALID)), st.binary(max_size=64))
def test_cut_and_extended_index(length: int, tail: bytes) -> None:
    touch_everything(VALID[:length] + tail)


@given(st.binary(max_size=2000))
def test_arbitrary_columns(columns: bytes) -> None:
    touch_everything(VALID[:HEADER_BYTES] + columns.ljust(len(VALID) - HEADER_BYTES, b"\xff"))
    touch_everything(columns)


def test_every_single_byte() -> None:
    for place in range(len(VALID)):
        for value in (0xFF, VALID[place] ^ 0x01):
            touch_everything(VALID[:place] + bytes([value]) + VALID[place + 1 :])


@settings(max_examples=60)
@given(st.binary(min_size=40, max_size=40))
def test_absurd_counts_allocate_nothing(counts: bytes) -> None:
    tracemalloc.start()
    try:
        touch_everything(VALID[:40] + counts + VALID[80:])
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
