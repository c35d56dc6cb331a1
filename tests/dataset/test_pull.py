"""Pull: what is there already, what is in the way, what a hostile provider would like; and diff."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dataset.tools import opened, pull, push, state_of_folder
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.diff import diff
from sealfs.dataset.index import Index
from sealfs.dataset.index_builder import IndexBuilder
from sealfs.dataset.trust import TrustStore
from sealfs.errors import IntegrityError, LocalIOError, NotADatasetError, SealfsError
from sealfs.keys import Identity
from sealfs.progress import Silent
from sealfs.pull import Pull, PullResult
from sealfs.store.local import LocalStore
from sealfs.vfs import View


@pytest.fixture
def store(tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore) -> LocalStore:
    push(tree, local_store, identity, trust)
    return local_store


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def run(store: LocalStore, identity: Identity, trust: TrustStore, out: Path, *paths: bytes) -> PullResult:
    with opened(store, identity, trust) as view:
        return Pull(view, out, Silent()).run(paths)


def test_what_is_there_already_is_left_alone(
    tree: Path, store: LocalStore, identity: Identity, trust: TrustStore, out: Path
) -> None:
    first = run(store, identity, trust, out)
    inodes = {path: path.lstat().st_ino for path in out.rglob("*") if path.is_file() and not path.is_symlink()}
    again = run(store, identity, trust, out)
    assert (again.written, again.kept) == (0, first.written)
    assert {path: path.lstat().st_ino for path in inodes} == inodes
    (out / "script").write_bytes(b"changed here")
    (out / "images" / "00.bin").unlink()
    (out / "nothing").chmod(0o600)
    assert run(store, identity, trust, out).written == 3
    assert state_of_folder(out) == state_of_folder(tree)


def test_holes_stay_holes(tree: Path, store: LocalStore, identity: Identity, trust: TrustStore, out: Path) -> None:
    run(store, identity, trust, out, b"sparse")
    assert (out / "sparse").read_bytes() == (tree / "sparse").read_bytes()
    assert 512 * (out / "sparse").stat().st_blocks <= 512 * (tree / "sparse").stat().st_blocks + (64 << 10)


@pytest.mark.parametrize(
    ("paths", "there"),
    [
        ([b"script"], {"script"}),
        ([b"images/deep"], {"images", "images/deep", "images/deep/random"}),
        (
            [b"images/deep", b"/images/deep/random", b"link"],
            {"images", "images/deep", "images/deep/random", "link"},
        ),
        ([b"empty folder"], {"empty folder"}),
    ],
)
def test_parts(
    store: LocalStore, identity: Identity, trust: TrustStore, out: Path, paths: list[bytes], there: set[str]
) -> None:
    run(store, identity, trust, out, *paths)
    assert {str(path.relative_to(out)) for path in out.rglob("*")} == there


def test_a_part_that_is_not_there(store: LocalStore, identity: Identity, trust: TrustStore, out: Path) -> None:
    with pytest.raises(NotADatasetError, match="no 'images/99'"):
        run(store, identity, trust, out, b"script", b"images/99")
    assert not out.exists()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda out: (out / "script").mkdir(parents=True), "in the way"),
        (lambda out: (out.mkdir(), (out / "images").touch()), "in the way"),
        (lambda out: (out.mkdir(), (out / "link").touch()), "in the way"),
        (lambda out: (out.mkdir(), (out / "images").symlink_to("/tmp")), "in the way"),
        (lambda out: out.touch(), "cannot write"),
    ],
)
def test_what_is_in_the_way_is_named_and_not_removed(
    store: LocalStore,
    identity: Identity,
    trust: TrustStore,
    out: Path,
    block: Callable[[Path], object],
    message: str,
) -> None:
    block(out)
    with pytest.raises(LocalIOError, match=message):
        run(store, identity, trust, out)


def test_a_link_where_a_file_goes_is_replaced_and_not_followed(
    store: LocalStore, identity: Identity, trust: TrustStore, out: Path, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    out.mkdir()
    (out / "script").symlink_to(tmp_path / "precious")
    (out / "link").symlink_to(tmp_path / "precious")
    run(store, identity, trust, out)
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not (out / "script").is_symlink()
    assert os.readlink(out / "link") == "images/00.bin"


def test_a_full_disk_leaves_no_half_file(
    store: LocalStore, identity: Identity, trust: TrustStore, out: Path, monkeypatch: pytest.MonkeyPatch, tree: Path
) -> None:
    calls, real = iter(range(1000)), os.pwrite

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if next(calls) == 5:
            raise OSError(28, "No space left on device")
        return real(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", full)
        with pytest.raises(LocalIOError, match="No space left") as caught:
            run(store, identity, trust, out)
    assert "free some space" in caught.value.hint
    assert list(out.rglob(".sealfs-*")) == []
    for path in out.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tree / path.relative_to(out)).read_bytes()
    run(store, identity, trust, out)
    assert state_of_folder(out) == state_of_folder(tree)


def test_a_digest_that_does_not_fit_leaves_no_file(tmp_path: Path, out: Path) -> None:
    builder = IndexBuilder(stat.S_IFDIR | 0o755, 0)
    builder.set_content(builder.add(0, b"file", stat.S_IFREG | 0o644, 0, 0), [], b"\1" * 32)
    with pytest.raises(IntegrityError, match="'file' is not what its provider recorded"):
        Pull(View(Index(builder.build(bytes(16), 1), bytes(16)), None), out, Silent()).run()  # type: ignore[arg-type]
    assert list(out.iterdir()) == []


@pytest.mark.error_logs
@pytest.mark.parametrize("name", [b"/{outside}", b"../outside", b"a/../../outside", b"..", b"", b"."])
def test_no_name_leads_out_of_the_destination(tmp_path: Path, out: Path, name: bytes) -> None:
    name = name.replace(b"{outside}", os.fsencode(tmp_path / "outside"))
    builder = IndexBuilder(stat.S_IFDIR | 0o755, 0)
    empty = hashlib.sha256().digest()
    builder.set_content(builder.add(0, name, stat.S_IFREG | 0o644, 0, 0), [], empty)
    with pytest.raises(SealfsError):
        Pull(View(Index(builder.build(bytes(16), 1), bytes(16)), None), out, Silent()).run()  # type: ignore[arg-type]
    assert not (tmp_path / "outside").exists()
    assert list(out.rglob("*")) == []


@pytest.mark.parametrize("link_first", [True, False])
def test_a_link_and_a_folder_of_one_name_do_not_lead_out_of_the_destination(
    tmp_path: Path, out: Path, link_first: bool
) -> None:
    (tmp_path / "outside").mkdir()
    builder = IndexBuilder(stat.S_IFDIR | 0o755, 0)
    target = os.fsencode(tmp_path / "outside")
    if link_first:
        builder.add_symlink(0, b"x", stat.S_IFLNK | 0o777, target, 0)
    folder = builder.add(0, b"x", stat.S_IFDIR | 0o755, 0, 0)
    if not link_first:
        builder.add_symlink(0, b"x", stat.S_IFLNK | 0o777, target, 0)
    builder.set_content(builder.add(folder, b"file", stat.S_IFREG | 0o644, 0, 0), [], hashlib.sha256().digest())
    with pytest.raises(LocalIOError, match="in the way"):
        Pull(View(Index(builder.build(bytes(16), 1), bytes(16)), None), out, Silent()).run()  # type: ignore[arg-type]
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_folder_that_became_a_link_is_not_written_through(
    tree: Path, store: LocalStore, identity: Identity, trust: TrustStore, out: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.rmtree(tree / "images")
    (tree / "images").symlink_to(elsewhere)
    push(tree, store, identity, trust)
    pull(store, identity, trust, out)
    with pytest.raises(LocalIOError, match="in the way"):
        pull(store, identity, trust, out, version=1)
    assert list(elsewhere.iterdir()) == []


def test_diff_names_every_difference(tree: Path, store: LocalStore, identity: Identity, trust: TrustStore) -> None:
    (tree / "new folder").mkdir()
    (tree / "new folder" / "new").touch()
    (tree / "images" / "01.bin").unlink()
    (tree / "script").chmod(0o700)
    (tree / "link").unlink()
    (tree / "link").symlink_to("elsewhere")
    (tree / "images" / "02.bin").write_bytes(b"X" * 201)
    os.utime(tree / "images" / "03.bin")
    (tree / "nothing").unlink()
    (tree / "nothing").mkdir()
    shutil.rmtree(tree / "images" / "deep")
    (tree / "images" / "deep").write_bytes(b"now a file")
    push(tree, store, identity, trust)
    old, new = (Dataset.open(store, trust, version=version) for version in (1, 2))
    keys = new.keys(identity)
    assert list(diff(old.index(keys), new.index(keys))) == [
        ("D", b"images/01.bin"),
        ("M", b"images/02.bin"),
        ("D", b"images/deep"),
        ("D", b"images/deep/random"),
        ("A", b"images/deep"),
        ("M", b"link"),
        ("A", b"new folder"),
        ("A", b"new folder/new"),
        ("D", b"nothing"),
        ("A", b"nothing"),
        ("M", b"script"),
    ]
    assert list(diff(new.index(keys), new.index(keys))) == []
