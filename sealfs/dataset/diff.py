"""`sealfs diff`: what changed between two snapshots.

Threading: stateless.
"""

from __future__ import annotations

from collections.abc import Iterator

from sealfs.dataset.index import ROOT, Index
from sealfs.dataset.scan import join


def diff(old: Index, new: Index) -> Iterator[tuple[str, bytes]]:
    """Yield ("A" added, "M" modified or "D" deleted, path) for everything that differs, by path."""
    yield from _diff_directory(old, ROOT, new, ROOT, b"")


def _diff_directory(old: Index, left: int, new: Index, right: int, path: bytes) -> Iterator[tuple[str, bytes]]:
    before = {old.name(number): number for number in old.children(left)}
    after = {new.name(number): number for number in new.children(right)}
    for name in sorted(before.keys() | after.keys()):
        here = join(path, name)
        if name not in after:
            yield from (("D", old.path(number)) for number in old.walk(before[name]))
        elif name not in before:
            yield from (("A", new.path(number)) for number in new.walk(after[name]))
        else:
            yield from _diff_entry(old, before[name], new, after[name], here)


def _diff_entry(old: Index, left: int, new: Index, right: int, path: bytes) -> Iterator[tuple[str, bytes]]:
    a, b = old.entry(left), new.entry(right)
    if a.is_directory and b.is_directory:
        if a.mode != b.mode:
            yield "M", path
        yield from _diff_directory(old, left, new, right, path)
    elif a.is_directory or b.is_directory:
        yield from (("D", old.path(number)) for number in old.walk(left))
        yield from (("A", new.path(number)) for number in new.walk(right))
    elif (a.mode, a.size) != (b.mode, b.size) or _content(old, left) != _content(new, right):
        yield "M", path


def _content(index: Index, number: int) -> bytes:
    return index.sha256(number) if index.entry(number).is_file else index.symlink_target(number)
