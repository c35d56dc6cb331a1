"""Random edits of a folder, pushed, against the folder itself: through a pull, a view and a real mount."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dataset.tools import State, mounted, opened, pull, push, served, state_of_folder
from sealfs.dataset.access import AccessChange
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.gc import delete_garbage, find_garbage
from sealfs.dataset.trust import TrustStore
from sealfs.dataset.verify import verify
from sealfs.errors import NotADatasetError
from sealfs.keys import Identity
from sealfs.progress import Silent
from sealfs.store.local import LocalStore

SEGMENT = 128  # bytes; with packs of 1 KiB, files of a few hundred bytes are large
PACK = 1024

NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"c", b"d", b"sub", b"\xff\xfe", b"new\nline", b" ", b"-rf", b"*", "ü".encode()]),
    st.binary(min_size=1, max_size=6).filter(lambda n: b"/" not in n and b"\0" not in n and n not in {b".", b".."}),
)
SIZES = st.sampled_from([0, 1, 95, 96, 97, 192, 767, 768, 769, 1000, 3000]) | st.integers(0, 2000)
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o400, 0o4711, 0o1777])
TIMES = st.sampled_from([0, 1, -1, 10**18, 10**18 + 1, -(10**17)]) | st.integers(0, 2 * 10**18)
PICK = st.integers(0, 1 << 20)


class Folder(RuleBasedStateMachine):
    """A provider at work."""

    @initialize()
    def begin(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="model-", dir=os.environ["SEALFS_MODEL_DIR"]))
        self.source = os.fsencode(self.top / "source")
        os.mkdir(self.source)
        self.store = LocalStore(self.top / "store")
        self.identity, self.trust = Identity.generate(), TrustStore(self.top / "trust")
        self.versions: dict[int, State] = {}

    def teardown(self) -> None:
        if hasattr(self, "top"):
            shutil.rmtree(self.top)

    # where to

    def _all(self, *kinds: int) -> list[bytes]:
        found = [self.source] if stat.S_IFDIR in kinds else []
        for folder, folders, files in os.walk(self.source):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                if stat.S_IFMT(os.lstat(path).st_mode) in kinds:
                    found.append(path)
        return sorted(found)

    def _new(self, pick: int, name: bytes) -> bytes | None:
        folders = self._all(stat.S_IFDIR)
        path = os.path.join(folders[pick % len(folders)], name)
        return None if os.path.lexists(path) else path

    def _one(self, pick: int, *kinds: int) -> bytes | None:
        found = [path for path in self._all(*kinds) if path != self.source]
        return found[pick % len(found)] if found else None

    # edits

    @rule(pick=PICK, name=NAMES, size=SIZES)
    def write(self, pick: int, name: bytes, size: int) -> None:
        path = self._new(pick, name)
        if path:
            with open(path, "wb") as file:
                file.write(os.urandom(size))

    @rule(pick=PICK, name=NAMES, chunks=st.lists(st.integers(0, 400), min_size=1, max_size=3))
    def write_sparse(self, pick: int, name: bytes, chunks: list[int]) -> None:
        path = self._new(pick, name)
        if path:
            with open(path, "wb") as file:
                file.truncate((1 << 20) + 5)
                for chunk in chunks:
                    file.seek(chunk << 11)
                    file.write(b"data" * 10)

    @rule(pick=PICK, name=NAMES)
    def make_folder(self, pick: int, name: bytes) -> None:
        path = self._new(pick, name)
        if path:
            os.mkdir(path)

    @rule(pick=PICK, name=NAMES, to=NAMES | st.just(b"../../x") | st.just(b"/etc/passwd"))
    def link(self, pick: int, name: bytes, to: bytes) -> None:
        path = self._new(pick, name)
        if path:
            os.symlink(to, path)

    @rule(pick=PICK, place=st.integers(0, 3000), size=st.integers(0, 300))
    def overwrite_a_part(self, pick: int, place: int, size: int) -> None:
        path = self._one(pick, stat.S_IFREG)
        if path:
            with open(path, "r+b") as file:
                file.seek(place)
                file.write(os.urandom(size))

    @rule(pick=PICK, size=SIZES)
    def truncate(self, pick: int, size: int) -> None:
        path = self._one(pick, stat.S_IFREG)
        if path:
            os.truncate(path, size)

    @rule(pick=PICK)
    def remove(self, pick: int) -> None:
        path = self._one(pick, stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR)
        if path:
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)

    @rule(pick=PICK, where=PICK, name=NAMES)
    def rename(self, pick: int, where: int, name: bytes) -> None:
        old, new = self._one(pick, stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR), self._new(where, name)
        if old and new and not (new + b"/").startswith(old + b"/"):
            os.rename(old, new)

    @rule(pick=PICK, mode=MODES)
    def change_mode(self, pick: int, mode: int) -> None:
        path = self._one(pick, stat.S_IFREG, stat.S_IFDIR)
        if path:
            os.chmod(path, mode)

    @rule(pick=PICK, mtime=TIMES)
    def change_time(self, pick: int, mtime: int) -> None:
        path = self._one(pick, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)
        if path:
            os.utime(path, ns=(mtime, mtime), follow_symlinks=False)

    @rule(pick=PICK)
    def replace_by_another_kind(self, pick: int) -> None:
        path = self._one(pick, stat.S_IFREG)
        if path:
            os.unlink(path)
            os.mkdir(path)

    # pushes

    def _newest(self) -> int:
        return max(self.versions, default=0)

    @rule(checksum=st.booleans())
    def push(self, checksum: bool) -> None:
        result = push(
            Path(os.fsdecode(self.source)),
            self.store,
            self.identity,
            self.trust,
            segment_length=SEGMENT,
            checksum=checksum,
        )
        if result.snapshot is not None:
            self.versions[result.snapshot.version] = state_of_folder(self.source)
            assert result.snapshot.version == self._newest()
        self._compare(self._newest())
        assert list(self.versions[self._newest()].items()) == list(state_of_folder(self.source).items())

    def _compare(self, version: int) -> None:
        found = served(self.store, self.identity, self.trust, version)
        assert list(found.items()) == list(self.versions[version].items())

    @precondition(lambda self: self.versions)
    @rule()
    def pull_the_newest(self) -> None:
        out = self.top / "out"
        try:
            # a folder that is pulled into lists in an order of its own, and gives nobody another's rights
            special = stat.S_ISUID | stat.S_ISGID
            expected = {
                path: (mode & ~special, mtime, content)
                for path, (mode, mtime, content) in self.versions[self._newest()].items()
            }
            assert pull(self.store, self.identity, self.trust, out) == expected
            assert pull(self.store, self.identity, self.trust, out) == expected
        finally:
            shutil.rmtree(out, ignore_errors=True)

    @precondition(lambda self: self.versions and os.path.exists("/dev/fuse"))
    @rule(pick=PICK)
    def look_through_a_mount(self, pick: int) -> None:
        version = sorted(self.versions)[pick % len(self.versions)]
        point = self.top / "mnt"
        point.mkdir()
        try:
            with opened(self.store, self.identity, self.trust, version) as view, mounted(view, point):
                assert list(state_of_folder(point).items()) == list(self.versions[version].items())
        finally:
            point.rmdir()

    @precondition(lambda self: self.versions)
    @rule(pick=PICK)
    def look_at_an_old_version(self, pick: int) -> None:
        self._compare(sorted(self.versions)[pick % len(self.versions)])

    @precondition(lambda self: self.versions)
    @rule(reencrypt=st.booleans())
    def rotate(self, reencrypt: bool) -> None:
        before = self.versions[self._newest()]
        snapshot = AccessChange(self.store, self.identity, self.trust).rotate(reencrypt, Silent())
        self.versions[snapshot.version] = before
        self._compare(snapshot.version)

    @precondition(lambda self: self.versions)
    @rule(keep=st.none() | st.integers(1, 3))
    def collect_garbage(self, keep: int | None) -> None:
        garbage = find_garbage(self.store, self.trust, keep=keep)
        delete_garbage(self.store, garbage)
        gone = set(garbage.versions)
        assert gone == (set() if keep is None else {v for v in self.versions if v <= self._newest() - keep})
        for version in gone:
            del self.versions[version]
            with pytest.raises(NotADatasetError):
                Dataset.open(self.store, self.trust, version=version)

    @precondition(lambda self: self.versions)
    @rule()
    def verify(self) -> None:
        dataset = Dataset.open(self.store, self.trust)
        assert verify(dataset, dataset.keys(self.identity), Silent()).is_good

    @invariant()
    def nothing_else_lies_beside(self) -> None:
        if hasattr(self, "top"):
            assert {path.name for path in self.top.iterdir()} <= {"source", "store", "trust"}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setattr("sealfs.dataset.packer.PACK_SIZE", PACK)
    # files written a moment ago make a push wait for the clock; here nobody writes meanwhile
    monkeypatch.setattr("sealfs.dataset.content._SETTLED_NS", 0)
    monkeypatch.setenv("SEALFS_MODEL_DIR", str(tmp_path_factory.mktemp("model")))


def _run(examples: int, steps: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Folder, settings=settings(settings.default, max_examples=examples, stateful_step_count=steps)
    )


def test_random_edits() -> None:
    _run(25, 25)


@pytest.mark.slow
def test_many_random_edits() -> None:
    _run(120, 40)
