"""Several datasets as one folder: their path tables merged into one, whose packs remember where they come from.

The top of the folder has the names at the top of each dataset, in the given order; what is below belongs to one
dataset as a whole. A name that two of them have is an error, never a choice: each owner would otherwise decide what
others' names mean. A prefix for each owner avoids that, and then nobody else's names may begin with it.

The merged index is one of format 1, with an id of its own. Its epochs number the pairs of a dataset and one of its
epochs, so that a pack's epoch says whose it is and which key opens it.

Threading: functions of values; `UnionPacks` is as safe as what it reads from.
"""

from __future__ import annotations

import hashlib
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sealfs.dataset.index import HOLE, ROOT, Extent, Index
from sealfs.dataset.index_builder import IndexBuilder
from sealfs.dataset.keyring import DATASET_ID_SIZE, DatasetKeys
from sealfs.dataset.objects import PACKS, object_id_of
from sealfs.dataset.reader import PackReader
from sealfs.errors import IntegrityError, UsageError

_FOLDER = stat.S_IFDIR | 0o555


@dataclass(frozen=True)
class Member:
    """One dataset of a union.

    Attributes:
        name: For messages.
        index: Its path table.
        keys: What opens it.
        prefix: Put before each name at its top.
    """

    name: str
    index: Index
    keys: DatasetKeys
    prefix: bytes = b""


@dataclass(frozen=True)
class Union:
    """Merged datasets.

    Attributes:
        dataset: The merged index's id, 16 bytes.
        index: All of their files.
        epochs: For each epoch of the merged index, from 1: number of the member, and the epoch there.
        packs: For each pack of the merged index: number of the member, and of the pack there.
    """

    dataset: bytes
    index: Index
    epochs: tuple[tuple[int, int], ...]
    packs: tuple[tuple[int, int], ...]


def merge(members: Sequence[Member]) -> Union:
    """Merge datasets.

    Raises:
        UsageError: A name is in two of them, or one has names that begin with another's prefix.
        IntegrityError: One of the indexes is malformed.
    """
    _check_names(members)
    mtime = max(member.index.entry(ROOT).mtime_ns for member in members)
    builder = IndexBuilder(_FOLDER, mtime)
    epochs: dict[tuple[int, int], int] = {}
    packs: list[tuple[int, int]] = []
    first_pack: list[int] = []
    for place, member in enumerate(members):
        first_pack.append(len(packs))
        for number in range(member.index.packs):
            pack = member.index.pack(number)
            epoch = epochs.setdefault((place, pack.epoch), len(epochs) + 1)
            builder.add_pack(object_id_of(pack.name, PACKS), pack.header, epoch, pack.layout.plaintext_size)
            packs.append((place, number))
    folders: deque[tuple[int, int, int]] = deque()  # member, directory there, directory here
    for place, member in enumerate(members):
        for child in member.index.children(ROOT):
            name = member.prefix + member.index.name(child)
            _add(builder, member.index, child, ROOT, name, first_pack[place], place, folders)
    most = 1 + sum(member.index.entries for member in members)
    while folders:
        if len(builder) > most:
            raise IntegrityError("the index's directories do not form a tree")
        place, directory, parent = folders.popleft()
        index = members[place].index
        for child in index.children(directory):
            _add(builder, index, child, parent, index.name(child), first_pack[place], place, folders)
    digest = hashlib.sha256(b"sealfs union")
    for member in members:
        digest.update(member.keys.dataset)
    dataset = digest.digest()[:DATASET_ID_SIZE]
    return Union(dataset, Index(builder.build(dataset, 1), dataset), tuple(epochs), tuple(packs))


def _check_names(members: Sequence[Member]) -> None:
    owners: dict[bytes, str] = {}
    for member in members:
        for child in member.index.children(ROOT):
            name = member.prefix + member.index.name(child)
            shown = name.decode("utf-8", "backslashreplace")
            if name in owners:
                raise UsageError(
                    f"'{shown}' is in '{owners[name]}' and in '{member.name}', which are to be one folder",
                    "agree on a prefix for each, or on folders of their own",
                )
            owners[name] = member.name
            for other in members:
                if other is not member and other.prefix and name.startswith(other.prefix):
                    raise UsageError(
                        f"'{shown}' of '{member.name}' looks like one of '{other.name}', whose names begin so",
                        "agree on prefixes of which none is the beginning of another's names",
                    )


def _add(
    builder: IndexBuilder,
    index: Index,
    number: int,
    parent: int,
    name: bytes,
    first_pack: int,
    place: int,
    folders: deque[tuple[int, int, int]],
) -> None:
    entry = index.entry(number)
    if entry.is_symlink:
        builder.add_symlink(parent, name, entry.mode, index.symlink_target(number), entry.mtime_ns)
        return
    added = builder.add(parent, name, entry.mode, entry.size, entry.mtime_ns)
    if entry.is_directory:
        folders.append((place, number, added))
        return
    extents = [
        Extent(e.pack if e.pack == HOLE else first_pack + e.pack, e.offset, e.length) for e in index.extents(number)
    ]
    builder.set_content(added, extents, index.sha256(number))


class UnionPacks:
    """The packs of a union, as a `vfs.View` reads them.

    Args:
        union: Says where each is.
        readers: The members' own, in their order; closed with this.
    """

    def __init__(self, union: Union, readers: Sequence[PackReader]) -> None:
        self._packs = union.packs
        self._readers = readers

    def read_into(self, number: int, offset: int, out: memoryview) -> None:
        """See `PackReader.read_into`."""
        place, pack = self._packs[number]
        self._readers[place].read_into(pack, offset, out)

    def prefetch(self, number: int, offset: int, length: int) -> None:
        """See `PackReader.prefetch`."""
        place, pack = self._packs[number]
        self._readers[place].prefetch(pack, offset, length)

    def close(self) -> None:
        """Close the members' readers."""
        for reader in self._readers:
            reader.close()


def pack_keys(union: Union, members: Sequence[Member]) -> Iterator[tuple[int, int, bytes]]:
    """Yield for each epoch of a union: its number, the member's number, and the key of its packs."""
    for epoch, (place, original) in enumerate(union.epochs, 1):
        yield epoch, place, members[place].keys.pack_key(original)
