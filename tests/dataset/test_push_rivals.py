"""Push: several writers at once, and stores that do not keep their promises to them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dataset.tools import Spy, names, opened, push, read, served, state_of_folder
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.objects import HEAD, INDEXES, PACKS, PUSHES, SNAPSHOTS
from sealfs.dataset.trust import TrustStore
from sealfs.errors import (
    ConflictError,
    StoreError,
)
from sealfs.keys import Identity
from sealfs.store.base import ReadableBuffer
from sealfs.store.local import LocalStore


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
    assert served(local_store, identity, me) == state_of_folder(theirs)
    packs = names(local_store, PACKS)
    again = push(mine, local_store, identity, me)
    if not first:  # same dataset, same key: what the loser sent counts
        assert again.sent == 0
        assert names(local_store, PACKS) == packs
    assert served(local_store, identity, me) == state_of_folder(mine)
    assert served(local_store, identity, me, version) == state_of_folder(theirs)


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
    assert served(local_store, identity, trust) == state_of_folder(tree)


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
    assert served(local_store, identity, trust) == state_of_folder(other)
