"""A snapshot's objects themselves, as files: how ciphertext reaches an enclave through a host that has no key.

Two ways: a view that fetches ranges on demand, for a FUSE mount on the enclave's untrusted host, and a copy that
is complete before anything starts. Both make a folder that is a store of its own (`file://`), with the one
version that was asked for at its head. Nothing here has a key or could use one.

Threading: as `vfs.View`; `fetch` copies side by side.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.index import ROOT, Extent, Index
from sealfs.dataset.index_builder import IndexBuilder
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.objects import HEAD, OBJECT_ID_SIZE, ObjectRef
from sealfs.dataset.snapshot import Head
from sealfs.errors import IntegrityError, ObjectNotFoundError, ObjectSizeError
from sealfs.floe import HEADER_SIZE
from sealfs.opening import CacheSettings, OpenView, open_source, open_view
from sealfs.progress import Progress
from sealfs.store.base import ObjectStore
from sealfs.store.source import CiphertextSource
from sealfs.vfs import View

_FILE = stat.S_IFREG | 0o444
_FOLDER = stat.S_IFDIR | 0o555
_JOBS = 4
_NO_HEADER = bytes(HEADER_SIZE)  # a row of the pack table has one; nobody asks for it here
_NO_ID = bytes(OBJECT_ID_SIZE)


def objects_of(dataset: Dataset) -> list[ObjectRef]:
    """Return everything that a reader of this version fetches, but for the head."""
    snapshot = dataset.snapshot
    return [dataset.ref, snapshot.keyring, snapshot.index, *snapshot.packs]


def head_of(dataset: Dataset) -> bytes:
    """Return a head that points at this version."""
    return Head(dataset.snapshot.version, dataset.ref).to_bytes()


@dataclass(frozen=True, slots=True)
class _Objects:
    """Reads objects by their number in the synthetic pack table; number 0 is the head."""

    head: bytes
    refs: list[ObjectRef]
    source: CiphertextSource

    def read_into(self, number: int, offset: int, out: memoryview) -> None:
        """Fill `out` with an object's bytes from `offset` on."""
        if number == 0:
            out[:] = self.head[offset : offset + len(out)]
            return
        ref = self.refs[number - 1]
        try:
            self.source.read_into(ref.name, ref.size, offset, out)
        except (ObjectNotFoundError, ObjectSizeError) as error:
            raise IntegrityError(error.message) from None
        if offset + len(out) < ref.size:
            self.source.prefetch(ref.name, ref.size, offset + len(out), 4 * len(out))

    def prefetch(self, number: int, offset: int, length: int) -> None:
        """Say that a range will be wanted soon."""
        if number:
            ref = self.refs[number - 1]
            self.source.prefetch(ref.name, ref.size, offset, length)

    def close(self) -> None:
        """Release the source."""
        self.source.close()


def _index(dataset: Dataset, head: bytes, refs: list[ObjectRef]) -> Index:
    """Return an index whose files are the objects."""
    mtime = int(dataset.snapshot.time.timestamp()) * 10**9
    builder = IndexBuilder(_FOLDER, mtime)
    folders: dict[str, list[tuple[str, int, int]]] = {}
    for number, (name, size) in enumerate([(HEAD, len(head)), *((ref.name, ref.size) for ref in refs)]):
        folder, _, leaf = name.rpartition("/")
        folders.setdefault(folder, []).append((leaf, number, size))
        builder.add_pack(_NO_ID, _NO_HEADER, 1, size)
    parents = {"": ROOT}
    entries = [(ROOT, *entry) for entry in folders.pop("")]
    for folder in folders:
        parents[folder] = builder.add(ROOT, folder.encode(), _FOLDER, 0, mtime)
    for parent, leaf, number, size in entries:
        _add_object(builder, parent, leaf, number, size, mtime)
    for folder, members in folders.items():
        for leaf, number, size in members:
            _add_object(builder, parents[folder], leaf, number, size, mtime)
    dataset_id = dataset.snapshot.dataset
    return Index(builder.build(dataset_id, dataset.snapshot.version), dataset_id)


def _add_object(builder: IndexBuilder, parent: int, leaf: str, number: int, size: int, mtime: int) -> None:
    entry = builder.add(parent, leaf.encode(), _FILE, size, mtime)
    builder.set_content(entry, [Extent(number, 0, size)] if size else [], bytes(32))


def open_objects(
    dataset: Dataset, settings: CacheSettings, about_to_block: Callable[[], None] | None = None
) -> tuple[View, CiphertextSource]:
    """Return a view of a version's objects, and its source; like `opening.open_view`, without a key."""
    refs, head = objects_of(dataset), head_of(dataset)
    source = open_source(dataset.store, dataset.snapshot.dataset, settings, about_to_block)
    view = View(_index(dataset, head, refs), _Objects(head, refs, source), whole_file_limit=0)
    return view, source


def how_to_open(dataset: Dataset, keys: DatasetKeys | None, settings: CacheSettings) -> OpenView:
    """Return what opens a version for a mount: its files for who has keys, else its objects."""

    def open_it(about_to_block: Callable[[], None]) -> tuple[View, CiphertextSource]:
        if keys is None:
            return open_objects(dataset, settings, about_to_block)
        return open_view(dataset, keys, settings, about_to_block)

    return open_it


def fetch(dataset: Dataset, target: ObjectStore, progress: Progress) -> tuple[int, int]:
    """Copy a version's objects to another store, each checked against what was signed; the head comes last.

    Args:
        dataset: Verified.
        target: Where to; objects that are there with the right bytes stay.
        progress: Told of the bytes that are there.

    Returns:
        How many objects were copied, and their bytes.

    Raises:
        IntegrityError: An object is not what the provider signed; `target` has no head then.
    """
    refs = objects_of(dataset)
    progress.begin("fetching", sum(ref.size for ref in refs))

    def copy(ref: ObjectRef) -> bool:
        copied = not _is_there(target, ref)
        if copied:
            target.put(ref.name, ref.fetch(dataset.store, ref.size))
        progress.advance(ref.size)
        return copied

    with ThreadPoolExecutor(_JOBS, thread_name_prefix="sealfs-fetch") as pool:
        copied = [ref.size for ref, done in zip(refs, pool.map(copy, refs), strict=True) if done]
    target.put(HEAD, head_of(dataset))
    return len(copied), sum(copied)


def _is_there(store: ObjectStore, ref: ObjectRef) -> bool:
    try:
        if store.stat(ref.name).size != ref.size:
            return False
        return hashlib.sha256(store.get(ref.name, max_size=ref.size)[0]).digest() == ref.sha256
    except ObjectNotFoundError:
        return False
