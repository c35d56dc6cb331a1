"""Push: what it reads and sends, files that will not hold still, races, and stores that cannot be trusted."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset.tools import SEGMENT, Spy, names, opened, pull, push, read, state_of_folder, state_of_view
from sealfs.dataset import content
from sealfs.dataset.compare import Plan
from sealfs.dataset.dataset import Dataset, Summary
from sealfs.dataset.objects import HEAD, INDEXES, PACKS, PUSHES, SNAPSHOTS
from sealfs.dataset.push import Push
from sealfs.dataset.trust import TrustStore
from sealfs.errors import (
    ConflictError,
    LocalIOError,
    NotADatasetError,
    StoreError,
    TrustError,
    UsageError,
)
from sealfs.keys import Identity
from sealfs.store.base import ReadableBuffer
from sealfs.store.local import LocalStore


class Opens:
    """Which source files are opened for reading, and how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths: Counter[bytes] = Counter()
        real = content.open_file

        def counting(top: bytes, path: bytes) -> Any:
            self.paths[path] += 1
            return real(top, path)

        for module in ("sealing", "compare"):
            monkeypatch.setattr(f"sealfs.dataset.{module}.open_file", counting)

    def since(self) -> set[bytes]:
        found = set(self.paths)
        self.paths.clear()
        return found


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> Opens:
    return Opens(monkeypatch)


def test_everything_arrives(tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore) -> None:
    result = push(tree, local_store, identity, trust, message="first")
    assert result.snapshot is not None
    assert result.snapshot.version == 1
    with opened(local_store, identity, trust) as view:
        assert list(state_of_view(view).items()) == list(state_of_folder(tree).items())
    dataset = Dataset.open(local_store, trust)
    summary = Summary.open(dataset.snapshot, dataset.keys(identity))
    assert (summary.action, summary.message, summary.added) == ("push", "first", result.plan.files)
    assert not names(local_store, PUSHES)


