"""Writes an index: the other half of index.py.

Directories are added before what they hold, and the entries of one directory one after another; that order is
what a mount lists later.

Threading: one thread at a time.
"""

from __future__ import annotations

import stat
from array import array
from collections.abc import Collection, Sequence

from sealfs.dataset.index import (
    COLUMNS,
    HEADER,
    HEADER_BYTES,
    HOLE,
    INDEX_FORMAT,
    MAGIC,
    MAX_ENTRIES,
    ROOT,
    Extent,
    Index,
    column_layout,
)
from sealfs.dataset.keyring import DATASET_ID_SIZE
from sealfs.dataset.packer import SealedPack
from sealfs.errors import UsageError

_NO_DIGEST = bytes(32)


class IndexBuilder:
    """Collects entries and packs, then writes the bytes of an index.

    Args:
        mode: The root directory's st_mode.
        mtime_ns: The root directory's modification time, nanoseconds.
    """

    def __init__(self, mode: int, mtime_ns: int) -> None:
        self._names = bytearray()
        self._columns: dict[str, array[int]] = {name: array(item) for name, item, _ in COLUMNS if len(item) == 1}
        self._columns["name_offset"].append(0)
        self._sha256 = bytearray()
        self._pack_ids = bytearray()
        self._pack_headers = bytearray()
        self._targets: dict[int, bytes] = {}
        self._append(ROOT, b"", mode, 0, mtime_ns)

    def __len__(self) -> int:
        return len(self._columns["mode"])

    def _append(self, parent: int, name: bytes, mode: int, size: int, mtime_ns: int) -> int:
        number = len(self)
        if number >= MAX_ENTRIES or len(self._names) + len(name) >= 1 << 32:
            raise UsageError("too many files for one dataset", "push the folder as several datasets")
        columns = self._columns
        self._names += name
        columns["name_offset"].append(len(self._names))
        columns["parent"].append(parent)
        columns["mode"].append(mode)
        columns["size"].append(size)
        columns["mtime_ns"].append(mtime_ns)
        columns["first"].append(0)
        columns["count"].append(0)
        self._sha256 += _NO_DIGEST
        return number

    def add(self, parent: int, name: bytes, mode: int, size: int, mtime_ns: int) -> int:
        """Add an entry as the next one of directory `parent` and return its number."""
        number = self._append(parent, name, mode, size, mtime_ns)
        first, count = self._columns["first"], self._columns["count"]
        if not count[parent]:
            first[parent] = number
        if first[parent] + count[parent] != number:
            raise ValueError("the entries of a directory must be added one after another")
        count[parent] += 1
        return number

    def add_symlink(self, parent: int, name: bytes, mode: int, target: bytes, mtime_ns: int) -> int:
        """Add a symlink and return its number."""
        number = self.add(parent, name, mode, len(target), mtime_ns)
        self._targets[number] = target
        return number

    def path(self, number: int) -> bytes:
        """Return an entry's path below the root."""
        parts: list[bytes] = []
        offsets = self._columns["name_offset"]
        while number != ROOT:
            parts.append(bytes(self._names[offsets[number] : offsets[number + 1]]))
            number = self._columns["parent"][number]
        return b"/".join(reversed(parts))

    def has_children(self, number: int) -> bool:
        """Whether a directory has entries so far."""
        return self._columns["count"][number] > 0

    @property
    def names_size(self) -> int:
        """Bytes of all names and of what symlinks point to."""
        return len(self._names) + sum(map(len, self._targets.values()))

    def size(self, number: int) -> int:
        """Return an entry's size in bytes."""
        return self._columns["size"][number]

    def set_status(self, number: int, mode: int, size: int, mtime_ns: int) -> None:
        """Correct a file's metadata to what it was when its content was read."""
        self._columns["mode"][number] = mode
        self._columns["size"][number] = size
        self._columns["mtime_ns"][number] = mtime_ns

    def add_pack(self, object_id: bytes, header: bytes, epoch: int, plaintext_size: int) -> int:
        """Add a pack and return its number."""
        self._columns["pack_epoch"].append(epoch)
        self._columns["pack_size"].append(plaintext_size)
        self._pack_ids += object_id
        self._pack_headers += header
        number = len(self._columns["pack_epoch"]) - 1
        if number >= HOLE:
            raise UsageError("too many packs for one dataset", "push the folder as several datasets")
        return number

    def set_content(self, number: int, extents: Sequence[Extent], sha256: bytes) -> None:
        """Say where a file's bytes lie; their lengths add up to its size."""
        columns = self._columns
        if sum(extent.length for extent in extents) != columns["size"][number]:
            raise ValueError("extents do not add up to the file's size")
        columns["first"][number] = len(columns["extent_pack"])
        columns["count"][number] = len(extents)
        for extent in extents:
            columns["extent_pack"].append(extent.pack)
            columns["extent_offset"].append(extent.offset)
            columns["extent_length"].append(extent.length)
        self._sha256[32 * number : 32 * number + 32] = sha256

    def without(self, left_out: Collection[int]) -> IndexBuilder:
        """Return another index: this one without these files and empty directories."""
        columns, offsets = self._columns, self._columns["name_offset"]
        other = IndexBuilder(columns["mode"][ROOT], columns["mtime_ns"][ROOT])
        numbers = array("I", [ROOT])  # of this one's entries in the other one
        for number in range(1, len(self)):
            if number in left_out:
                numbers.append(ROOT)
                continue
            name = bytes(self._names[offsets[number] : offsets[number + 1]])
            parent, mode = numbers[columns["parent"][number]], columns["mode"][number]
            numbers.append(other.add(parent, name, mode, columns["size"][number], columns["mtime_ns"][number]))
            if number in self._targets:
                other._targets[numbers[number]] = self._targets[number]
            elif not stat.S_ISDIR(mode):
                for column in ("first", "count"):
                    other._columns[column][numbers[number]] = columns[column][number]
                other._sha256[32 * numbers[number] : 32 * numbers[number] + 32] = self._sha256[
                    32 * number : 32 * number + 32
                ]
        for column in columns:
            if column.startswith(("pack_", "extent_")):
                other._columns[column] = columns[column]
        other._pack_ids, other._pack_headers = self._pack_ids, self._pack_headers
        return other

    def build(self, dataset: bytes, version: int) -> bytearray:
        """Return the index's bytes for snapshot `version` of the dataset with this id."""
        columns = self._columns
        self._sort_names()
        for number, target in self._targets.items():
            columns["first"][number] = len(self._names)
            columns["count"][number] = len(target)
            self._names += target
        entries, extents, packs = len(self), len(columns["extent_pack"]), len(columns["pack_epoch"])
        raw = {
            "sha256": self._sha256,
            "pack_id": self._pack_ids,
            "pack_header": self._pack_headers,
            "names": self._names,
        }
        places, size = column_layout(entries, extents, packs, len(self._names))
        data = bytearray(size)
        total = sum(columns["size"])
        header = (MAGIC, INDEX_FORMAT, HEADER_BYTES, dataset, version)
        HEADER.pack_into(data, 0, *header, entries, extents, packs, 0, len(self._names), total)
        view = memoryview(data)
        for name, (offset, length) in places.items():
            column = raw[name] if name in raw else memoryview(columns[name]).cast("B")
            view[offset : offset + length] = column
        return data

    def _sort_names(self) -> None:
        columns, names = self._columns, bytes(self._names)
        offsets = columns["name_offset"]
        by_name = array("I", range(len(self)))
        for number, mode in enumerate(columns["mode"]):
            if stat.S_ISDIR(mode) and columns["count"][number]:
                first = columns["first"][number]
                children = range(first, first + columns["count"][number])
                ordered = sorted(children, key=lambda child: names[offsets[child] : offsets[child + 1]])
                by_name[first : first + len(ordered)] = array("I", ordered)
        columns["by_name"] = by_name


def empty_index() -> Index:
    """Return the index of nothing: what a folder is compared with before its first push."""
    nobody = bytes(DATASET_ID_SIZE)
    return Index(IndexBuilder(stat.S_IFDIR, 0).build(nobody, 0), nobody)


def replace_packs(index: Index, packs: Sequence[SealedPack]) -> bytearray:
    """Return the bytes of an index whose packs were sealed anew, with the same plaintext, in the same order."""
    data = bytearray(index.data)
    entries, extents, count, names = index.entries, index.extent_count, index.packs, index.names_size
    places, _ = column_layout(entries, extents, count, names)
    columns = {
        "pack_epoch": array("I", [pack.epoch for pack in packs]).tobytes(),
        "pack_id": b"".join(pack.object_id for pack in packs),
        "pack_header": b"".join(pack.header for pack in packs),
    }
    for name, column in columns.items():
        offset, length = places[name]
        if len(column) != length:
            raise ValueError("there must be as many packs as before")
        data[offset : offset + length] = column
    return data
