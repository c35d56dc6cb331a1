"""The index: a dataset's path table, read in place.

The decrypted bytes are columns of little-endian numbers (docs/format.md, "Index"), each a typed view without a
copy, so that opening costs the same for a thousand files as for a million and no object exists for a file until
its path is touched. Entries are numbered so that the children of a directory are neighbours, in the order in
which the provider's directory listed them.

The bytes are authentic when they come here, but what they say is still bounded: column sizes at opening, each
entry's references when it is touched.

Threading: immutable after construction.
"""

from __future__ import annotations

import stat
import struct
import sys
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sealfs.dataset.keyring import DATASET_ID_SIZE
from sealfs.dataset.objects import OBJECT_ID_SIZE, PACKS, object_name
from sealfs.errors import FormatError, IntegrityError, NotADatasetError
from sealfs.floe import HEADER_SIZE, Layout, segment_length_of

MAGIC: Final = b"SEALIDX1"
HEADER: Final = struct.Struct("<8sII16sQIIIIQQ")  # see COLUMNS for what follows
HEADER_BYTES: Final = 128
INDEX_FORMAT: Final = 1
MAX_INDEX_SIZE: Final = 8 << 30
MAX_ENTRIES: Final = (1 << 32) - 2
ROOT: Final = 0
HOLE: Final = 0xFFFFFFFF  # an extent of zeros that no pack holds

_MAX_FILE_SIZE: Final = (1 << 63) - 1  # what lseek takes
_NO_NAMES: Final = frozenset({b"", b".", b".."})

# name, item format (one character: a number; "Ns": N bytes), counted by
COLUMNS: Final = (
    ("name_offset", "I", "entries+1"),
    ("parent", "I", "entries"),
    ("mode", "I", "entries"),
    ("size", "Q", "entries"),
    ("mtime_ns", "q", "entries"),
    ("first", "I", "entries"),
    ("count", "I", "entries"),
    ("by_name", "I", "entries"),
    ("sha256", "32s", "entries"),
    ("extent_pack", "I", "extents"),
    ("extent_offset", "Q", "extents"),
    ("extent_length", "Q", "extents"),
    ("pack_epoch", "I", "packs"),
    ("pack_size", "Q", "packs"),
    ("pack_id", f"{OBJECT_ID_SIZE}s", "packs"),
    ("pack_header", f"{HEADER_SIZE}s", "packs"),
    ("names", "1s", "names"),
)


