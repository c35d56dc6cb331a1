"""Push: files that will not hold still, which are read again and never stored torn."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset.tools import (
    SEGMENT,
    Provider,
    names,
    opened,
    push,
    read,
    sparse_file,
    state_of_folder,
    state_of_view,
)
from sealfs.dataset import content
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.objects import HEAD
from sealfs.dataset.trust import TrustStore
from sealfs.errors import (
    LocalIOError,
    NotADatasetError,
)
from sealfs.keys import Identity
from sealfs.store.local import LocalStore


class Meddler:
    """Does something to a source file after so many reads of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, deeds: list[Callable[[], None]]) -> None:
        self.reads = 0
        inode, real = path.stat().st_ino, os.preadv

        def meddling(descriptor: int, buffers: list[memoryview], offset: int, *rest: int) -> int:
            count = real(descriptor, buffers, offset, *rest)
            if os.fstat(descriptor).st_ino == inode:
                self.reads += 1
                if deeds:
                    deeds.pop(0)()
            return count

        monkeypatch.setattr("os.preadv", meddling)


@pytest.mark.parametrize("size", [3 * SEGMENT, 5 * (64 << 10)])
@pytest.mark.parametrize("times", [1, 2, 3])
@pytest.mark.usefixtures("small_packs")
def test_a_file_that_changes_while_it_is_read_is_read_again(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, size: int, times: int
) -> None:
    path = provider.source / "file"
    path.write_bytes(b"0" * size)
    generation = iter(range(1, 10))

    def rewrite() -> None:
        with path.open("r+b") as file:
            file.write(bytes([next(generation)]) * size)

    Meddler(monkeypatch, path, [rewrite] * times)
    provider.push()
    with opened(provider.store, provider.identity, provider.trust) as view:
        assert state_of_view(view) == state_of_folder(provider.source)
        assert read(view, view.lookup(b"file")) == bytes([times]) * size


@pytest.mark.parametrize("size", [3 * SEGMENT, 5 * (64 << 10)])
@pytest.mark.usefixtures("small_packs")
def test_a_file_that_never_holds_still_ends_the_push(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path = provider.source / "restless"
    path.write_bytes(bytes(size))
    Meddler(monkeypatch, path, [lambda: os.utime(path)] * 1000)
    with pytest.raises(LocalIOError, match="'restless' keeps changing"):
        provider.push()
    assert HEAD not in names(provider.store)
    with pytest.raises(NotADatasetError):
        Dataset.open(provider.store, provider.trust)


@pytest.mark.parametrize("left", [0, 10, 5000, (1 << 20) + 100])
@pytest.mark.parametrize("at", range(6))
@pytest.mark.usefixtures("small_packs")
def test_a_sparse_file_that_is_cut_while_it_is_read_takes_no_other_file_with_it(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, left: int, at: int
) -> None:
    # the half-read pieces of the large file wait in the very pack that small files go to next
    names_in_order = [b"a", b"b", b"c"]
    for name in names_in_order:
        (provider.source / name.decode()).write_bytes(name * 1000)
    big = provider.source / "big"
    sparse_file(big, 4)
    calls, real = iter(range(1000)), os.lseek

    def meddling(descriptor: int, offset: int, how: int) -> int:
        found = real(descriptor, offset, how)  # looks for data, then for a hole, and so on
        if next(calls) == at:
            os.truncate(big, left)
        return found

    monkeypatch.setattr("os.lseek", meddling)
    provider.push()
    assert provider.served() == state_of_folder(provider.source)


@pytest.mark.parametrize("refused", [{os.SEEK_DATA, os.SEEK_HOLE}, {os.SEEK_HOLE}])
@pytest.mark.usefixtures("small_packs")
def test_a_sparse_file_where_nobody_finds_holes_is_all_data(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, refused: set[int]
) -> None:
    # so is every larger file in Gramine's memory: it counts no blocks, and knows neither call
    sparse_file(provider.source / "big", 4)
    real, tried = os.lseek, set()

    def lesser(descriptor: int, offset: int, how: int) -> int:
        if how in refused:
            tried.add(how)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, offset, how)

    with monkeypatch.context() as patch:
        patch.setattr("os.lseek", lesser)
        provider.push()
    assert tried == refused
    assert provider.served() == state_of_folder(provider.source)


@pytest.mark.parametrize("left", [0, 100])
def test_a_file_that_is_cut_while_it_is_compared_is_pushed_as_it_is(
    provider: Provider, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    path = provider.source / "file"
    path.write_bytes(bytes(3 << 20))
    provider.push()
    Meddler(monkeypatch, path, [lambda: os.truncate(path, left)])
    provider.push(checksum=True)
    assert provider.served() == state_of_folder(provider.source)


@pytest.mark.usefixtures("small_packs")
def test_a_writer_at_work_never_leaves_a_torn_file(provider: Provider) -> None:
    size, count = 20_000, 24
    paths = [provider.source / f"{n:02}" for n in range(count)]
    for path in paths:
        path.write_bytes(b"\0" * size)
    stop = threading.Event()

    def write() -> None:
        generation = 0
        while not stop.is_set():
            generation = generation % 250 + 1
            for path in paths[generation % 4 :: 4]:
                with path.open("r+b", buffering=0) as file:
                    file.write(bytes([generation]) * size)
                time.sleep(0.0005)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(12):
            with contextlib.suppress(LocalIOError):  # some file keeps changing
                provider.push()
    finally:
        stop.set()
        writer.join()
    provider.push()
    newest = Dataset.open(provider.store, provider.trust).newest.version
    for version in range(1, newest + 1):
        for path, (_, _, data) in provider.served(version).items():
            assert len(set(data)) <= 1, f"{path!r} of version {version} is torn"


def test_a_file_replaced_by_a_link_is_not_followed(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tree / "script"
    real = content.open_file

    def swapping(top: bytes, relative: bytes) -> Any:
        if relative == b"script" and not path.is_symlink():
            path.unlink()
            path.symlink_to("/etc/hostname")
        return real(top, relative)

    monkeypatch.setattr("sealfs.dataset.sealing.open_file", swapping)
    with pytest.raises(LocalIOError, match="script"):
        push(tree, local_store, identity, trust)


@pytest.mark.parametrize("become", ["gone", "folder", "fifo"])
def test_a_file_that_vanishes_or_changes_its_kind(
    tree: Path,
    local_store: LocalStore,
    identity: Identity,
    trust: TrustStore,
    monkeypatch: pytest.MonkeyPatch,
    become: str,
) -> None:
    path, real = tree / "script", content.open_file

    def swapping(top: bytes, relative: bytes) -> Any:
        if relative == b"script" and path.is_file():
            path.unlink()
            if become == "folder":
                path.mkdir()
            elif become == "fifo":
                os.mkfifo(path)
        return real(top, relative)

    monkeypatch.setattr("sealfs.dataset.sealing.open_file", swapping)
    with pytest.raises(LocalIOError, match="'script'") as caught:
        push(tree, local_store, identity, trust)
    assert caught.value.hint
    assert HEAD not in names(local_store)
