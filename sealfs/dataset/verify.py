"""`sealfs verify`: does the store still hold what the provider signed?

Without keys every object is held against its signed size and SHA-256; with keys every byte is authenticated as
well, and what is damaged is named by file.

Threading: objects are checked side by side; results are collected in the caller's thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.index import HOLE, Index, Pack
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.objects import ObjectRef
from sealfs.errors import IntegrityError, ObjectNotFoundError, ObjectSizeError, SealfsError, StoreError
from sealfs.floe import HEADER_SIZE, SEGMENT_OVERHEAD, Decryptor
from sealfs.progress import Progress
from sealfs.store.base import ObjectStore

_JOBS = 4
_STEP = 4 << 20


@dataclass(slots=True)
class Verdict:
    """What a verification found.

    Attributes:
        objects: How many objects were checked.
        size: Bytes in them.
        bad_objects: Name to what is wrong with it.
        bad_files: Paths of files that can't be read whole; only known with keys.
        authenticated: Whether bytes were authenticated with keys, or only held against the signed list.
    """

    objects: int = 0
    size: int = 0
    bad_objects: dict[str, str] = field(default_factory=dict)
    bad_files: list[bytes] = field(default_factory=list)
    authenticated: bool = False

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.bad_objects and not self.bad_files


@dataclass(slots=True)
class _Check:
    reason: str = ""
    bad_segments: set[int] = field(default_factory=set)


def verify(dataset: Dataset, keys: DatasetKeys | None, progress: Progress) -> Verdict:
    """Check every object of a snapshot.

    Args:
        dataset: Its signature has been verified by opening it.
        keys: To authenticate every byte; None holds objects against the signed list only.
        progress: Told of the bytes checked.

    Raises:
        StoreError: The store can't be reached: that is not a verdict.
    """
    snapshot = dataset.snapshot
    verdict = Verdict(authenticated=keys is not None)
    refs = [snapshot.keyring, snapshot.index, *snapshot.packs]
    progress.begin("verifying", sum(ref.size for ref in refs))
    index = _open_index(dataset, keys, verdict)
    packs = {pack.name: pack for pack in _packs(index)} if index else {}
    signed = {ref.name for ref in snapshot.packs}
    for name in packs.keys() - signed:
        verdict.bad_objects[name] = "is in the index but not in the signed list"

    def check(ref: ObjectRef) -> _Check:
        done = _check_object(dataset.store, ref, packs.get(ref.name), keys)
        progress.advance(ref.size)
        return done

    bad: dict[str, _Check] = {}
    with ThreadPoolExecutor(_JOBS, thread_name_prefix="sealfs-verify") as pool:
        for ref, result in zip(refs, pool.map(check, refs), strict=True):
            verdict.objects += 1
            verdict.size += ref.size
            if result.reason:
                bad[ref.name] = result
                verdict.bad_objects[ref.name] = result.reason
    if index:
        verdict.bad_files = list(_files_in(index, bad))
    return verdict


def _open_index(dataset: Dataset, keys: DatasetKeys | None, verdict: Verdict) -> Index | None:
    if keys is None:
        return None
    try:
        return dataset.index(keys)
    except StoreError:
        raise
    except SealfsError as error:
        verdict.bad_objects[dataset.snapshot.index.name] = error.message
        return None


def _packs(index: Index) -> Iterator[Pack]:
    return (index.pack(number) for number in range(index.packs))


def _check_object(store: ObjectStore, ref: ObjectRef, pack: Pack | None, keys: DatasetKeys | None) -> _Check:
    check, digest = _Check(), hashlib.sha256()
    try:
        if store.stat(ref.name).size != ref.size:
            check.reason = "has another size than was signed"
        segments = _Segments(pack, keys) if pack and keys else None
        step = segments.step if segments else _STEP
        buffer = memoryview(bytearray(min(step + HEADER_SIZE, ref.size)))
        offset = 0
        while offset < ref.size:
            start = HEADER_SIZE if offset == 0 else 0
            piece = buffer[: min(start + step, ref.size - offset)]
            store.read_into(ref.name, offset, piece)
            digest.update(piece)
            if segments:
                segments.check(piece, offset, check)
            offset += len(piece)
    except ObjectNotFoundError:
        return _Check("is missing")
    except IntegrityError as error:
        return _Check(error.message)
    except ObjectSizeError:
        return _Check(check.reason or "has been cut")
    if digest.digest() != ref.sha256 and not check.reason:
        check.reason = "is not what was signed"
    return check


class _Segments:
    """Authenticates a pack in runs of whole segments."""

    def __init__(self, pack: Pack, keys: DatasetKeys) -> None:
        self._pack = pack
        self._decryptor = Decryptor(keys.pack_key(pack.epoch), keys.dataset, pack.header)
        length = pack.layout.segment_length
        self.step = max(1, _STEP // length) * length
        self._plaintext = memoryview(bytearray(length - SEGMENT_OVERHEAD))

    def check(self, piece: memoryview, offset: int, check: _Check) -> None:
        layout = self._pack.layout
        if offset == 0:
            if piece[:HEADER_SIZE] != self._pack.header:
                check.reason = "has another header than the index says"
            piece = piece[HEADER_SIZE:]
        length = layout.segment_length
        first = max(0, offset - HEADER_SIZE) // length
        for i in range(0, len(piece), length):
            sealed, position = piece[i : i + length], first + i // length
            if position >= layout.segments:
                return
            try:
                self._decryptor.decrypt_segment_into(
                    sealed,
                    position,
                    layout.is_final(position),
                    self._plaintext[: max(0, len(sealed) - SEGMENT_OVERHEAD)],
                )
            except IntegrityError as error:
                check.reason = check.reason or error.message
                check.bad_segments.add(position)


def _files_in(index: Index, bad: dict[str, _Check]) -> Iterator[bytes]:
    """Yield the paths of files with bytes in what is bad; all of a pack is when no segment is known to be."""
    checks: dict[int, _Check] = {}
    for number in range(index.packs):
        pack = index.pack(number)
        if pack.name in bad:
            checks[number] = bad[pack.name]
    if not checks:
        return
    for number in index.walk():
        if index.entry(number).is_file and any(
            extent.pack != HOLE
            and extent.pack in checks
            and _touches(index.pack(extent.pack), extent.offset, extent.length, checks[extent.pack])
            for extent in index.extents(number)
        ):
            yield index.path(number)


def _touches(pack: Pack, offset: int, length: int, check: _Check) -> bool:
    if not check.bad_segments:
        return True
    room = pack.layout.segment_length - SEGMENT_OVERHEAD
    return any(offset // room <= segment <= (offset + length - 1) // room for segment in check.bad_segments)
