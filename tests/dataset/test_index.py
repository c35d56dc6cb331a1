"""The index: builder against reader, its order, its size, and hostile bytes."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealfs.dataset.index import HEADER, HEADER_BYTES, HOLE, ROOT, Extent, Index, column_layout
from sealfs.dataset.index_builder import IndexBuilder, empty_index
from sealfs.errors import FormatError, IntegrityError, NotADatasetError
from sealfs.floe import Encryptor

DATASET = bytes(range(16))
FLOE_HEADER = Encryptor(bytes(32), DATASET, 1 << 16).header

NAMES = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([b"\n", b" ", b"\xff\xfe", b"a", b"A", "ü".encode(), "u\u0308".encode(), b"x" * 255]),
).filter(lambda name: b"/" not in name and b"\0" not in name and name not in {b".", b".."})


@dataclass
class Node:
    """What a tree is made of: a folder has `children`, a link a `target`, a file the sizes of its `runs`."""

    mode: int
    mtime_ns: int
    children: dict[bytes, Node] = field(default_factory=dict)
    target: bytes = b""
    runs: list[tuple[bool, int]] = field(default_factory=list)
    digest: bytes = bytes(32)


TIMES = st.integers(-(1 << 63), (1 << 63) - 1)
FILES = st.builds(
    Node,
    mode=st.integers(0, 0o7777).map(lambda mode: stat.S_IFREG | mode),
    mtime_ns=TIMES,
    runs=st.lists(st.tuples(st.booleans(), st.integers(1, 1 << 50)), max_size=3),
    digest=st.binary(min_size=32, max_size=32),
)
LINKS = st.builds(Node, mode=st.just(stat.S_IFLNK | 0o777), mtime_ns=TIMES, target=st.binary(max_size=30))


def folders(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.builds(
        Node,
        mode=st.integers(0, 0o7777).map(lambda mode: stat.S_IFDIR | mode),
        mtime_ns=TIMES,
        children=st.dictionaries(NAMES, children, max_size=6),
    )


TREES = folders(st.recursive(FILES | LINKS, folders, max_leaves=20))


def build(root: Node, version: int = 7) -> bytearray:
    builder = IndexBuilder(root.mode, root.mtime_ns)
    pending = [(ROOT, root)]
    for parent, folder in pending:
        for name, node in folder.children.items():
            if stat.S_ISLNK(node.mode):
                builder.add_symlink(parent, name, node.mode, node.target, node.mtime_ns)
                continue
            size = sum(length for _, length in node.runs)
            number = builder.add(parent, name, node.mode, size, node.mtime_ns)
            if stat.S_ISDIR(node.mode):
                pending.append((number, node))
                continue
            extents = []
            for hole, length in node.runs:
                pack = HOLE if hole else builder.add_pack(os.urandom(24), FLOE_HEADER, 3, length + 5)
                extents.append(Extent(pack, 0 if hole else 5, length))
            builder.set_content(number, extents, node.digest)
    return builder.build(DATASET, version)


def check(index: Index, number: int, node: Node, path: bytes) -> None:
    entry = index.entry(number)
    assert (entry.mode, entry.mtime_ns) == (node.mode, node.mtime_ns)
    assert index.path(number) == path
    assert index.resolve(path) == index.resolve(b"/./" + path + b"/") == number
    if entry.is_directory:
        assert [index.name(child) for child in index.children(number)] == list(node.children)
        for child, (name, below) in zip(index.children(number), node.children.items(), strict=True):
            assert index.find(number, name) == child
            assert index.parent(child) == number
            check(index, child, below, path + b"/" + name if path else name)
        for absent in (b"", b"no such name", b"\xff" * 9, b".."):
            if absent not in node.children:
                assert index.find(number, absent) is None
    elif entry.is_symlink:
        assert index.symlink_target(number) == node.target
        assert entry.size == len(node.target)
    else:
        extents = index.extents(number)
        assert [(e.pack == HOLE, e.length) for e in extents] == node.runs
        assert index.sha256(number) == node.digest
        assert entry.size == sum(length for _, length in node.runs)
        for extent in extents:
            if extent.pack != HOLE:
                assert index.pack(extent.pack).epoch == 3
                assert index.pack(extent.pack).layout.plaintext_size == extent.length + 5


@given(TREES)
def test_what_is_built_is_read(root: Node) -> None:
    index = Index(build(root), DATASET)
    check(index, ROOT, root, b"")
    assert sorted(index.walk()) == list(range(index.entries))
    assert index.version == 7
    files, size = index.totals()
    assert size == sum(index.entry(n).size for n in range(index.entries) if index.entry(n).is_file)
    assert files == sum(index.entry(n).is_file for n in range(index.entries))


@given(TREES)
def test_the_layout_is_what_the_format_says(root: Node) -> None:
    data = build(root)
    magic, form, header, dataset, version, entries, extents, packs, zero, names, _ = HEADER.unpack_from(data)
    assert (magic, form, header, dataset, version, zero) == (b"SEALIDX1", 1, HEADER_BYTES, DATASET, 7, 0)
    places, size = column_layout(entries, extents, packs, names)
    assert size == len(data)
    end = HEADER_BYTES
    for offset, length in places.values():
        assert offset % 8 == 0
        assert end <= offset < end + 8
        assert not any(data[end:offset])
        end = offset + length


def test_order_is_the_providers_and_not_the_alphabets() -> None:
    names = [b"z", b"a", b"\xff", b"M", b"10", b"9"]
    root = Node(stat.S_IFDIR, 0, {name: Node(stat.S_IFREG, 0) for name in names})
    index = Index(build(root), DATASET)
    assert [index.name(n) for n in index.children(ROOT)] == names
    assert [index.name(n) for n in index.walk()] == [b"", *names]


def test_the_empty_index_has_a_root_and_nothing_else() -> None:
    index = empty_index()
    assert (index.entries, index.packs, list(index.children(ROOT))) == (1, 0, [])


@pytest.mark.parametrize(
    ("path", "there"),
    [
        (b"", True),
        (b"/", True),
        (b"folder", True),
        (b"folder//file", True),
        (b"folder/./file", True),
        (b"folder/file/", True),
        (b"folder/file/deeper", False),
        (b"folder/link/deeper", False),
        (b"folder/..", False),
        (b"Folder", False),
        (b"folder/fil", False),
        (b"folder/files", False),
        (b"\0", False),
    ],
)
def test_resolving_follows_nothing_and_guesses_nothing(path: bytes, there: bool) -> None:
    inner = {b"file": Node(stat.S_IFREG, 0), b"link": Node(stat.S_IFLNK, 0, target=b"file")}
    index = Index(build(Node(stat.S_IFDIR, 0, {b"folder": Node(stat.S_IFDIR, 0, inner)})), DATASET)
    if there:
        index.resolve(path)
    else:
        with pytest.raises(NotADatasetError):
            index.resolve(path)


# --- hostile ---


def small() -> bytearray:
    inner = {b"b": Node(stat.S_IFREG, 1, runs=[(False, 100), (True, 50)]), b"l": Node(stat.S_IFLNK, 2, target=b"b")}
    deep = {b"sub": Node(stat.S_IFDIR, 3, inner), b"e": Node(stat.S_IFREG, 4)}
    return build(Node(stat.S_IFDIR, 0, {b"d": Node(stat.S_IFDIR, 5, deep), b"f": Node(stat.S_IFREG, 6)}))


def column(data: bytearray, name: str, code: str) -> memoryview:
    _, _, _, _, _, entries, extents, packs, _, names, _ = HEADER.unpack_from(data)
    offset, length = column_layout(entries, extents, packs, names)[0][name]
    return memoryview(data)[offset : offset + length].cast("B").cast(code)


def _set(name: str, code: str, number: int, value: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        column(data, name, code)[number] = value

    return change


# entries: 0 root, 1 d, 2 f, 3 d/sub, 4 d/e, 5 d/sub/b, 6 d/sub/l
@pytest.mark.parametrize(
    ("change", "touch"),
    [
        (_set("name_offset", "I", 2, 9999), lambda index: index.name(2)),
        (_set("name_offset", "I", 3, 0), lambda index: index.name(2)),
        (_set("parent", "I", 5, 5), lambda index: index.path(5)),
        (_set("parent", "I", 5, 6), lambda index: index.path(5)),
        (_set("parent", "I", 5, 9999), lambda index: index.path(5)),
        (_set("first", "I", 1, 0), lambda index: index.children(1)),
        (_set("first", "I", 1, 1), lambda index: index.children(1)),
        (_set("count", "I", 1, 0xFFFFFFFF), lambda index: index.children(1)),
        (_set("first", "I", 3, 3), lambda index: list(index.walk())),
        (_set("first", "I", 1, 5), lambda index: list(index.walk())),
        (_set("count", "I", 0, 6), lambda index: list(index.walk())),
        (_set("by_name", "I", 1, 9999), lambda index: index.find(0, b"d")),
        (_set("by_name", "I", 1, 0), lambda index: index.find(0, b"")),
        (_set("first", "I", 6, 9999), lambda index: index.symlink_target(6)),
        (_set("count", "I", 6, 9999), lambda index: index.symlink_target(6)),
        (_set("first", "I", 5, 1), lambda index: index.extents(5)),
        (_set("count", "I", 5, 3), lambda index: index.extents(5)),
        (_set("count", "I", 5, 1), lambda index: index.extents(5)),
        (_set("size", "Q", 5, 149), lambda index: index.extents(5)),
        (_set("size", "Q", 5, 1 << 63), lambda index: index.entry(5)),
        (_set("extent_pack", "I", 0, 1), lambda index: index.extents(5)),
        (_set("extent_offset", "Q", 0, 6), lambda index: index.extents(5)),
        (_set("extent_offset", "Q", 0, (1 << 64) - 1), lambda index: index.extents(5)),
        (_set("extent_length", "Q", 0, 101), lambda index: index.extents(5)),
        (_set("mode", "I", 5, stat.S_IFDIR), lambda index: list(index.walk())),
    ],
)
def test_a_reference_out_of_bounds_is_refused_when_it_is_touched(
    change: Callable[[bytearray], None], touch: Callable[[Index], object]
) -> None:
    data = small()
    touch(Index(data, DATASET))  # the rest of it is right
    change(data)
    with pytest.raises(IntegrityError):
        touch(Index(data, DATASET))


@pytest.mark.parametrize("name", [b"/etc/passwd", b"", b"a/b", b".", b"..", b"nul\0"])
def test_a_name_that_is_no_name_is_refused(name: bytes) -> None:
    data = build(Node(stat.S_IFDIR, 0, {name: Node(stat.S_IFREG, 0), b"x": Node(stat.S_IFREG, 0)}))
    index = Index(data, DATASET)
    with pytest.raises(IntegrityError, match="name"):
        index.name(1)


def test_folders_that_hold_each_others_entries_do_not_make_a_walk_endless() -> None:
    # forty folders, each of which claims all that follow: 2^40 paths in a few kilobytes
    builder = IndexBuilder(stat.S_IFDIR, 0)
    for number in range(40):
        builder.add(ROOT, b"%d" % number, stat.S_IFDIR, 0, 0)
    data = builder.build(DATASET, 1)
    for number in range(1, 40):
        column(data, "first", "I")[number] = number + 1
        column(data, "count", "I")[number] = 40 - number
    with pytest.raises(IntegrityError):
        list(Index(data, DATASET).walk())


@pytest.mark.parametrize(
    ("place", "value"), [("entries", 0), ("entries", 0xFFFFFFFF), ("extents", 0xFFFFFFFF), ("packs", 0xFFFFFFFF)]
)
def test_absurd_counts_are_refused_without_allocating(place: str, value: int) -> None:
    fields = list(HEADER.unpack_from(small()))
    fields[{"entries": 5, "extents": 6, "packs": 7}[place]] = value
    data = small()
    HEADER.pack_into(data, 0, *fields)
    with pytest.raises(IntegrityError):
        Index(data, DATASET)


def test_another_format_another_dataset_another_kind_of_file() -> None:
    data = small()
    data[8] = 2
    with pytest.raises(FormatError, match="format 2"):
        Index(data, DATASET)
    with pytest.raises(IntegrityError, match="another dataset"):
        Index(small(), bytes(16))
    with pytest.raises(IntegrityError, match="not an index"):
        Index(b"\x7fELF" + bytes(200), DATASET)
    for length in range(0, len(small()), 5):
        with pytest.raises(IntegrityError):
            Index(small()[:length], DATASET)
    with pytest.raises(IntegrityError):
        Index(small() + bytes(8), DATASET)


def test_a_root_that_is_no_folder_is_refused() -> None:
    data = small()
    _set("mode", "I", 0, stat.S_IFREG)(data)
    with pytest.raises(IntegrityError, match="root"):
        Index(data, DATASET)


# --- size ---

MILLION = """
import stat, sys, time
from pathlib import Path
from sealfs.dataset.dataset import Dataset, Summary
from sealfs.dataset.index import ROOT, Extent
from sealfs.dataset.index_builder import IndexBuilder
from sealfs.dataset.keyring import DatasetKeys, Keyring
from sealfs.dataset.packer import PackSealer
from sealfs.dataset.publish import Publisher
from sealfs.dataset.session import PushSession
from sealfs.dataset.trust import TrustStore
from sealfs.keys import Identity, load_identity
from sealfs.store.local import LocalStore

