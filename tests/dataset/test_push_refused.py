"""Push: what can't be sealed stays as it was, or out, and costs the rest nothing."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from dataset.tools import SEGMENT, Provider, State, names, sparse_file, state_of_folder
from sealfs.dataset.content import ChangedWhileReadError, OpenFile
from sealfs.dataset.dataset import Dataset, Summary
from sealfs.dataset.objects import PACKS
from sealfs.dataset.push import PushResult
from sealfs.errors import LocalIOError, SourceFileError
from sealfs.store.local import LocalStore


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """Paths of files that seem to be written whenever they have been read."""
    paths: set[bytes] = set()
    check_moment = OpenFile.check_moment

    def moment(self: OpenFile, digest: bytes) -> None:
        if self.state.path in paths:
            raise ChangedWhileReadError
        check_moment(self, digest)

    monkeypatch.setattr(OpenFile, "check_moment", moment)
    return paths


class Snapshots:
    """Takes snapshots of a folder that is being written.

    Attributes:
        refused: What the last one could not seal.
    """

    def __init__(self, provider: Provider) -> None:
        self.refused: list[bytes] = []
        self._provider = provider

    def take(self) -> PushResult:
        self.refused = []

        def refuse(error: SourceFileError) -> None:
            self.refused.append(error.path)

        return self._provider.push(checksum=True, live=True, refuse=refuse)


@pytest.fixture
def snapshots(provider: Provider) -> Snapshots:
    return Snapshots(provider)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("small_packs")
def test_each_refused_file_is_as_it_was_or_absent_and_all_others_as_they_are(
    source: Path, provider: Provider, snapshots: Snapshots,
    busy: set[bytes], seed: int,
) -> None:  # fmt: skip
    """New and known files, small ones, large ones and such with holes, links and folders between them."""
    chance = random.Random(seed)
    (source / "known").mkdir()
    state: State = {}
    for turn in range(3):
        for folder in (source, source / "known", source / f"new{turn}" / "deep"):
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(6):
                path = folder / f"{chance.choice('abc')}{number}"
                if not path.is_symlink():
                    path.write_bytes(chance.randbytes(chance.choice([0, 10, SEGMENT, 5 * (64 << 10)])))
            for name in ("link1", "link2"):
                (folder / name).unlink(missing_ok=True)
                (folder / name).symlink_to(f"to {turn}")
        sparse_file(source / "holes", 2 + turn)
        before, now = state, state_of_folder(source)
        files = [path for path, (mode, _, _) in now.items() if mode & 0o170000 == 0o100000]
        busy.clear()
        chosen = chance.sample(files, len(files) // 2)
        busy |= {path[1:] for path in chosen}
        snapshots.take()
        changed = {path for path in chosen if path not in before or before[path][2] != now[path][2]}
        assert sorted(snapshots.refused) == sorted(path[1:] for path in changed)
        expected = {path: before.get(path) if path in changed else found for path, found in now.items()}
        state = provider.served()
        assert state == {path: found for path, found in expected.items() if found is not None}
        assert list(state) == [path for path in expected if path in state], "another order"


def test_many_busy_files_cost_no_more_than_themselves(
    source: Path, local_store: LocalStore, snapshots: Snapshots, busy: set[bytes], tmp_path: Path
) -> None:
    """What is quiet is sent once, and nothing lies about that no snapshot needs."""
    (source / "model").write_bytes(os.urandom(1 << 20))
    for number in range(100):
        (source / f"busy {number}").write_bytes(os.urandom(100))
        (source / f"quiet {number}").write_bytes(os.urandom(100))
        busy.add(b"busy %d" % number)
    result = snapshots.take()
    assert set(snapshots.refused) == busy
    assert result.sent < 2 << 20
    assert len(names(local_store, PACKS)) == 1
    assert sum(path.stat().st_size for path in (tmp_path / "store").rglob("*") if path.is_file()) < 2 << 20


def test_nothing_but_refused_files_makes_no_snapshot(source: Path, snapshots: Snapshots, busy: set[bytes]) -> None:
    (source / "log").write_bytes(b"1")
    assert snapshots.take().snapshot is not None
    busy.add(b"log")
    (source / "log").write_bytes(b"2")
    assert snapshots.take().snapshot is None
    assert snapshots.refused == [b"log"]
    busy.clear()
    assert snapshots.take().snapshot is not None


def test_the_signed_sums_are_those_of_the_index(
    source: Path, provider: Provider, snapshots: Snapshots, busy: set[bytes], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Files grow, shrink and go between the look at them and their reading."""
    for name, size in (("busy", 100), ("grows", 5), ("shrinks", 50), ("goes", 500), ("stays", 7)):
        (source / name).write_bytes(bytes(size))
    snapshots.take()
    for path in source.iterdir():
        path.write_bytes(path.read_bytes() + b"+")
    (source / "new and gone").write_bytes(bytes(1000))
    busy.add(b"busy")
    real = os.open

    def meddling(path: Any, flags: int, *rest: int, **words: Any) -> int:
        if os.fsencode(path).endswith(b"/grows"):
            with (source / "grows").open("ab") as file:
                file.write(b"more")
        if os.fsencode(path).endswith(b"/shrinks"):
            os.truncate(source / "shrinks", 3)
        for name in ("goes", "new and gone"):
            if os.fsencode(path).endswith(b"/" + os.fsencode(name)):
                (source / name).unlink(missing_ok=True)
        return real(path, flags, *rest, **words)

    with monkeypatch.context() as patch:
        patch.setattr("os.open", meddling)
        result = snapshots.take()
    state = provider.served()
    sizes = {path[1:]: len(found) for path, (_, _, found) in state.items() if path}
    assert sizes == {b"busy": 100, b"grows": sizes[b"grows"], b"shrinks": 3, b"stays": 8}
    dataset = Dataset.open(provider.store, provider.trust)
    summary = Summary.open(dataset.snapshot, dataset.keys(provider.identity))
    assert (summary.files, summary.size) == (len(sizes), sum(sizes.values()))
    assert (summary.added, summary.changed, summary.removed) == (0, 3, 1)
    assert (result.plan.files, result.plan.size) == (summary.files, summary.size)