def test_an_empty_folder_and_an_empty_file_are_datasets(
    tmp_path: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    push(source, local_store, identity, trust)
    (source / "empty").touch()
    push(source, local_store, identity, trust)
    assert not names(local_store, PACKS)
    for version, count in ((1, 1), (2, 2)):
        with opened(local_store, identity, trust, version) as view:
            assert len(state_of_view(view)) == count


# --- incremental ---


def test_unchanged_files_are_neither_read_nor_sent(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, opens: Opens
) -> None:
    push(tree, local_store, identity, trust)
    assert opens.since()
    before = names(local_store)
    result = push(tree, local_store, identity, trust)
    assert result.snapshot is None
    assert result.plan.is_empty
    assert opens.since() == set()
    assert names(local_store) == before


def test_only_what_changed_is_read_and_sent(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, opens: Opens
) -> None:
    push(tree, local_store, identity, trust)
    opens.since()
    packs = names(local_store, PACKS)
    (tree / "images" / "03.bin").write_bytes(b"other")
    (tree / "new").write_bytes(b"new")
    (tree / "nothing").unlink()
    (tree / "script").chmod(0o700)
    result = push(tree, local_store, identity, trust)
    assert opens.since() == {b"images/03.bin", b"new"}
    assert (result.plan.added, result.plan.changed, result.plan.removed) == (1, 1, 1)
    assert len(names(local_store, PACKS) - packs) == 1
    assert result.sent < 4 * SEGMENT
    with opened(local_store, identity, trust) as view:
        assert list(state_of_view(view).items()) == list(state_of_folder(tree).items())


def test_checksum_finds_what_hides_behind_an_old_time_and_sends_no_more(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, opens: Opens
) -> None:
    push(tree, local_store, identity, trust)
    sly, honest = tree / "images" / "05.bin", tree / "images" / "06.bin"
    before = sly.stat()
    sly.write_bytes(b"S" * before.st_size)
    os.utime(sly, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.utime(honest)
    opens.since()
    assert push(tree, local_store, identity, trust, checksum=True).plan.changed == 1
    assert len(opens.paths) >= 15
    assert opens.paths[b"images/05.bin"] == 2
    assert opens.paths[b"images/06.bin"] == 1
    with opened(local_store, identity, trust) as view:
        assert list(state_of_view(view).items()) == list(state_of_folder(tree).items())


def test_without_checksum_size_and_time_decide(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    push(tree, local_store, identity, trust)
    sly = tree / "images" / "05.bin"
    before = sly.stat()
    sly.write_bytes(b"S" * before.st_size)
    os.utime(sly, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert push(tree, local_store, identity, trust).snapshot is None


@pytest.mark.parametrize("checksum", [False, True])
def test_another_size_is_a_change_whatever_the_time_says(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, checksum: bool
) -> None:
    push(tree, local_store, identity, trust)
    sly = tree / "images" / "05.bin"
    before = sly.stat()
    os.truncate(sly, before.st_size - 1)
    os.utime(sly, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert push(tree, local_store, identity, trust, checksum=checksum).plan.changed == 1
    with opened(local_store, identity, trust) as view:
        assert state_of_view(view) == state_of_folder(tree)


def test_dry_run_writes_nothing_and_lists_what_differs(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, own_folders: Path
) -> None:
    def plan() -> tuple[Plan, list[tuple[str, bytes]]]:
        found: list[tuple[str, bytes]] = []
        return Push(tree, local_store, identity, trust).plan(lambda kind, path: found.append((kind, path))), found

    assert plan()[0].added == plan()[0].files
    assert names(local_store) == set()
    assert not (own_folders / "state" / "sealfs" / "pushes").exists()
    push(tree, local_store, identity, trust)
    before = names(local_store)
    (tree / "new").touch()
    (tree / "script").write_bytes(b"longer than before")
    (tree / "images" / "deep" / "random").unlink()
    assert sorted(plan()[1]) == [("A", b"new"), ("D", b"images/deep/random"), ("M", b"script")]
    assert names(local_store) == before


@pytest.mark.parametrize(
    ("globs", "gone"),
    [
        (["*.bin"], lambda path: path.endswith(b".bin")),
        (["images/0?.bin"], lambda path: path.startswith(b"/images/0") and path.endswith(b".bin")),
        (["deep"], lambda path: b"/deep" in path),
        (["images/"], lambda path: path.startswith(b"/images")),
        (["odd*", "link"], lambda path: b"odd" in path or path == b"/link"),
        (["*"], lambda path: path != b""),
        (["nothing like that"], lambda path: False),
    ],
)
def test_excludes(
    tree: Path,
    local_store: LocalStore,
    identity: Identity,
    trust: TrustStore,
    globs: list[str],
    gone: Callable[[bytes], bool],
) -> None:
    push(tree, local_store, identity, trust, excludes=globs)
    with opened(local_store, identity, trust) as view:
        assert list(state_of_view(view)) == [path for path in state_of_folder(tree) if not gone(path)]


# --- what cannot be sealed ---


@pytest.mark.parametrize(("kind", "called"), [("fifo", "a named pipe"), ("socket", "a socket")])
def test_what_is_no_file_is_refused_by_name(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, kind: str, called: str
) -> None:
    place = tree / "images" / "strange"
    with socket.socket(socket.AF_UNIX) as plug:
        if kind == "fifo":
            os.mkfifo(place)
        else:
            folder = os.open(tree / "images", os.O_PATH)  # a socket's address has 108 bytes at most
            plug.bind(f"/proc/self/fd/{folder}/strange")
            os.close(folder)
        with pytest.raises(LocalIOError, match=f"'images/strange' is {called}") as caught:
            push(tree, local_store, identity, trust)
        assert "--exclude 'images/strange'" in caught.value.hint
        assert names(local_store) == set()
        push(tree, local_store, identity, trust, excludes=["images/strange"])
    assert HEAD in names(local_store)


def test_device_is_refused_by_name(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    try:
        os.mknod(tree / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")
    with pytest.raises(LocalIOError, match="'null' is a character device"):
        push(tree, local_store, identity, trust)


@pytest.mark.parametrize("missing", ["no such folder", "script"])
def test_a_source_that_is_no_folder(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, missing: str
) -> None:
    with pytest.raises(LocalIOError):
        push(tree / missing, local_store, identity, trust)
    assert names(local_store) == set()


AS_NOBODY = """
import os, sys
from pathlib import Path
from sealfs.dataset.push import Push
from sealfs.dataset.trust import TrustStore
from sealfs.errors import LocalIOError
from sealfs.keys import Identity
from sealfs.store.local import LocalStore

os.setgid(65534); os.setuid(65534)
top = Path(sys.argv[1])
os.environ["XDG_STATE_HOME"] = str(top / "state")
try:
    Push(top / "source", LocalStore(top / "store"), Identity.generate(), TrustStore()).run()
except LocalIOError as error:
    print(error.message)
    sys.exit(9)
"""


@pytest.mark.parametrize(("unreadable", "mode"), [("secret", 0), ("folder", 0), ("folder", 0o600)])
def test_an_unreadable_source_is_named_and_nothing_becomes_visible(
    tmp_path_factory: pytest.TempPathFactory, unreadable: str, mode: int
) -> None:
    if os.geteuid() != 0:
        pytest.skip("becomes another user, which only root can")
    top = tmp_path_factory.mktemp("unreadable")
    for folder in (top, *top.parents[:2]):  # pytest's own folders are private
        folder.chmod(0o755)
    for name in ("state", "store"):
        (top / name).mkdir()
        os.chown(top / name, 65534, 65534)
    (top / "source" / "folder").mkdir(parents=True)
    (top / "source" / "folder" / "file").write_bytes(b"x")
    (top / "source" / "secret").write_bytes(b"x")
    (top / "source" / unreadable).chmod(mode)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, top], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert done.returncode == 9, done.stderr
    assert f"cannot read '{unreadable}" in done.stdout
    assert "Permission denied" in done.stdout
    assert HEAD not in names(LocalStore(top / "store"))


# --- files that do not hold still ---


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
    tmp_path: Path,
    local_store: LocalStore,
    identity: Identity,
    trust: TrustStore,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    times: int,
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    path = source / "file"
    path.write_bytes(b"0" * size)
    generation = iter(range(1, 10))

    def rewrite() -> None:
        with path.open("r+b") as file:
            file.write(bytes([next(generation)]) * size)

    Meddler(monkeypatch, path, [rewrite] * times)
    push(source, local_store, identity, trust)
    with opened(local_store, identity, trust) as view:
        assert state_of_view(view) == state_of_folder(source)
        assert read(view, view.lookup(b"file")) == bytes([times]) * size


@pytest.mark.parametrize("size", [3 * SEGMENT, 5 * (64 << 10)])
@pytest.mark.usefixtures("small_packs")
def test_a_file_that_never_holds_still_ends_the_push(
    tmp_path: Path,
    local_store: LocalStore,
    identity: Identity,
    trust: TrustStore,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    path = source / "restless"
    path.write_bytes(bytes(size))
    Meddler(monkeypatch, path, [lambda: os.utime(path)] * 1000)
    with pytest.raises(LocalIOError, match="'restless' keeps changing"):
        push(source, local_store, identity, trust)
    assert HEAD not in names(local_store)
    with pytest.raises(NotADatasetError):
        Dataset.open(local_store, trust)


def _sparse(path: Path, pieces: int) -> None:
    with path.open("wb") as file:
        for piece in range(pieces):
            file.seek(piece << 20)
            file.write(b"piece %d" % piece * 100)
        file.truncate(pieces << 20)


@pytest.mark.parametrize("left", [0, 10, 5000, (1 << 20) + 100])
@pytest.mark.parametrize("at", range(6))
@pytest.mark.usefixtures("small_packs")
def test_a_sparse_file_that_is_cut_while_it_is_read_takes_no_other_file_with_it(
    tmp_path: Path,
    local_store: LocalStore,
    identity: Identity,
    trust: TrustStore,
    monkeypatch: pytest.MonkeyPatch,
    left: int,
    at: int,
) -> None:
    # the half-read pieces of the large file wait in the very pack that small files go to next
    source = tmp_path / "source"
    source.mkdir()
    names_in_order = [b"a", b"b", b"c"]
    for name in names_in_order:
        (source / name.decode()).write_bytes(name * 1000)
    big = source / "big"
    _sparse(big, 4)
    calls, real = iter(range(1000)), os.lseek

    def meddling(descriptor: int, offset: int, how: int) -> int:
        found = real(descriptor, offset, how)  # looks for data, then for a hole, and so on
        if next(calls) == at:
            os.truncate(big, left)
        return found

    monkeypatch.setattr("os.lseek", meddling)
    push(source, local_store, identity, trust)
    with opened(local_store, identity, trust) as view:
        assert state_of_view(view) == state_of_folder(source)


@pytest.mark.parametrize("refused", [{os.SEEK_DATA, os.SEEK_HOLE}, {os.SEEK_HOLE}])
@pytest.mark.usefixtures("small_packs")
def test_a_sparse_file_where_nobody_finds_holes_is_all_data(
    tmp_path: Path,
    local_store: LocalStore,
    identity: Identity,
    trust: TrustStore,
    monkeypatch: pytest.MonkeyPatch,
    refused: set[int],
) -> None:
    # so is every larger file in Gramine's memory: it counts no blocks, and knows neither call
    source = tmp_path / "source"
    source.mkdir()
    _sparse(source / "big", 4)
    real, tried = os.lseek, set()

    def lesser(descriptor: int, offset: int, how: int) -> int:
        if how in refused:
            tried.add(how)
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, offset, how)

    with monkeypatch.context() as patch:
        patch.setattr("os.lseek", lesser)
        push(source, local_store, identity, trust)
    assert tried == refused
    with opened(local_store, identity, trust) as view:
        assert state_of_view(view) == state_of_folder(source)


@pytest.mark.parametrize("left", [0, 100])
def test_a_file_that_is_cut_while_it_is_compared_is_pushed_as_it_is(
    tmp_path: Path,
    local_store: LocalStore,
    identity: Identity,
    trust: TrustStore,
    monkeypatch: pytest.MonkeyPatch,
    left: int,
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    path = source / "file"
    path.write_bytes(bytes(3 << 20))
    push(source, local_store, identity, trust)
    Meddler(monkeypatch, path, [lambda: os.truncate(path, left)])
    push(source, local_store, identity, trust, checksum=True)
    with opened(local_store, identity, trust) as view:
        assert state_of_view(view) == state_of_folder(source)


@pytest.mark.usefixtures("small_packs")
def test_a_writer_at_work_never_leaves_a_torn_file(
    tmp_path: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    size, count = 20_000, 24
    paths = [source / f"{n:02}" for n in range(count)]
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
                push(source, local_store, identity, trust)
    finally:
        stop.set()
        writer.join()
    push(source, local_store, identity, trust)
    newest = Dataset.open(local_store, trust).newest.version
    for version in range(1, newest + 1):
        with opened(local_store, identity, trust, version) as view:
            for path, (_, _, data) in state_of_view(view).items():
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


# --- several writers ---


class Rival(Spy):
    """Lets somebody else push, once, just before the write of a key that starts with `moment`."""

    def __init__(self, store: LocalStore, moment: str, rival: Callable[[], None]) -> None:
        super().__init__(store)
        self._moment = moment
        self._rival: Callable[[], None] | None = rival

    def before_put(self, key: str) -> None:
        if self._rival is not None and key.startswith(self._moment):
            rival, self._rival = self._rival, None
            rival()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("moment", [PUSHES, PACKS, INDEXES, SNAPSHOTS, HEAD])
def test_of_two_pushes_at_once_one_wins_and_nothing_is_lost(
    tmp_path: Path, local_store: LocalStore, identity: Identity, first: bool, moment: str
) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    for folder in (mine, theirs):
        folder.mkdir()
        (folder / "file").write_bytes(folder.name.encode() * 5000)
    me, them = TrustStore(tmp_path / "trust-me"), TrustStore(tmp_path / "trust-them")
    if not first:
        push(mine, local_store, identity, me)
        (mine / "file").write_bytes(b"mine, again" * 5000)
    racing = Rival(local_store, moment, lambda: push(theirs, local_store, identity, them) and None)
    version = 1 if first else 2
    with pytest.raises(ConflictError, match=f"pushed version {version}") as caught:
        push(mine, racing, identity, me)
    assert "run it again" in caught.value.hint
    assert Dataset.open(local_store, me).newest.version == version
    with opened(local_store, identity, me) as view:
        assert state_of_view(view) == state_of_folder(theirs)
    packs = names(local_store, PACKS)
    again = push(mine, local_store, identity, me)
    if not first:  # same dataset, same key: what the loser sent counts
        assert again.sent == 0
        assert names(local_store, PACKS) == packs
    with opened(local_store, identity, me) as view:
        assert state_of_view(view) == state_of_folder(mine)
    with opened(local_store, identity, me, version) as view:
        assert state_of_view(view) == state_of_folder(theirs)


def test_many_pushes_at_once_lose_nothing(tmp_path: Path, local_store: LocalStore, identity: Identity) -> None:
    count, done, lost = 6, [], []

    def work(number: int) -> None:
        source = tmp_path / str(number)
        source.mkdir()
        (source / f"file {number}").write_bytes(bytes([number]) * 9999)
        trust = TrustStore(tmp_path / f"trust {number}")
        for _ in range(50):
            try:
                done.append((push(source, local_store, identity, trust).snapshot, number))
                return
            except ConflictError:
                lost.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    versions = {snapshot.version: number for snapshot, number in done if snapshot}
    assert sorted(versions) == list(range(1, count + 1))
    trust = TrustStore(tmp_path / "trust")
    for version, number in versions.items():
        with opened(local_store, identity, trust, version) as view:
            assert read(view, view.lookup(b"file %d" % number)) == bytes([number]) * 9999


def test_a_second_push_of_the_same_folder_waits_for_its_turn(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    told: list[str] = []

    def rival() -> None:
        with pytest.raises(ConflictError) as caught:
            push(tree, local_store, identity, trust)
        told.append(caught.value.message)

    push(tree, Rival(local_store, PACKS, rival), identity, trust)
    assert told == ["another process is pushing this folder to this address"]


class Careless(Spy):
    """A store that says yes to every condition, as some servers do."""

    def put(self, key: str, data: ReadableBuffer, *, if_absent: bool = False, if_match: str | None = None) -> str:
        return super().put(key, data)

    def has_conditional_writes(self) -> bool:
        return False


def test_a_store_that_ignores_conditions_needs_the_users_word(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    careless = Careless(local_store)
    with pytest.raises(StoreError, match="ignores conditional writes") as caught:
        push(tree, careless, identity, trust)
    assert "--single-writer" in caught.value.hint
    assert careless.puts == []
    push(tree, careless, identity, trust, single_writer=True)
    (tree / "script").write_bytes(b"changed")
    push(tree, careless, identity, trust, single_writer=True)
    with opened(local_store, identity, trust) as view:
        assert state_of_view(view) == state_of_folder(tree)


def test_even_a_single_writer_does_not_overwrite_a_head_that_moved(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    push(tree, local_store, identity, trust)
    (tree / "script").write_bytes(b"changed")

    class Both(Rival, Careless):
        pass

    racing = Both(local_store, SNAPSHOTS, lambda: push(other, local_store, identity, trust) and None)
    with pytest.raises(ConflictError):
        push(tree, racing, identity, trust, single_writer=True)
    with opened(local_store, identity, trust) as view:
        assert state_of_view(view) == state_of_folder(other)


# --- whose dataset it is ---


def test_a_stranger_cannot_push(tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore) -> None:
    push(tree, local_store, identity, trust)
    before = names(local_store)
    stranger = Identity.generate()
    with pytest.raises(TrustError, match="not this identity"):
        push(tree, local_store, stranger, trust)
    with pytest.raises(TrustError):
        push(tree, local_store, stranger, TrustStore(tree.parent / "fresh"))
    assert names(local_store) == before


def test_a_dataset_that_is_gone_is_not_silently_begun_anew(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    push(tree, local_store, identity, trust)
    local_store.delete([HEAD])
    with pytest.raises(TrustError, match="gone now") as caught:
        push(tree, local_store, identity, trust)
    assert "trust --forget" in caught.value.hint
    trust.forget(local_store.uri)
    assert push(tree, local_store, identity, trust).snapshot is not None


def test_recipients_are_added_even_when_no_file_changed(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    reader = Identity.generate()
    push(tree, local_store, identity, trust)
    result = push(tree, local_store, identity, trust, recipients=[reader.recipient, reader.recipient])
    assert result.snapshot is not None
    assert Dataset.open(local_store, trust).keyring().recipients == (identity.recipient, reader.recipient)
    with opened(local_store, reader, trust) as view:
        assert state_of_view(view) == state_of_folder(tree)
    assert push(tree, local_store, identity, trust, recipients=[reader.recipient]).snapshot is None


# --- a push that would make a dataset nobody can open ---


@pytest.mark.parametrize("message", ["x" * 70_000, "ä" * 12_000, "\0" * 12_000])
def test_a_message_that_no_reader_takes_is_refused_before_anything_is_sent(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, message: str
) -> None:
    with pytest.raises(UsageError, match="message"):
        push(tree, local_store, identity, trust, message=message)
    assert names(local_store) == set()


@pytest.mark.parametrize("message", ["x" * 9_000, "ä" * 9_000, "\n\t\0 \udcff 🐎", ""])
def test_odd_messages_arrive(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, message: str
) -> None:
    push(tree, local_store, identity, trust, message=message)
    dataset = Dataset.open(local_store, trust)
    assert Summary.open(dataset.snapshot, dataset.keys(identity)).message == message


@pytest.mark.parametrize("length", [-1, 0, 16, 32, (16 << 20) + 1, 1 << 40])
def test_a_segment_length_that_no_reader_takes_is_refused_before_anything_is_sent(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, length: int
) -> None:
    with pytest.raises(UsageError, match="segment"):
        push(tree, local_store, identity, trust, segment_length=length)
    assert names(local_store) == set()


@pytest.mark.parametrize("length", [33, 4096, 16 << 20])
def test_the_shortest_and_longest_segments_work(
    tmp_path: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, length: int
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(3000))
    push(source, local_store, identity, trust, segment_length=length)
    assert pull(local_store, identity, trust, tmp_path / "out") == state_of_folder(source)


# --- resuming ---


class Plug(Spy):
    """Pulls the plug before the write of the n-th object."""

    def __init__(self, store: LocalStore, after: int) -> None:
        super().__init__(store)
        self._left = after

    def before_put(self, key: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise StoreError("the plug was pulled")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.usefixtures("small_packs")
def test_a_push_interrupted_at_any_object_goes_on_and_sends_nothing_twice(
    tmp_path: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, version: int
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(300_000))
    before = None
    if version == 2:
        push(source, local_store, identity, trust)
        before = state_of_folder(source)
    for number in range(30):
        (source / f"{number}").write_bytes(os.urandom(9_000))
    (source / "large too").write_bytes(os.urandom(200_000))
    _sparse(source / "sparse", 3)
    own, at = names(local_store, PACKS), 0
    while True:
        plug = Plug(local_store, at)
        try:
            result = push(source, plug, identity, trust, jobs=1)
        except StoreError:
            at += 1
            if before is None:
                with pytest.raises(NotADatasetError):
                    Dataset.open(local_store, trust)
            else:
                with opened(local_store, identity, trust) as view:
                    assert state_of_view(view) == before
            continue
        break
    assert at > 3
    assert result.snapshot is not None
    assert result.snapshot.version == version
    # one pack object more than the snapshot has is one that was cut off between its write and its journal line
    sent = names(local_store, PACKS) - own
    used = {ref.name for ref in result.snapshot.packs} - own
    assert sent == used
    with opened(local_store, identity, trust) as view:
        assert list(state_of_view(view).items()) == list(state_of_folder(source).items())


@pytest.mark.usefixtures("small_packs")
def test_a_file_changed_since_the_interruption_is_read_again(
    tmp_path: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(30):
        (source / f"{number:02}").write_bytes(bytes([number]) * 9_000)
    with pytest.raises(StoreError):
        push(source, Plug(local_store, 5), identity, trust, jobs=1)
    for path in source.iterdir():
        before = path.stat()
        path.write_bytes(bytes([255]) * 9_000)  # same size, and even the same time
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert push(source, local_store, identity, trust).resumed == 0
    with opened(local_store, identity, trust) as view:
        assert state_of_view(view) == state_of_folder(source)


@pytest.mark.usefixtures("small_packs")
def test_packs_that_the_store_lost_or_cut_in_between_are_sent_again(
    tmp_path: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):
        (source / f"{number:02}").write_bytes(os.urandom(9_000))
    with pytest.raises(StoreError):
        push(source, Plug(local_store, 6), identity, trust, jobs=1)
    gone, cut, *rest = sorted(names(local_store, PACKS))
    assert rest
    local_store.delete([gone])
    data, _ = local_store.get(cut, max_size=1 << 30)
    local_store.put(cut, data[:-1])
    assert push(source, local_store, identity, trust).resumed > 0
    with opened(local_store, identity, trust) as view:
        assert state_of_view(view) == state_of_folder(source)
