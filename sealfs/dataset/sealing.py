"""Reads the files that a push has to send, and seals them into packs.

Small files lie one after another in shared packs, in listing order; a file larger than a pack gets packs of its
own. A file that changes while it is read is read again; one that never holds still ends the push. Its times tell
whether it changed, or, where somebody is writing, reading it twice.

Threading: the caller's thread reads; the pack writer's workers seal and send.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sealfs.dataset.compare import PackTable
from sealfs.dataset.content import ChangedWhileReadError, FileState, OpenFile, Run, open_file
from sealfs.dataset.index import HOLE, Extent
from sealfs.dataset.index_builder import IndexBuilder
from sealfs.dataset.packer import PackWriter, Piece, SealedPack, Seals
from sealfs.dataset.scan import shown
from sealfs.errors import SourceFileError, UsageError
from sealfs.progress import Progress
from sealfs.store.base import ObjectStore

_READ_TRIES = 4
_WAITS = 2  # in a row, until a file has settled: one that is written again during both never will
_ZEROS = bytes(1 << 20)

SentPacks = list[tuple[SealedPack, list[Piece]]]


class Earlier:
    """What a push that was killed had already sent.

    Args:
        packs: From its journal; all of them still lie in the store.
    """

    def __init__(self, packs: SentPacks) -> None:
        self._pieces = {
            (piece.state, piece.offset, piece.length): (pack, piece) for pack, pieces in packs for piece in pieces
        }

    def find(self, state: FileState, offset: int, length: int) -> tuple[SealedPack, Piece] | None:
        """Return where this run of this state of a file lies already."""
        return self._pieces.get((state, offset, length))


@dataclass(slots=True, eq=False)
class _Reading:
    """One try at reading one file."""

    number: int
    given_up: bool = False
    holes: list[Run] = field(default_factory=list)
    sent: list[tuple[SealedPack, Piece]] = field(default_factory=list)
    digest: bytes = b""


class FileSealer:
    """Seals files of one folder.

    Args:
        top: The folder.
        store: Where packs go.
        seal: Seals and sends a pack.
        builder: The new index; gets the files' contents.
        packs: Its packs.
        earlier: What need not be sent again.
        sent: Called with each pack that has been sent and its pieces.
        progress: Told of the bytes read.
        refuse: Told of each file that can't be sealed, and why. If it returns, the others are sealed.
        jobs: How many packs are sent at once.
        live: Whether the folder is being written, see `PushOptions.live`.
        max_size: Most bytes of content that may be sent; None for any number.

    Attributes:
        resumed: Bytes that an earlier push had sent.
    """

    def __init__(
        self,
        top: bytes,
        store: ObjectStore,
        seal: Seals,
        builder: IndexBuilder,
        packs: PackTable,
        *,
        earlier: Earlier,
        sent: Callable[[SealedPack, list[Piece]], None],
        progress: Progress,
        refuse: Callable[[int, SourceFileError], None],
        jobs: int,
        live: bool,
        max_size: int | None,
    ) -> None:
        self._top = top
        self._store = store
        self._builder = builder
        self._packs = packs
        self._earlier = earlier
        self._sent = sent
        self._progress = progress
        self._refuse = refuse
        self._live = live
        self._left = max_size
        self._writer: PackWriter[_Reading] = PackWriter(seal, self._pack_done, jobs)
        self._large: list[_Reading] = []
        self._new: set[str] = set()  # names of the packs that this push sent
        self.resumed = 0

    def seal(self, numbers: Iterable[int]) -> None:
        """Seal these files; when it returns all their bytes lie in the store and the index says where.

        Raises:
            SourceFileError: A file can't be read, or changes all the time, and `refuse` raised that.
            UsageError: There is more than may be sent.
        """
        self._count(0)  # names alone may be too much
        try:
            for number in numbers:
                try:
                    self._seal_file(number)
                except SourceFileError as error:
                    self._refuse(number, error)
            self._writer.finish()
        finally:
            self._writer.close()
        for reading in self._large:
            if not reading.given_up:
                self._finish_large(reading)
        self._store.delete(self._new.difference(ref.name for ref in self._packs.refs))

    def _seal_file(self, number: int) -> None:
        path = self._builder.path(number)
        tries = waits = 0
        while tries < _READ_TRIES and waits < _WAITS:
            with open_file(self._top, path) as file:
                if not self._live and not file.has_settled():
                    waits += 1
                    continue
                tries, waits = tries + 1, 0
                reading = _Reading(number)
                try:
                    if file.state.size <= self._writer.capacity and not file.sparse:
                        self._read_small(reading, file)
                    else:
                        self._read_large(reading, file)
                except ChangedWhileReadError:
                    continue
                self._progress.advance(file.state.size)
                return
        raise SourceFileError(
            f"'{shown(path)}' keeps changing while it is read",
            "push from a quiet copy or a file system snapshot, or use --exclude",
            path,
        )

    def _set_status(self, number: int, file: OpenFile) -> None:
        self._builder.set_status(number, file.mode, file.state.size, file.state.mtime_ns)

    def _read_small(self, reading: _Reading, file: OpenFile) -> None:
        state, number = file.state, reading.number
        if state.size == 0:
            digest = hashlib.sha256().digest()
            self._check(file, digest)
            self._set_status(number, file)
            self._builder.set_content(number, [], digest)
            return
        found = None if self._live else self._earlier.find(state, 0, state.size)
        if found is not None:
            pack, piece = found
            self.resumed += state.size
            self._set_status(number, file)
            self._set_small(number, pack, piece)
            return
        room = self._writer.room(state.size)[: state.size]
        file.read_into(0, room)
        digest = hashlib.sha256(room).digest()
        self._check(file, digest)
        self._set_status(number, file)
        self._count(state.size)
        self._writer.add(reading, state, 0, state.size, digest)

    def _count(self, size: int) -> None:
        """Make sure that so many bytes more may be sent."""
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                raise UsageError("there is more to seal than may be sent", "nothing of it was published")

    def _check(self, file: OpenFile, digest: bytes) -> None:
        """Make sure that what was read of a file is one state of it."""
        if self._live:
            file.check_moment(digest)
        else:
            file.check_unchanged()

    def _set_small(self, number: int, pack: SealedPack, piece: Piece) -> None:
        extent = Extent(self._packs.add(pack), piece.pack_offset, piece.length)
        self._builder.set_content(number, [extent], piece.sha256)

    def _read_large(self, reading: _Reading, file: OpenFile) -> None:
        self._large.append(reading)
        self._writer.flush()
        try:
            self._read_runs(reading, file)
        except (ChangedWhileReadError, OSError):
            reading.given_up = True
            raise
        finally:
            self._writer.flush()  # what was read of it in vain shares no pack with what follows

    def _read_runs(self, reading: _Reading, file: OpenFile) -> None:
        digest = hashlib.sha256()
        for run in file.runs():
            if run.hole:
                reading.holes.append(run)
                for offset in range(0, run.length, len(_ZEROS)):
                    digest.update(_ZEROS[: run.length - offset])
                continue
            offset = run.offset
            while offset < run.offset + run.length:
                offset += self._read_piece(reading, file, offset, run.offset + run.length - offset, digest.update)
        self._writer.flush()
        reading.digest = digest.digest()
        self._check(file, reading.digest)
        self._set_status(reading.number, file)

    def _read_piece(
        self, reading: _Reading, file: OpenFile, offset: int, left: int, hash_bytes: Callable[[memoryview], None]
    ) -> int:
        room = self._writer.room(min(left, self._writer.capacity))
        room = room[: min(left, len(room))]
        file.read_into(offset, room)
        hash_bytes(room)
        digest = hashlib.sha256(room).digest()
        found = self._earlier.find(file.state, offset, len(room))
        if found is not None and found[1].sha256 == digest:
            reading.sent.append(found)
            self.resumed += len(room)
        else:
            self._count(len(room))
            self._writer.add(reading, file.state, offset, len(room), digest)
        return len(room)

    def _pack_done(self, pack: SealedPack, pieces: list[tuple[_Reading, Piece]]) -> None:
        self._sent(pack, [piece for _, piece in pieces])
        self._new.add(pack.ref.name)
        for reading, piece in pieces:
            if reading in self._large:
                reading.sent.append((pack, piece))
            else:
                self._set_small(reading.number, pack, piece)

    def _finish_large(self, reading: _Reading) -> None:
        runs = [
            (piece.offset, Extent(self._packs.add(pack), piece.pack_offset, piece.length))
            for pack, piece in reading.sent
        ]
        runs += [(hole.offset, Extent(HOLE, 0, hole.length)) for hole in reading.holes]
        extents = [extent for _, extent in sorted(runs, key=lambda run: run[0])]
        self._builder.set_content(reading.number, extents, reading.digest)