def let_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    """Temporary files go between the listing of their folder and the look at them."""
    real = os.lstat

    def vanishing(path: Any, *rest: Any, **words: Any) -> os.stat_result:
        if os.fsencode(path).endswith(b".tmp"):
            Path(os.fsdecode(path)).unlink(missing_ok=True)
        return real(path, *rest, **words)

    monkeypatch.setattr("os.lstat", vanishing)


def test_what_vanishes_ends_a_push_that_leaves_nothing_out(
    source: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that lists what it does not find is no reason to seal less."""
    (source / "a.tmp").touch()
    with monkeypatch.context() as patch:
        let_vanish(patch)
        with pytest.raises(SourceFileError, match=r"'a\.tmp' vanished"):
            provider.push()


@pytest.mark.parametrize("place", ["", "folder"])
def test_what_vanishes_while_its_folder_is_listed_takes_nothing_with_it(
    source: Path, provider: Provider, snapshots: Snapshots,
    monkeypatch: pytest.MonkeyPatch, place: str,
) -> None:  # fmt: skip
    """Scripts write to a temporary name and rename; a folder must not seem empty for that."""
    folder = source / place
    folder.mkdir(exist_ok=True)
    (folder / "weights").write_bytes(b"weights")
    snapshots.take()
    (folder / "a.tmp").write_bytes(b"x")
    (folder / "z.tmp").write_bytes(b"x")
    with monkeypatch.context() as patch:
        let_vanish(patch)
        snapshots.take()
    assert {os.path.basename(path) for path in snapshots.refused} == {b"a.tmp", b"z.tmp"}
    found = {path: content for path, (_, _, content) in provider.served().items()}
    assert found == {path: content for path, (_, _, content) in state_of_folder(source).items()}


def refuse_to_list(monkeypatch: pytest.MonkeyPatch, name: str, error: int) -> None:
    real = os.scandir

    def refusing(path: Any) -> Any:
        if not isinstance(path, int) and os.fsencode(path).endswith(os.fsencode(name)):
            if error == errno.ENOENT:
                shutil.rmtree(path)
            raise OSError(error, os.strerror(error))
        return real(path)

    monkeypatch.setattr("os.scandir", refusing)


@pytest.mark.parametrize("error", [errno.EACCES, errno.EMFILE, errno.EIO])
def test_a_folder_that_cannot_be_listed_stays_as_it_was(
    source: Path, provider: Provider, snapshots: Snapshots,
    monkeypatch: pytest.MonkeyPatch, error: int,
) -> None:  # fmt: skip
    """Not empty: the newest snapshot would have lost what is there, because a script ran out of descriptors."""
    (source / "runs" / "first" / "empty").mkdir(parents=True)
    (source / "runs" / "first" / "weights").write_bytes(b"weights" * 1000)
    (source / "runs" / "link").symlink_to("first")
    (source / "last").write_bytes(b"1")
    snapshots.take()
    before = state_of_folder(source)
    (source / "runs" / "first" / "weights").write_bytes(b"not seen")
    (source / "last").write_bytes(b"2")
    with monkeypatch.context() as patch:
        refuse_to_list(patch, "runs", error)
        result = snapshots.take()
    assert snapshots.refused == [b"runs"]
    assert (result.plan.files, result.plan.size, result.plan.removed) == (2, 7001, 0)
    found = provider.served()
    assert found.pop(b"/last")[2] == b"2"
    before.pop(b"/last")
    assert found == before


def test_a_folder_that_goes_before_it_is_listed_is_gone(
    source: Path, provider: Provider, snapshots: Snapshots,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("a", "b", "c"):
        (source / name / "deep").mkdir(parents=True)
        (source / name / "deep" / "file").write_bytes(name.encode())
    snapshots.take()
    (source / "new").mkdir()
    with monkeypatch.context() as patch:
        refuse_to_list(patch, "source/b", errno.ENOENT)
        snapshots.take()
    assert snapshots.refused == [b"b"]
    found = provider.served()
    expected = state_of_folder(source)
    del found[b""], expected[b""]  # its time was looked at before
    assert found == expected


def test_a_folder_that_cannot_be_listed_at_all_makes_no_snapshot(
    source: Path, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "file").write_bytes(b"1")
    snapshots.take()
    with monkeypatch.context() as patch:
        refuse_to_list(patch, "source", errno.EMFILE)
        with pytest.raises(LocalIOError, match=r"cannot read '\.'"):
            snapshots.take()
