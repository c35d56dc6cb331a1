"""Compares a folder with the newest snapshot: what is new, what can stay where it is.

The outcome is an index in the making, in which unchanged files already point at the packs that hold them, and
the list of files that have to be read.

Threading: one thread.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sealfs.dataset.content import ChangedWhileReadError, open_file
from sealfs.dataset.index import HOLE, ROOT, Extent, Index
from sealfs.dataset.index_builder import IndexBuilder
from sealfs.dataset.objects import PACKS, ObjectRef, object_id_of
from sealfs.dataset.packer import SealedPack
from sealfs.dataset.scan import Found, Refuse, fail, scan, shown
from sealfs.errors import LocalIOError, SourceFileError

Notice = Callable[[str, bytes], None]


@dataclass(slots=True)
class Plan:
    """What a push would do.

    Attributes:
        files: Number of regular files in all.
        size: Bytes in them.
        added: Files that the snapshot does not have.
        changed: Files whose content differs.
        removed: Files that only the snapshot has.
        touched: Whether anything else differs: modes, times, links, directories.
        pending_size: Bytes to read.
    """

    files: int = 0
    size: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    touched: bool = False
    pending_size: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether the folder is what the snapshot says."""
        return not (self.added or self.changed or self.removed or self.touched)


class PackTable:
    """The packs of the new snapshot: old ones that are still needed, and those just sent.

    Args:
        builder: The new index.
        index: The parent's index.
        refs: The parent's packs.
    """

    def __init__(self, builder: IndexBuilder, index: Index, refs: Sequence[ObjectRef]) -> None:
        self._builder = builder
        self._index = index
        self._old_refs = {ref.name: ref for ref in refs}
        self._kept: dict[int, int] = {}
        self._added: dict[str, int] = {}
        self.refs: list[ObjectRef] = []

    def keep(self, old: int) -> int:
        """Return the new number of the parent's pack `old`."""
        if old not in self._kept:
            pack = self._index.pack(old)
            ref = self._old_refs[pack.name]
            object_id = object_id_of(ref.name, PACKS)
            self._kept[old] = self.add(
                SealedPack(object_id, ref, pack.header, pack.epoch, pack.layout.plaintext_size)
            )
        return self._kept[old]

    def add(self, pack: SealedPack) -> int:
        """Return the number of a pack that lies in the store; adds it the first time."""
        number = self._added.get(pack.ref.name)
        if number is None:
            number = self._builder.add_pack(pack.object_id, pack.header, pack.epoch, pack.plaintext_size)
            self._added[pack.ref.name] = number
            self.refs.append(pack.ref)
        return number