def column_layout(entries: int, extents: int, packs: int, names: int) -> tuple[dict[str, tuple[int, int]], int]:
    """Return where each column lies, as name to (offset, length) in bytes, and the size of the whole."""
    counts = {
        "entries": entries,
        "entries+1": entries + 1,
        "extents": extents,
        "packs": packs,
        "names": names,
    }
    places: dict[str, tuple[int, int]] = {}
    offset = HEADER_BYTES
    for name, item, counted_by in COLUMNS:
        length = counts[counted_by] * struct.calcsize("<" + item)
        places[name] = (offset, length)
        offset = -(-(offset + length) // 8) * 8
    return places, offset


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of a file's bytes.

    Attributes:
        pack: Number in the pack table, or `HOLE`.
        offset: Where the run starts in the pack's plaintext, bytes.
        length: Bytes.
    """

    pack: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Pack:
    """A row of the pack table.

    Attributes:
        name: The object's key in the store.
        epoch: Which key epoch sealed it.
        header: Its FLOE header, 74 bytes.
        layout: Where its segments lie.
    """

    name: str
    epoch: int
    header: bytes
    layout: Layout


@dataclass(frozen=True, slots=True)
class Entry:
    """A path's metadata, made when somebody asks.

    Attributes:
        number: Position in the table; the root is 0.
        mode: st_mode, type bits included.
        size: Bytes of content, or of a symlink's target; 0 for directories.
        mtime_ns: Modification time, nanoseconds since the epoch.
    """

    number: int
    mode: int
    size: int
    mtime_ns: int

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)


class Index:
    """A parsed index.

    Args:
        data: The decrypted bytes; kept, not copied.
        dataset: The dataset's id, 16 bytes.

    Raises:
        IntegrityError: Sizes or references are out of bounds, or it is another dataset's.
        FormatError: Of a newer format.
    """

    def __init__(self, data: bytes | bytearray | memoryview, dataset: bytes) -> None:
        if sys.byteorder != "little":
            raise FormatError("sealfs reads its index in place and needs a little-endian machine")
        view = memoryview(data).toreadonly()
        if len(view) < HEADER_BYTES or bytes(view[: len(MAGIC)]) != MAGIC:
            raise IntegrityError("that is not an index")
        _, form, header_size, owner, version, entries, extents, packs, _, names, total = HEADER.unpack_from(view)
        if form != INDEX_FORMAT or header_size != HEADER_BYTES:
            raise FormatError(f"the index has format {form}, this sealfs knows {INDEX_FORMAT}")
        if owner != dataset or len(dataset) != DATASET_ID_SIZE:
            raise IntegrityError("the index belongs to another dataset")
        places, size = column_layout(entries, extents, packs, names)
        if size != len(view) or not 1 <= entries <= MAX_ENTRIES or names >= 1 << 32:
            raise IntegrityError("the index is cut or malformed")

        def column(name: str) -> memoryview:
            offset, length = places[name]
            return view[offset : offset + length]

        self.version: Final[int] = version
        self.entries: Final[int] = entries
        self.packs: Final[int] = packs
        self.total_size: Final[int] = total
        self.data: Final[memoryview] = view
        self.extent_count: Final[int] = extents
        self.names_size: Final[int] = names
        self._name_offset = column("name_offset").cast("I")
        self._parent = column("parent").cast("I")
        self._mode = column("mode").cast("I")
        self._size = column("size").cast("Q")
        self._mtime_ns = column("mtime_ns").cast("q")
        self._first = column("first").cast("I")
        self._count = column("count").cast("I")
        self._by_name = column("by_name").cast("I")
        self._sha256 = column("sha256")
        self._extent_pack = column("extent_pack").cast("I")
        self._extent_offset = column("extent_offset").cast("Q")
        self._extent_length = column("extent_length").cast("Q")
        self._pack_epoch = column("pack_epoch").cast("I")
        self._pack_size = column("pack_size").cast("Q")
        self._pack_id = column("pack_id")
        self._pack_header = column("pack_header")
        self._names = column("names")
        if not stat.S_ISDIR(self._mode[ROOT]):
            raise IntegrityError("the index has no root directory")

    def __repr__(self) -> str:
        return f"<Index of {self.entries} entries in {self.packs} packs>"

    def _check(self, number: int) -> int:
        if not 0 <= number < self.entries:
            raise IntegrityError("the index refers to an entry that it does not have")
        return number

    def entry(self, number: int) -> Entry:
        """Return the metadata of entry `number`."""
        self._check(number)
        size = self._size[number]
        if size > _MAX_FILE_SIZE:
            raise IntegrityError("the index has a file larger than files can be")
        return Entry(number, self._mode[number], size, self._mtime_ns[number])

    def name(self, number: int) -> bytes:
        """Return an entry's name in its directory (empty for the root)."""
        start, end = self._name_offset[number], self._name_offset[number + 1]
        if not start <= end <= len(self._names):
            raise IntegrityError("the index has a name out of bounds")
        name = bytes(self._names[start:end])
        if number != ROOT and (name in _NO_NAMES or b"/" in name or b"\0" in name):
            raise IntegrityError("the index has a name that no file can have")
        return name

    def parent(self, number: int) -> int:
        """Return the number of the directory that holds an entry; the root holds itself."""
        return self._check(self._parent[number])

    def path(self, number: int) -> bytes:
        """Return the path below the root, parts joined by "/"; empty for the root."""
        parts: list[bytes] = []
        while number != ROOT:
            parts.append(self.name(number))
            up = self.parent(number)
            if up >= number:
                raise IntegrityError("the index's directories do not form a tree")
            number = up
        return b"/".join(reversed(parts))

    def children(self, directory: int) -> range:
        """Return the numbers of a directory's entries in the provider's order."""
        first, count = self._first[directory], self._count[directory]
        if not stat.S_ISDIR(self._mode[directory]):
            raise NotADatasetError(f"'{self._shown(directory)}' is not a directory")
        if count and not (
            directory < first <= first + count <= self.entries
            and self._parent[first] == directory == self._parent[first + count - 1]
        ):
            raise IntegrityError("the index has a directory out of bounds")
        return range(first, first + count)

    def find(self, directory: int, name: bytes) -> int | None:
        """Return the entry called `name` in `directory`, or None."""
        numbers = self.children(directory)
        names, offsets = self._names, self._name_offset
        try:
            place = bisect_left(
                self._by_name,
                name,
                numbers.start,
                numbers.stop,
                key=lambda number: names[offsets[number] : offsets[number + 1]].tobytes(),
            )
        except IndexError:
            raise IntegrityError("the index has a name table out of bounds") from None
        if place == numbers.stop:
            return None
        number = self._by_name[place]
        if number not in numbers:
            raise IntegrityError("the index has a name table out of bounds")
        return number if self.name(number) == name else None

    def resolve(self, path: bytes) -> int:
        """Return the entry at `path` (no symlink is followed).

        Raises:
            NotADatasetError: There is none.
        """
        number = ROOT
        for part in path.split(b"/"):
            if part in {b"", b"."}:
                continue
            found = self.find(number, part) if stat.S_ISDIR(self._mode[number]) else None
            if found is None:
                raise NotADatasetError(f"no '{_printable(path)}' in the dataset", "'sealfs ls' lists what there is")
            number = found
        return number

    def _shown(self, number: int) -> str:
        return _printable(self.path(number)) or "/"

    def symlink_target(self, number: int) -> bytes:
        """Return where a symlink points."""
        start, length = self._first[number], self._count[number]
        if not stat.S_ISLNK(self._mode[number]) or start + length > len(self._names):
            raise IntegrityError("the index has a symlink out of bounds")
        return bytes(self._names[start : start + length])

    def extents(self, number: int) -> list[Extent]:
        """Return where a file's bytes lie, in file order; their lengths add up to its size."""
        first, count = self._first[number], self._count[number]
        if not stat.S_ISREG(self._mode[number]) or first + count > self.extent_count:
            raise IntegrityError("the index has a file out of bounds")
        found = [
            Extent(self._extent_pack[i], self._extent_offset[i], self._extent_length[i])
            for i in range(first, first + count)
        ]
        for extent in found:
            if extent.pack != HOLE and (
                extent.pack >= self.packs or extent.offset + extent.length > self._pack_size[extent.pack]
            ):
                raise IntegrityError("the index has an extent out of bounds")
        if sum(extent.length for extent in found) != self._size[number]:
            raise IntegrityError("the index has a file whose extents do not add up to its size")
        return found

    def sha256(self, number: int) -> bytes:
        """Return the SHA-256 of a file's content, 32 bytes."""
        return bytes(self._sha256[32 * number : 32 * number + 32])

    def pack(self, number: int) -> Pack:
        """Return a row of the pack table."""
        if not 0 <= number < self.packs:
            raise IntegrityError("the index refers to a pack that it does not have")
        header = bytes(self._pack_header[HEADER_SIZE * number : HEADER_SIZE * (number + 1)])
        identity = bytes(self._pack_id[OBJECT_ID_SIZE * number : OBJECT_ID_SIZE * (number + 1)])
        layout = Layout.of_plaintext(self._pack_size[number], segment_length_of(header))
        return Pack(object_name(PACKS, identity), self._pack_epoch[number], header, layout)

    def walk(self, top: int = ROOT) -> Iterator[int]:
        """Yield `top` and all below it, each directory before what it holds, in the provider's order."""
        pending, found = [top], 1
        while pending:
            number = pending.pop()
            yield number
            if stat.S_ISDIR(self._mode[number]):
                children = self.children(number)
                found += len(children)
                if found > self.entries:
                    raise IntegrityError("the index's directories do not form a tree")
                pending.extend(reversed(children))

    def totals(self) -> tuple[int, int]:
        """Return (number of regular files, bytes in them)."""
        files = total = 0
        for mode, size in zip(self._mode, self._size, strict=True):
            if stat.S_ISREG(mode):
                files += 1
                total += size
        return files, total


def _printable(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
