"""Push: what it reads and sends, what it refuses to seal, and whose dataset it adds to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataset.tools import SEGMENT, names, pull, push, served, state_of_folder
from sealfs.dataset import content
from sealfs.dataset.compare import Plan
from sealfs.dataset.dataset import Dataset, Summary
from sealfs.dataset.objects import HEAD, PACKS, PUSHES
from sealfs.dataset.push import Push
from sealfs.dataset.trust import TrustStore
from sealfs.errors import (
    LocalIOError,
    TrustError,
    UsageError,
)
from sealfs.keys import Identity
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
    assert list(served(local_store, identity, trust).items()) == list(state_of_folder(tree).items())
    dataset = Dataset.open(local_store, trust)
    summary = Summary.open(dataset.snapshot, dataset.keys(identity))
    assert (summary.action, summary.message, summary.added) == ("push", "first", result.plan.files)
    assert not names(local_store, PUSHES)


def test_an_empty_folder_and_an_empty_file_are_datasets(
    source: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    push(source, local_store, identity, trust)
    (source / "empty").touch()
    push(source, local_store, identity, trust)
    assert not names(local_store, PACKS)
    for version, count in ((1, 1), (2, 2)):
        assert len(served(local_store, identity, trust, version)) == count


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
    assert list(served(local_store, identity, trust).items()) == list(state_of_folder(tree).items())


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
    assert list(served(local_store, identity, trust).items()) == list(state_of_folder(tree).items())


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
    assert served(local_store, identity, trust) == state_of_folder(tree)


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
    assert list(served(local_store, identity, trust)) == [path for path in state_of_folder(tree) if not gone(path)]


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
    assert served(local_store, reader, trust) == state_of_folder(tree)
    assert push(tree, local_store, identity, trust, recipients=[reader.recipient]).snapshot is None


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
    source: Path, tmp_path: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, length: int
) -> None:
    (source / "file").write_bytes(os.urandom(3000))
    push(source, local_store, identity, trust, segment_length=length)
    assert pull(local_store, identity, trust, tmp_path / "out") == state_of_folder(source)
