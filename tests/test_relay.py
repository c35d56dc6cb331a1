"""An enclave's sealed results on their way to an object store: whole at any time, and nobody else's overwritten."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from dataset.tools import opened

from sealfs.ciphertext import objects_of
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.objects import HEAD
from sealfs.dataset.push import Push
from sealfs.dataset.trust import TrustStore
from sealfs.errors import ConflictError, PreconditionFailedError, StoreError, UsageError
from sealfs.keys import Identity
from sealfs.placement import Output
from sealfs.relay import Relay, results_folder
from sealfs.store.base import ObjectStore
from sealfs.store.local import LocalStore

NEVER = 3600.0


class Watched:
    """A store that calls back after, or instead of, each write."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self.on_put: Callable[[str], None] = lambda key: None
        self.instead: Callable[[str], None] = lambda key: None

    def put(self, key: str, data: bytes, **how: Any) -> str:
        self.instead(key)
        etag = self._store.put(key, data, **how)
        self.on_put(key)
        return etag

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.fixture
def target(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "target")


@pytest.fixture
def push(tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore) -> Callable[[str], None]:
    """Returns what the enclave does: seals one more file."""

    def push(name: str) -> None:
        (tree / name).write_text(name)
        Push(tree, local_store, identity, trust).run()

    return push


def relay(source: LocalStore, target: object, interval: float = NEVER, patience: float = 0.0) -> Relay:
    return Relay(source, cast(ObjectStore, target), interval=interval, patience=patience)


def versions(store: LocalStore, trust: TrustStore) -> list[int]:
    newest = Dataset.open(store, trust).newest
    return [*(ancestor.version for ancestor in newest.history), newest.version]


def test_whole_at_any_time_with_all_versions(
    push: Callable[[str], None], local_store: LocalStore, target: LocalStore, identity: Identity, tmp_path: Path
) -> None:
    watched, heads = Watched(target), []

    def check(key: str) -> None:
        """What a reader finds at this moment, who has seen nothing yet."""
        if any(info.key == HEAD for info in target.list("")):
            dataset = Dataset.open(target, TrustStore(tmp_path / f"reader{len(heads)}"))
            for ref in objects_of(dataset):
                ref.fetch(target, ref.size)
            heads.append(dataset.newest.version)

    watched.on_put = check
    running = relay(local_store, watched, interval=0.05)
    running.start()
    for number in range(4):
        push(f"file{number}")
    running.finish()
    assert heads == sorted(heads)
    assert heads[-1] == 4
    trust = TrustStore(tmp_path / "trust-of-reader")
    assert versions(target, trust) == [1, 2, 3, 4]
    with opened(target, identity, trust) as view:
        assert {b"file0", b"file3"} <= {name for name, _ in view.list(0)}


def test_enclave_that_has_sealed_nothing(local_store: LocalStore, target: LocalStore) -> None:
    running = relay(local_store, target)
    running.start()
    running.finish()
    assert list(target.list("")) == []


def test_address_that_is_taken(
    push: Callable[[str], None], tree: Path, local_store: LocalStore, target: LocalStore, trust: TrustStore
) -> None:
    Push(tree, target, Identity.generate(), trust).run()
    with pytest.raises(UsageError, match="already"):
        relay(local_store, target).start()


def test_somebody_else_takes_the_address_meanwhile(
    push: Callable[[str], None], tree: Path, local_store: LocalStore, target: LocalStore, tmp_path: Path
) -> None:
    running = relay(local_store, target)
    running.start()
    push("mine")
    Push(tree, target, Identity.generate(), TrustStore(tmp_path / "theirs")).run()
    theirs = target.get(HEAD, max_size=4096)
    with pytest.raises(ConflictError, match="somebody else"):
        running.finish()
    assert target.get(HEAD, max_size=4096) == theirs


def test_answer_that_got_lost(push: Callable[[str], None], local_store: LocalStore, target: LocalStore) -> None:
    """A client tries again by itself, and is told that the head is there already: its own."""
    watched = Watched(target)

    def lose(key: str) -> None:
        if key == HEAD:
            watched.on_put = lambda key: None
            raise PreconditionFailedError("there is a head already")

    watched.on_put = lose
    running = relay(local_store, watched)
    running.start()
    push("one")
    running.finish()
    assert target.get(HEAD, max_size=4096)[0] == local_store.get(HEAD, max_size=4096)[0]


def test_store_that_is_away_for_a_while(
    push: Callable[[str], None], local_store: LocalStore, target: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sealfs.periodic._PAUSE", 0.01)
    watched, tries = Watched(target), []

    def away(key: str) -> None:
        tries.append(key)
        if len(tries) < 4:
            raise StoreError("away")

    watched.instead = away
    running = relay(local_store, watched, patience=30.0)
    running.start()
    push("one")
    running.finish()
    assert target.get(HEAD, max_size=4096)[0] == local_store.get(HEAD, max_size=4096)[0]


@pytest.mark.parametrize("reachable", [True, False])
def test_folder_of_results_stays_until_they_are_copied(
    push: Callable[[str], None], local_store: LocalStore, target: LocalStore, tmp_path: Path, reachable: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    watched = Watched(target)
    monkeypatch.setattr("sealfs.relay.open_store", lambda address: watched)
    push("one")
    output = Output("s3://bucket/results", "/out", (), NEVER)
    with results_folder(output, tmp_path, patience=0.0) as (folder, finish):
        for info in local_store.list(""):
            LocalStore(folder).put(info.key, local_store.get(info.key, max_size=info.size)[0])
        if not reachable:
            watched.instead = _away
            with pytest.raises(StoreError) as caught:
                finish()
            assert caught.value.message == "the results did not get to s3://bucket/results: away"
            assert f"sealfs fetch {folder} s3://bucket/results" in caught.value.hint
        else:
            finish()
    assert folder.exists() != reachable


def _away(key: str) -> None:
    raise StoreError("away")


def test_folder_as_store(tmp_path: Path) -> None:
    output = Output((tmp_path / "a" / "b").as_uri(), "/out", (), NEVER)
    with results_folder(output, tmp_path) as (folder, finish):
        finish()
    assert folder == tmp_path / "a" / "b"
    assert folder.is_dir()