class Comparison:
    """A folder held against the newest snapshot.

    Args:
        top: The folder.
        index: The snapshot's path table; an empty one if there is no snapshot yet.
        refs: The snapshot's packs.
        excludes: Globs of what to leave out.
        refuse: Told of what can't be sealed. If it returns, that stays as the snapshot has it, or out.
        checksum: Compare contents, where otherwise equal size and mtime mean unchanged.
        notice: Told of each file that differs: "A", "M" or "D", and its path.

    Attributes:
        builder: The new index; the files of `pending` have no content yet.
        packs: Its packs.
        pending: Numbers of the files that have to be read.
        plan: The sums.

    Raises:
        LocalIOError: Something in the folder can't be read or sealed.
    """

    def __init__(
        self,
        top: bytes,
        index: Index,
        refs: Sequence[ObjectRef],
        *,
        excludes: Sequence[str] = (),
        refuse: Refuse = fail,
        checksum: bool = False,
        notice: Notice | None = None,
    ) -> None:
        self._top = top
        self._index = index
        self._refuse = refuse
        self._checksum = checksum
        self._notice = notice or (lambda kind, path: None)
        try:
            status = os.stat(top)
        except OSError as error:
            raise LocalIOError(f"cannot read '{shown(top)}': {error.strerror}") from None
        if not stat.S_ISDIR(status.st_mode):
            raise LocalIOError(f"'{shown(top)}' is not a folder", "push the folder that holds it")
        self.builder = IndexBuilder(status.st_mode, status.st_mtime_ns)
        self.packs = PackTable(self.builder, index, refs)
        self.pending = array("I")
        self.plan = Plan()
        self._seen = bytearray(index.entries)
        self._numbers: dict[bytes, int] = {b"": ROOT}  # of directories
        self._changed: dict[int, int] = {}  # the snapshot's numbers of files of `pending`
        self._left_out: set[int] = set()
        self._old_directories: dict[bytes, int] = {}
        self._old_children: tuple[bytes | None, dict[bytes, int]] = (None, {})
        self._match(b"", ROOT)
        self._note_status(ROOT, status)
        self._scan(excludes)
        self._count_removed()

    def _scan(self, excludes: Sequence[str]) -> None:
        for found in scan(self._top, excludes, self._refuse_entry):
            status, parent, path = found.status, self._numbers[found.parent], found.path
            old = self._old_entry(found)
            if stat.S_ISLNK(status.st_mode):
                self.builder.add_symlink(parent, found.name, status.st_mode, found.target, status.st_mtime_ns)
                is_same = old is not None and self._index.symlink_target(old) == found.target
                self._note_status(old if is_same else None, status)
                continue
            size = status.st_size if stat.S_ISREG(status.st_mode) else 0
            number = self.builder.add(parent, found.name, status.st_mode, size, status.st_mtime_ns)
            if stat.S_ISDIR(status.st_mode):
                self._numbers[path] = number
                self._note_status(old, status)
            else:
                self._plan_file(number, path, status, old)

    def _old_entry(self, found: Found) -> int | None:
        """Return the snapshot's entry of the same name and type; it is not removed, then."""
        directory, children = self._old_children
        if directory != found.parent:
            children = {}
            if found.parent in self._old_directories:
                listed = self._index.children(self._old_directories[found.parent])
                children = {self._index.name(number): number for number in listed}
            self._old_children = (found.parent, children)
        old = children.get(found.name)
        if old is None or stat.S_IFMT(self._index.entry(old).mode) != stat.S_IFMT(found.status.st_mode):
            return None
        self._match(found.path, old)
        return old

    def _match(self, path: bytes, old: int) -> None:
        self._seen[old] = True
        if self._index.entry(old).is_directory:
            self._old_directories[path] = old

    def _note_status(self, old: int | None, status: os.stat_result) -> None:
        """Note whether something has another status, with the same content, or is new."""
        entry = None if old is None else self._index.entry(old)
        self.plan.touched |= entry is None or (entry.mode, entry.mtime_ns) != (status.st_mode, status.st_mtime_ns)

    def _plan_file(self, number: int, path: bytes, status: os.stat_result, old: int | None) -> None:
        self.plan.files += 1
        self.plan.size += status.st_size
        if old is not None and self._unchanged(old, path, status):
            self._note_status(old, status)
            self._keep(number, old)
            return
        if old is None:
            self.plan.added += 1
        else:
            self._changed[number] = old
            self.plan.changed += 1
        self._notice("A" if old is None else "M", path)
        self.plan.pending_size += status.st_size
        self.pending.append(number)

    def refuse(self, number: int, error: SourceFileError) -> None:
        """Let a file of `pending` be as the snapshot has it, or out of it; out, too, if it is gone.

        Raises:
            SourceFileError: This push leaves nothing out.
        """
        self._refuse(error)
        old = self._changed.get(number)
        is_gone = not self._is_there(error.path)
        if old is None:
            self.plan.added -= 1
        else:
            self.plan.changed -= 1
            self.plan.removed += is_gone
        if old is None or is_gone:
            self._left_out.add(number)
            self.plan.files -= 1
            return
        entry = self._index.entry(old)
        self.builder.set_status(number, entry.mode, entry.size, entry.mtime_ns)
        self._keep(number, old)

    def finish(self) -> IndexBuilder:
        """Return the index as it is to be, once all of `pending` is sealed or refused; the sums are now its own."""
        sizes = (self.builder.size(number) for number in self.pending if number not in self._left_out)
        self.plan.size += sum(sizes) - self.plan.pending_size
        return self.builder.without(self._left_out) if self._left_out else self.builder

    def _refuse_entry(self, error: SourceFileError) -> None:
        """Take a directory over as the snapshot has it if it can't be read, or leave it out if it is gone."""
        self._refuse(error)
        number = self._numbers.get(error.path)
        if number is None or self.builder.has_children(number):
            return
        if not self._is_there(error.path):
            self._left_out.add(number)
        elif error.path in self._old_directories:
            self._take_over(number, self._old_directories[error.path])

    def _is_there(self, path: bytes) -> bool:
        return os.path.lexists(os.path.join(self._top, path))

    def _take_over(self, number: int, old: int) -> None:
        """Let all that is in a directory be as the snapshot has it."""
        pending = deque([(number, old)])
        while pending:
            directory, old_directory = pending.popleft()
            for old_child in self._index.children(old_directory):
                entry, name = self._index.entry(old_child), self._index.name(old_child)
                self._seen[old_child] = True
                if stat.S_ISLNK(entry.mode):
                    target = self._index.symlink_target(old_child)
                    self.builder.add_symlink(directory, name, entry.mode, target, entry.mtime_ns)
                    continue
                child = self.builder.add(directory, name, entry.mode, entry.size, entry.mtime_ns)
                if entry.is_directory:
                    pending.append((child, old_child))
                else:
                    self.plan.files += 1
                    self.plan.size += entry.size
                    self._keep(child, old_child)

    def _keep(self, number: int, old: int) -> None:
        """Let a file's content be where the snapshot has it."""
        extents = [
            Extent(e.pack if e.pack == HOLE else self.packs.keep(e.pack), e.offset, e.length)
            for e in self._index.extents(old)
        ]
        self.builder.set_content(number, extents, self._index.sha256(old))

    def _unchanged(self, old: int, path: bytes, status: os.stat_result) -> bool:
        entry = self._index.entry(old)
        if entry.size != status.st_size:
            return False
        if self._checksum:
            try:
                with open_file(self._top, path) as file:
                    return file.state.size == entry.size and file.sha256() == self._index.sha256(old)
            except (ChangedWhileReadError, SourceFileError):  # shorter, or gone: sealing it will tell
                return False
        return entry.mtime_ns == status.st_mtime_ns

    def _count_removed(self) -> None:
        for number, seen in enumerate(self._seen):
            if not seen:
                self.plan.touched = True
                if self._index.entry(number).is_file:
                    self.plan.removed += 1
                    self._notice("D", self._index.path(number))
