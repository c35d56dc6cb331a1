"""gc: deletes what nothing needs, and nothing else, whatever goes on meanwhile."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dataset.tools import Spy, names, push, served, state_of_folder
from sealfs.dataset.access import AccessChange
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.gc import delete_garbage, find_garbage
from sealfs.dataset.objects import HEAD, INDEXES, KEYRINGS, PACKS, PUSHES, SNAPSHOTS
from sealfs.dataset.session import ABANDONED_AFTER, PushSession
from sealfs.dataset.trust import TrustStore
from sealfs.errors import ConflictError, IntegrityError, NotADatasetError, StoreError, TrustError
from sealfs.keys import Identity
from sealfs.progress import Silent
from sealfs.store.base import ObjectInfo, ObjectStore
from sealfs.store.local import LocalStore


def collect(
    store: ObjectStore, trust: TrustStore, keep: int | None = None, later: float = 0, after: float = ABANDONED_AFTER
) -> set[str]:
    """Run gc as of `later` seconds from now; returns the names that went."""
    garbage = find_garbage(store, trust, keep=keep, abandoned_after=after, now=time.time() + later)
    delete_garbage(store, garbage)
    return {info.key for info in garbage.objects}


@pytest.fixture
def three(tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore) -> list[dict[bytes, object]]:
    """A dataset of three versions; returns what each one holds."""
    states: list[dict[bytes, object]] = []
    for number in range(3):
        (tree / f"new {number}").write_bytes(os.urandom(9_000))
        (tree / "script").write_bytes(b"version %d" % number)
        push(tree, local_store, identity, trust)
        states.append(dict(state_of_folder(tree)))
    return states


def check(store: LocalStore, identity: Identity, trust: TrustStore, states: dict[int, dict[bytes, object]]) -> None:
    for version, state in states.items():
        assert served(store, identity, trust, version) == state, f"version {version}"


def test_nothing_goes_while_everything_is_needed(
    three: list[dict[bytes, object]], local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    before = names(local_store)
    assert collect(local_store, trust) == set()
    assert names(local_store) == before
    check(local_store, identity, trust, dict(enumerate(three, 1)))


def test_orphans_of_all_kinds_go_and_strangers_stay(
    three: list[dict[bytes, object]], local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    orphans = {f"{kind}{'0' * 15}1-{'0' * 31}{n}" for kind in (PACKS, INDEXES, KEYRINGS, SNAPSHOTS) for n in "12"}
    for name in [*orphans, "readme.txt", "other/thing"]:
        local_store.put(name, b"x")
    assert collect(local_store, trust) == orphans
    assert {"readme.txt", "other/thing"} <= names(local_store)
    check(local_store, identity, trust, dict(enumerate(three, 1)))


@pytest.mark.parametrize("keep", [1, 2, 3, 99])
def test_keep_leaves_so_many_versions(
    three: list[dict[bytes, object]], local_store: LocalStore, identity: Identity, trust: TrustStore, keep: int
) -> None:
    gone = collect(local_store, trust, keep)
    kept = {version: state for version, state in enumerate(three, 1) if version > 3 - keep}
    assert bool(gone) == (keep < 3)
    check(local_store, identity, trust, kept)
    for version in {1, 2, 3} - set(kept):
        with pytest.raises(NotADatasetError, match="no longer in the store"):
            Dataset.open(local_store, trust, version=version)
    assert collect(local_store, trust, keep) == set()
    assert collect(local_store, trust) == set()


def test_it_goes_on_after_a_gc_that_was_cut_short(
    three: list[dict[bytes, object]], local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    class Dying(Spy):
        def delete(self, keys: object) -> None:
            for key in keys:  # type: ignore[attr-defined]
                super().delete([key])
                raise StoreError("the plug was pulled")

    for _ in range(20):
        try:
            collect(Dying(local_store), trust, keep=1)
        except StoreError:
            # whatever was deleted so far: a version is either whole or gone
            for version in (1, 2, 3):
                try:
                    check(local_store, identity, trust, {version: three[version - 1]})
                except NotADatasetError:
                    assert version < 3
    collect(local_store, trust, keep=1)
    check(local_store, identity, trust, {3: three[2]})
    needed = Dataset.open(local_store, trust)
    snapshot = needed.snapshot
    assert names(local_store) == {
        HEAD,
        needed.ref.name,
        snapshot.index.name,
        snapshot.keyring.name,
        *(ref.name for ref in snapshot.packs),
    }


class Collecting(Spy):
    """A store where somebody runs gc before and after each and every write, as of a day later."""

    def __init__(self, store: LocalStore, trust: TrustStore, keep: int | None) -> None:
        super().__init__(store)
        self._trust, self._keep = trust, keep
        self.runs = 0

    def _collect(self) -> None:
        try:
            collect(self.store, self._trust, self._keep, later=24 * 3600)
        except NotADatasetError:
            return
        self.runs += 1

    def before_put(self, key: str) -> None:
        self._collect()

    def after_put(self, key: str) -> None:
        self._collect()


@pytest.mark.parametrize("keep", [None, 1])
@pytest.mark.usefixtures("small_packs")
def test_gc_at_every_step_of_a_push_does_no_harm(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path, keep: int | None
) -> None:
    collecting = Collecting(local_store, TrustStore(tmp_path / "collector"), keep)
    for number in range(3):
        (tree / "new").write_bytes(bytes([number]) * 100_000)
        push(tree, collecting, identity, trust, jobs=1)
        assert served(local_store, identity, trust) == state_of_folder(tree)
    assert collecting.runs > 20


@pytest.mark.parametrize("keep", [None, 1])
@pytest.mark.usefixtures("small_packs")
def test_gc_at_every_step_of_a_change_of_access_does_no_harm(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path, keep: int | None
) -> None:
    push(tree, local_store, identity, trust)
    collecting, reader = Collecting(local_store, TrustStore(tmp_path / "collector"), keep), Identity.generate()
    deeds: list[Callable[[AccessChange], object]] = [
        lambda change: change.grant([reader.recipient]),
        lambda change: change.rotate(True, Silent()),
        lambda change: change.revoke([reader.recipient.fingerprint], True, Silent()),
        lambda change: change.rotate(False, Silent()),
    ]
    for deed in deeds:
        deed(AccessChange(collecting, identity, trust))
        assert served(local_store, identity, trust) == state_of_folder(tree)
    assert collecting.runs > 20


@pytest.mark.usefixtures("small_packs")
def test_gc_between_a_killed_push_and_its_resumption_leaves_what_was_sent(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    push(tree, local_store, identity, trust)
    for number in range(20):
        (tree / f"more {number}").write_bytes(os.urandom(9_000))

    class Plug(Spy):
        def before_put(self, key: str) -> None:
            if key.startswith(INDEXES):
                raise StoreError("the plug was pulled")

    with pytest.raises(StoreError, match="plug"):
        push(tree, Plug(local_store), identity, trust, jobs=1)
    sent = names(local_store, PACKS)
    assert collect(local_store, trust, keep=1, later=ABANDONED_AFTER - 60) == set()
    assert names(local_store, PACKS) == sent
    result = push(tree, local_store, identity, trust)
    assert (result.sent, result.resumed) == (0, 180_000)


@pytest.mark.usefixtures("small_packs")
def test_an_abandoned_push_is_cleared_away_and_can_still_be_run_again(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    push(tree, local_store, identity, trust)
    before = names(local_store)
    (tree / "more").write_bytes(os.urandom(100_000))

    class Plug(Spy):
        def before_put(self, key: str) -> None:
            if key.startswith(INDEXES):
                raise StoreError("the plug was pulled")

    with pytest.raises(StoreError, match="plug"):
        push(tree, Plug(local_store), identity, trust)
    assert len(collect(local_store, trust, later=ABANDONED_AFTER + 60)) == 3
    assert names(local_store) == before
    assert push(tree, local_store, identity, trust).resumed == 0
    assert served(local_store, identity, trust) == state_of_folder(tree)


@pytest.mark.parametrize("step", [PACKS, INDEXES, SNAPSHOTS])
@pytest.mark.parametrize("renewing", [True, False])
@pytest.mark.usefixtures("small_packs")
def test_a_push_that_was_taken_for_abandoned_publishes_nothing(
    tree: Path,
    local_store: LocalStore,
    identity: Identity,
    trust: TrustStore,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
    renewing: bool,
) -> None:
    # a laptop that slept for a week in the middle of a push: the marker and packs are gone when it wakes up
    push(tree, local_store, identity, trust)
    before = state_of_folder(tree)
    (tree / "more").write_bytes(os.urandom(300_000))
    if renewing:
        monkeypatch.setattr("sealfs.dataset.session.RENEW_EVERY", 0.0)

    class Asleep(Spy):
        seen = 0

        def after_put(self, key: str) -> None:
            if key.startswith(step):
                self.seen += 1
                if self.seen == 1:
                    assert collect(self.store, trust, later=ABANDONED_AFTER + 60)

    with pytest.raises(ConflictError, match="abandoned"):
        push(tree, Asleep(local_store), identity, trust, jobs=1)
    assert served(local_store, identity, trust) == before
    push(tree, local_store, identity, trust)
    assert served(local_store, identity, trust) == state_of_folder(tree)


def test_gc_deletes_nothing_on_the_word_of_a_forged_or_damaged_store(
    three: list[dict[bytes, object]], local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path
) -> None:
    before, (head, _) = names(local_store), local_store.get(HEAD, max_size=4096)
    old = Dataset.open(local_store, trust, version=1)
    local_store.put(HEAD, head.replace(b'"version":3', b'"version":2'))
    with pytest.raises(IntegrityError):
        collect(local_store, trust, keep=1)
    local_store.put(HEAD, head)
    data, _ = local_store.get(old.ref.name, max_size=1 << 20)
    local_store.put(old.ref.name, data[:-1] + b" ")
    with pytest.raises(IntegrityError):
        collect(local_store, trust)
    local_store.put(old.ref.name, data)
    stranger = LocalStore(tmp_path / "foreign")
    push(tmp_path / "tree", stranger, Identity.generate(), TrustStore(tmp_path / "stranger's"))
    for key in names(stranger):
        local_store.put(key, stranger.get(key, max_size=1 << 30)[0])
    with pytest.raises(TrustError):
        collect(local_store, trust, keep=1)
    assert before <= names(local_store)


def test_the_marker_is_there_from_before_the_first_object_until_after_the_head(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    class Watching(Spy):
        def before_put(self, key: str) -> None:
            if not key.startswith(PUSHES):
                assert len(names(self.store, PUSHES)) == 1, key

        after_put = before_put

    watching = Watching(local_store)
    push(tree, watching, identity, trust)
    assert watching.puts[0].startswith(PUSHES)
    assert watching.puts[-1] == HEAD
    assert names(local_store, PUSHES) == set()


def test_a_session_renews_its_marker_but_never_brings_it_back(
    local_store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealfs.dataset.session.RENEW_EVERY", 0.0)
    session = PushSession(local_store)
    assert not session.exists()
    session.renew()
    session.renew()
    assert session.exists()
    local_store.delete(names(local_store, PUSHES))
    with pytest.raises(ConflictError):
        session.renew()
    assert not session.exists()


@pytest.mark.parametrize("waits_before", [PACKS, HEAD])
@pytest.mark.parametrize("at", range(6))
@pytest.mark.usefixtures("small_packs")
def test_a_push_that_ends_at_any_step_of_a_gc_loses_nothing(
    tree: Path,
    local_store: LocalStore,
    identity: Identity,
    trust: TrustStore,
    tmp_path: Path,
    at: int,
    waits_before: str,
) -> None:
    push(tree, local_store, identity, trust)
    (tree / "more").write_bytes(os.urandom(100_000))
    there, go_on = threading.Event(), threading.Event()

    class Waiting(Spy):
        def before_put(self, key: str) -> None:
            if key.startswith(waits_before):
                there.set()
                go_on.wait(20)

    pusher = threading.Thread(target=push, args=(tree, Waiting(local_store), identity, trust))
    pusher.start()
    assert there.wait(20)
    steps: list[str] = []

    class Looking(Spy):
        def _step(self, what: str) -> None:
            if len(steps) == at:
                go_on.set()
                pusher.join()
            steps.append(what)

        def list(self, prefix: str) -> Iterator[ObjectInfo]:
            self._step(prefix)
            return iter(list(self.store.list(prefix)))

        def get(self, key: str, *, max_size: int) -> tuple[bytes, str]:
            if key == HEAD:
                self._step(key)
            return super().get(key, max_size=max_size)

    collect(Looking(local_store), TrustStore(tmp_path / "collector"))
    assert len(steps) == 6
    go_on.set()
    pusher.join()
    assert served(local_store, identity, trust) == state_of_folder(tree)
