"""What is mounted is what was pushed: names, order, attributes and bytes."""

from __future__ import annotations

import filecmp
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import Mounted, Sealfs, mounted

from mount import trees


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tree") / "source"
    trees.build(top)
    return top


@pytest.fixture(scope="module")
def store(source: Path, provider: Sealfs) -> Path:
    provider("push", source, provider.home / "store")
    return provider.home / "store"


@pytest.fixture(scope="module")
def tree(store: Path, provider: Sealfs) -> Iterator[Mounted]:
    with mounted(provider, store, provider.home / "mnt") as mount:
        yield mount


def test_names_order_and_attributes(tree: Mounted, source: Path) -> None:
    expected, found = trees.described(source), trees.described(tree.path)
    assert list(found) == list(expected)  # os.listdir's order is training order
    assert found == expected
    top, source_top = tree.path.stat(), source.stat()
    assert (top.st_mode, top.st_mtime_ns) == (source_top.st_mode, source_top.st_mtime_ns)


def test_scandir_lists_in_the_providers_order(tree: Mounted, source: Path) -> None:
    for folder in ("crowd", "sizes", "odd", ""):
        with os.scandir(source / folder) as expected, os.scandir(tree.path / folder) as found:
            assert [(e.name, e.is_dir(), e.is_symlink()) for e in found] == [
                (e.name, e.is_dir(), e.is_symlink()) for e in expected
            ]


def test_bytes(tree: Mounted, source: Path) -> None:
    compared = 0
    for path, status in trees.walk(source):
        if status.st_mode & 0o170000 == 0o100000 and (status.st_size or not path.startswith(b"crowd/")):
            same = filecmp.cmp(
                os.path.join(os.fsencode(source), path), os.path.join(os.fsencode(tree.path), path), False
            )
            assert same, path
            compared += 1
    assert compared > len(trees.SIZES) + len(trees.ODD_NAMES)


@pytest.mark.parametrize("size", [4097, trees.SEGMENT + 1, trees.WHOLE_FILE_LIMIT + 1, trees.BIG])
def test_odd_reads(tree: Mounted, source: Path, size: int) -> None:
    """Ends, middles, beyond the end, backwards: always the slice."""
    folder = "big" if size == trees.BIG else "sizes"
    content = (source / folder / str(size)).read_bytes()
    descriptor = os.open(tree.path / folder / str(size), os.O_RDONLY)
    try:
        for offset in (size - 1, size, size + 1, size - 4097, size // 2, 0, 1, 4095):
            for length in (1, 4096, 100_000, size):
                assert os.pread(descriptor, length, offset) == content[offset : offset + length]
    finally:
        os.close(descriptor)


def test_inodes_are_stable_and_each_has_its_own(tree: Mounted, store: Path, provider: Sealfs) -> None:
    def numbers(folder: Path) -> set[bytes]:
        command = ("find", ".", "-printf", "%i %P\\0")
        return set(subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout.split(b"\0"))

    first = numbers(tree.path)
    with mounted(provider, store, provider.home / "again") as again:
        assert numbers(again.path) == first
    assert len(first) > trees.CROWD
    assert len({line.split(b" ")[0] for line in first}) == len(first)
    with os.scandir(tree.path / "sizes") as entries:
        assert all(entry.inode() == entry.stat().st_ino for entry in entries)


def test_find_and_ls(tree: Mounted, source: Path) -> None:
    def said(folder: Path, *command: str) -> list[bytes]:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout.splitlines()

    for command in (
        ("find", ".", "!", "-type", "d", "-printf", "%P %y %m %s %T@ %l\\n"),
        ("find", ".", "-type", "f", "-size", "+1000k"),
        ("find", "-L", "sizes", "links/to-folder"),
    ):
        found = said(tree.path, *command)
        assert sorted(found) == sorted(said(source, *command))  # it sorts big folders by inode
        assert found
    for folder in ("sizes", "modes", "times", "odd", "links"):
        listed, expected = (
            [line.split() for line in said(top / folder, "ls", "-lnU", "--time-style=full-iso")[1:]]
            for top in (tree.path, source)
        )
        for line in listed + expected:
            if line and line[0].startswith(b"d"):
                line[4] = b"any"  # a folder's size
            line[1:2] = []  # how many names it has
        assert listed == expected


def test_listing_many_while_others_read(tree: Mounted, source: Path) -> None:
    expected = os.listdir(source / "crowd")
    content = (source / "big" / str(trees.BIG)).read_bytes()
    failures: list[str] = []

    def list_it() -> None:
        for _ in range(3):
            if os.listdir(tree.path / "crowd") != expected:
                failures.append("a listing differs")

    def read_it() -> None:
        descriptor = os.open(tree.path / "big" / str(trees.BIG), os.O_RDONLY)
        try:
            for offset in range(0, trees.BIG, 3_000_001):
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                if os.pread(descriptor, 50_000, offset) != content[offset : offset + 50_000]:
                    failures.append(f"bytes at {offset} differ")
        finally:
            os.close(descriptor)

    threads = [threading.Thread(target=work) for work in (list_it, read_it, list_it, read_it)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_listing_read_in_pieces_and_from_where_it_was(tree: Mounted, source: Path) -> None:
    """Programs keep directory streams open, and come back to them."""
    expected = os.listdir(source / "crowd")
    with os.scandir(tree.path / "crowd") as first, os.scandir(tree.path / "crowd") as second:
        names = [(a.name, b.name) for a, b in zip(first, second, strict=True)]
    assert names == [(name, name) for name in expected]


def test_sparse_file_reads_fast_and_right(tree: Mounted) -> None:
    with (tree.path / "sparse").open("rb") as file:
        assert file.seek(0, os.SEEK_END) == 300 << 20
        file.seek((100 << 20) - 3)
        assert file.read(15) == b"\0\0\0an island\0\0\0"
        file.seek((300 << 20) - 5)
        assert file.read() == bytes(5)


def test_statvfs(tree: Mounted, source: Path) -> None:
    numbers = os.statvfs(tree.path)
    total = sum(status.st_size for _, status in trees.walk(source) if status.st_mode & 0o170000 == 0o100000)
    assert abs(numbers.f_blocks * numbers.f_frsize - total) < 1 << 20
    assert numbers.f_bfree == numbers.f_bavail == 0
    assert numbers.f_files > trees.CROWD
    assert numbers.f_namemax == 255
    assert numbers.f_flag & os.ST_RDONLY


def test_another_version_stays_what_it_was(provider: Sealfs, sealfs: Sealfs, tmp_path: Path) -> None:
    source, store = tmp_path / "source", tmp_path / "store"
    source.mkdir()
    (source / "file").write_text("old")
    provider("push", source, store)
    (source / "file").write_text("newer")
    (source / "another").write_text("x")
    provider("push", source, store)
    with (
        mounted(sealfs, f"{store}@1", tmp_path / "old") as old,
        mounted(sealfs, store, tmp_path / "new") as new,
    ):
        assert ((old.path / "file").read_text(), os.listdir(old.path)) == ("old", ["file"])
        assert (new.path / "file").read_text() == "newer"
        assert sorted(os.listdir(new.path)) == ["another", "file"]
        assert (old.status()["version"], new.status()["version"]) == (1, 2)
