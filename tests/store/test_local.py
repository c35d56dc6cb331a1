"""What only a local store can get wrong: half-written files, links, full disks, other processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sealfs.errors import LocalIOError, ObjectNotFoundError, PreconditionFailedError, StoreError
from sealfs.store.local import LocalStore

SIZE = 8 << 20


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


WRITER = """
import sys
from sealfs.store.local import LocalStore
store = LocalStore(sys.argv[1])
print("ready", flush=True)
while True:
    for byte in range(256):
        store.put("a", bytes([byte]) * int(sys.argv[2]))
"""


def test_a_killed_writer_leaves_whole_objects(store: LocalStore, tmp_path: Path) -> None:
    for turn in range(4):
        with start(WRITER, str(tmp_path / "store"), str(SIZE)) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.02 + 0.05 * turn)
            writer.send_signal(signal.SIGKILL)
        try:
            data, _ = store.get("a", max_size=SIZE)
        except ObjectNotFoundError:
            continue
        assert data == data[:1] * SIZE
        assert [found.key for found in store.list("")] == ["a"]
    assert store.get("a", max_size=SIZE)  # at least the last turns came to an end of one


def test_leftovers_are_swept_when_old(store: LocalStore, tmp_path: Path) -> None:
    store.put("a", b"x")
    work = tmp_path / "store" / ".sealfs-work"
    (work / "old").write_bytes(b"half")
    (work / "new").write_bytes(b"half")
    os.utime(work / "old", (1, 1))
    assert [found.key for found in store.list("")] == ["a"]
    LocalStore(tmp_path / "store").put("b", b"x")
    assert files(work) == ["new"]


REPLACER = """
import sys
from sealfs.errors import PreconditionFailedError
from sealfs.store.local import LocalStore
store = LocalStore(sys.argv[1])
print("ready", flush=True)
for _ in range(int(sys.argv[2])):
    while True:
        data, etag = store.get("count", max_size=99)
        try:
            store.put("count", str(int(data) + 1).encode(), if_match=etag)
            break
        except PreconditionFailedError:
            pass
"""


def test_processes_lose_no_update(store: LocalStore, tmp_path: Path) -> None:
    store.put("count", b"0")
    replacers = [start(REPLACER, str(tmp_path / "store"), "40") for _ in range(4)]
    for replacer in replacers:
        replacer.communicate()
        assert replacer.returncode == 0
    assert store.get("count", max_size=99)[0] == b"160"


CREATOR = """
import sys
from sealfs.errors import PreconditionFailedError
from sealfs.store.local import LocalStore
store = LocalStore(sys.argv[1])
for number in range(100):
    try:
        store.put(f"n{number}", sys.argv[2].encode(), if_absent=True)
        print(number)
    except PreconditionFailedError:
        pass
"""


def test_processes_create_once(store: LocalStore, tmp_path: Path) -> None:
    creators = [start(CREATOR, str(tmp_path / "store"), str(number)) for number in range(4)]
    created = [number for creator in creators for number in creator.communicate()[0].split()]
    assert sorted(map(int, created)) == list(range(100))


def test_file_systems_without_hard_links(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "no links on FAT")

    monkeypatch.setattr(os, "link", link)
    store.put("a", b"first", if_absent=True)
    with pytest.raises(PreconditionFailedError):
        store.put("a", b"second", if_absent=True)
    assert store.get("a", max_size=5)[0] == b"first"


def test_file_systems_without_locks(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    assert not store.has_conditional_writes()
    etag = store.put("a", b"first")
    with pytest.raises(StoreError, match="Function not implemented") as caught:
        store.put("a", b"second", if_match=etag)
    assert "locks" in caught.value.hint


def test_links_are_refused(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    store.put("a", b"x")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "store" / "folder").symlink_to(tmp_path)
    for call in (
        lambda: store.get("link", max_size=99),
        lambda: store.stat("link"),
        lambda: store.read_into("link", 0, memoryview(bytearray(6))),
        lambda: store.put("link", b"x", if_match="x"),
    ):
        with pytest.raises(StoreError, match="symbolic link"):
            call()
    with pytest.raises(PreconditionFailedError):
        store.put("link", b"x", if_absent=True)
    assert [found.key for found in store.list("")] == ["a"]
    store.put("link", b"mine")  # replaces the link, not what it points to
    store.delete(["link"])
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_what_is_no_file_is_no_object(store: LocalStore, tmp_path: Path) -> None:
    store.put("a", b"x")
    os.mkfifo(tmp_path / "store" / "pipe")  # opening it must not wait for a writer
    (tmp_path / "store" / os.fsdecode(b"\xff")).write_bytes(b"no name")
    for key in ("pipe", ".."[:1] + "hidden"):
        with pytest.raises(ObjectNotFoundError):
            store.get(key, max_size=1)
    assert [found.key for found in store.list("")] == ["a"]


def test_the_work_folder_is_no_place_for_objects(store: LocalStore) -> None:
    with pytest.raises(StoreError, match="reserved"):
        store.put(".sealfs-work/lock", b"x")


def test_a_full_disk(store: LocalStore, tmp_path: Path) -> None:
    old = store.put("a", b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(LocalIOError, match="cannot write a") as caught:
            store.put("a", bytes(10_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "free some space" in caught.value.hint
    assert store.get("a", max_size=3) == (b"old", old)
    assert files(tmp_path / "store") == ["a"]


@pytest.mark.parametrize("number", [28, 122])  # ENOSPC, EDQUOT
def test_a_disk_that_is_full_at_the_sync(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store.put("a", b"old")

    def fsync(_: int) -> None:
        raise OSError(number, "full")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(LocalIOError):
        store.put("a", b"new")
    assert store.get("a", max_size=3)[0] == b"old"
    assert files(tmp_path / "store") == ["a"]


def test_missing_rights(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a", b"x")

    def refuse(*_: object) -> int:  # root, whom tests may run as, is refused nothing
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match="Permission denied") as caught:
        store.get("a", max_size=1)
    assert "owner" in caught.value.hint


def test_a_store_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = LocalStore(tmp_path / "file" / "x")
    assert list(store.list("")) == []
    with pytest.raises(ObjectNotFoundError):
        store.stat("a")
    with pytest.raises(StoreError, match="cannot write a"):
        store.put("a", b"x")


def test_few_files_stay_open(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, max_open_files=5)
    for number in range(20):
        store.put(f"n{number}", b"%02d" % number)
    before = len(os.listdir("/proc/self/fd"))
    for number in [*range(20), *range(20)]:
        buffer = bytearray(2)
        store.read_into(f"n{number}", 0, memoryview(buffer))
        assert int(buffer) == number
    assert len(os.listdir("/proc/self/fd")) == before + 5
    store.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_files_are_not_closed_under_a_reader(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, max_open_files=1)  # each read evicts the others' files
    count, wrong = 8, []
    for number in range(count):
        store.put(f"n{number}", bytes([number]) * 300_000)

    def run(seed: int) -> None:
        buffer = bytearray(300_000)
        for turn in range(150):
            number = (seed + turn) % count
            store.read_into(f"n{number}", 0, memoryview(buffer))
            if buffer.count(number) != len(buffer):
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_big_objects_etag_changes_with_it(store: LocalStore) -> None:
    etags = {store.put("a", bytes(100_000)) for _ in range(5)}
    assert len(etags) >= 2  # equal bytes, but other files
    assert store.stat("a").etag == store.get("a", max_size=100_000)[1] in etags