what, top = sys.argv[1], Path(sys.argv[2])
store, trust = LocalStore(top / "store"), TrustStore(top / "trust")
if what == "seal":
    identity = Identity.generate()
    identity.save(top / "identity")
    keys, session = DatasetKeys.generate(bytes(16)), PushSession(store)
    pack = PackSealer(store, keys, 1, 65536, session.push)(memoryview(b"x" * 1000))
    builder = IndexBuilder(stat.S_IFDIR | 0o755, 0)
    number = builder.add_pack(pack.object_id, pack.header, 1, 1000)
    folders = [builder.add(ROOT, b"folder-%04d" % n, stat.S_IFDIR | 0o755, 0, n) for n in range(1000)]
    for folder in folders:
        for n in range(1000):
            file = builder.add(folder, b"image-of-a-patient-%06d.png" % n, stat.S_IFREG | 0o644, 10, n)
            builder.set_content(file, [Extent(number, n % 990, 10)], bytes(32))
    publisher = Publisher(store, trust, identity, None, session)
    session.renew()
    index = publisher.put_index(builder.build(keys.dataset, 1), keys, 1, 65536)
    keyring = publisher.put_keyring(Keyring.seal(keys, [identity.recipient]))
    publisher.publish(keys, epoch=1, segment_length=65536, index=index, keyring=keyring, packs=[pack.ref],
                      summary=Summary("push"))
else:
    identity = load_identity(top / "identity")
    began = time.process_time()  # of the processor: other programs on the machine do not count
    dataset = Dataset.open(store, trust)
    index = dataset.index(dataset.keys(identity))
    found = index.resolve(b"folder-0999/image-of-a-patient-000999.png")
    took = time.process_time() - began
    assert index.entries == 1_001_001 and index.entry(found).size == 10
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(took, int(peak.split()[1]) / 1024)
"""


@pytest.mark.slow
def test_a_million_files_open_in_2_seconds_and_400_megabytes(tmp_path: Path) -> None:
    for what in ("seal", "open"):
        done = subprocess.run(
            [sys.executable, "-c", MILLION, what, tmp_path], capture_output=True, text=True, check=True
        )
    seconds, megabytes = map(float, done.stdout.split())
    assert seconds < 2, f"{seconds:.2f} s"
    assert megabytes < 400, f"{megabytes:.0f} MB"
