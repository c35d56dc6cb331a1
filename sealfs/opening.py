"""From an address to a readable view: puts store, cache, reader and file system together.

The one place that decides whether ciphertext is cached. Knows no front end.

Threading: values and constructors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.reader import PackReader
from sealfs.dataset.union import Member, UnionPacks, merge
from sealfs.errors import LocalIOError
from sealfs.store.base import ObjectStore
from sealfs.store.cache import BlockCache, DiskBlocks, MemoryBlocks
from sealfs.store.local import LocalStore
from sealfs.store.source import CiphertextSource, DirectSource
from sealfs.vfs import View

log = logging.getLogger(__name__)

OpenView = Callable[[Callable[[], None]], tuple[View, CiphertextSource]]
"""Opens a view, given what a thread is to call before it waits for the store."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How much may be kept, and where.

    Attributes:
        directory: Folder for ciphertext; None keeps it in memory.
        disk_size: Bytes of ciphertext in that folder.
        memory_size: Bytes in memory: decrypted segments, small files, and ciphertext where no folder is given.
        deadline: How long a store that is away is tried again, seconds.
    """

    directory: Path | None = None
    disk_size: int = 10 << 30
    memory_size: int = 256 << 20
    deadline: float = 60.0


def open_source(
    store: ObjectStore, dataset: bytes, settings: CacheSettings, about_to_block: Callable[[], None] | None
) -> CiphertextSource:
    """Return where a dataset's ciphertext comes from: the store itself if it is near, else a cache before it."""
    if isinstance(store, LocalStore):
        return DirectSource(store)
    blocks: DiskBlocks | MemoryBlocks = MemoryBlocks(settings.memory_size // 2)
    if settings.directory is not None:
        try:
            blocks = DiskBlocks(settings.directory / dataset.hex(), settings.disk_size)
        except LocalIOError as error:
            log.warning("%s; caching in memory instead (%s)", error.message, error.hint)
    return BlockCache(store, blocks, deadline=settings.deadline, about_to_block=about_to_block)


def open_view(
    dataset: Dataset,
    keys: DatasetKeys,
    settings: CacheSettings | None = None,
    about_to_block: Callable[[], None] | None = None,
) -> tuple[View, CiphertextSource]:
    """Open a dataset for reading.

    Args:
        dataset: Verified.
        keys: What opens it.
        settings: How much to cache.
        about_to_block: Called by a thread before it waits for the store.

    Returns:
        The view, which owns everything below it, and its source, whose counters tell how the cache does.
    """
    settings = settings or CacheSettings()
    index = dataset.index(keys)
    source = open_source(dataset.store, dataset.snapshot.dataset, settings, about_to_block)
    quarter = settings.memory_size // 4
    return View(index, PackReader(index, keys, source, quarter), whole_file_cache=quarter), source


def open_union_view(
    datasets: Sequence[Dataset],
    members: Sequence[Member],
    settings: CacheSettings,
    about_to_block: Callable[[], None] | None = None,
) -> tuple[View, CiphertextSource]:
    """Open several datasets for reading, as one folder.

    Args:
        datasets: Verified.
        members: The same ones, with what opens them.
        settings: How much to cache, of all of them together.
        about_to_block: Called by a thread before it waits for a store.

    Returns:
        The view, which owns everything below it, and the source of the first one.

    Raises:
        UsageError: Their names clash.
    """
    union = merge(members)
    quarter = settings.memory_size // 4
    sources = [open_source(d.store, d.snapshot.dataset, settings, about_to_block) for d in datasets]
    readers = [
        PackReader(member.index, member.keys, source, quarter // len(members))
        for member, source in zip(members, sources, strict=True)
    ]
    return View(union.index, UnionPacks(union, readers), whole_file_cache=quarter), sources[0]
