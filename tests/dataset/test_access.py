"""Who can open what, before and after grant, revoke, rotate and re-encryption."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset.tools import Spy, names, opened, push, served, state_of_folder, state_of_view
from sealfs.dataset.access import AccessChange
from sealfs.dataset.dataset import Dataset, Summary
from sealfs.dataset.gc import delete_garbage, find_garbage
from sealfs.dataset.objects import PACKS, PUSHES, SNAPSHOTS
from sealfs.dataset.reader import PackReader
from sealfs.dataset.trust import TrustStore
from sealfs.errors import ConflictError, KeyAccessError, StoreError, TrustError, UsageError
from sealfs.keys import Identity
from sealfs.progress import Silent
from sealfs.store.local import LocalStore
from sealfs.store.source import DirectSource

SILENT = Silent()


@pytest.fixture
def reader() -> Identity:
    return Identity.generate()


def can_open(store: LocalStore, who: Identity, trust: TrustStore, version: int | None = None) -> bool:
    try:
        with opened(store, who, trust, version) as view:
            return bool(state_of_view(view))
    except KeyAccessError:
        return False


def revoke(
    store: LocalStore, identity: Identity, trust: TrustStore, whom: Identity, reencrypt: bool = False
) -> None:
    fingerprint = whom.recipient.fingerprint
    AccessChange(store, identity, trust).revoke([fingerprint], reencrypt, SILENT)


def test_a_grant_opens_everything_old_and_new(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, reader: Identity
) -> None:
    push(tree, local_store, identity, trust)
    AccessChange(local_store, identity, trust).rotate(False, SILENT)
    assert not can_open(local_store, reader, trust)
    packs = names(local_store, PACKS)
    snapshot = AccessChange(local_store, identity, trust).grant([reader.recipient])
    assert snapshot is not None
    assert names(local_store, PACKS) == packs
    for version in (1, 2, 3):
        assert can_open(local_store, reader, trust, version), version
    assert AccessChange(local_store, identity, trust).grant([reader.recipient]) is None
    assert Dataset.open(local_store, trust).newest.version == 3


def test_who_is_no_recipient_is_told_what_to_do(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, reader: Identity
) -> None:
    push(tree, local_store, identity, trust)
    with pytest.raises(KeyAccessError, match=reader.recipient.fingerprint) as caught:
        Dataset.open(local_store, trust).keys(reader)
    assert "sealfs grant" in caught.value.hint


def test_a_revoked_reader_opens_old_versions_and_nothing_new(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, reader: Identity
) -> None:
    push(tree, local_store, identity, trust, recipients=[reader.recipient])
    first = state_of_folder(tree)
    revoke(local_store, identity, trust, reader)
    (tree / "new").write_bytes(b"not for everybody" * 1000)
    push(tree, local_store, identity, trust)
    assert not can_open(local_store, reader, trust)
    assert not can_open(local_store, reader, trust, 2)
    assert served(local_store, reader, trust, 1) == first
    assert served(local_store, identity, trust) == state_of_folder(tree)


def test_the_keys_a_revoked_reader_kept_do_not_open_a_byte_of_what_is_new(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, reader: Identity
) -> None:
    push(tree, local_store, identity, trust, recipients=[reader.recipient])
    kept = Dataset.open(local_store, trust).keys(reader)
    revoke(local_store, identity, trust, reader)
    (tree / "new").write_bytes(b"not for everybody" * 1000)
    push(tree, local_store, identity, trust)
    dataset = Dataset.open(local_store, trust)
    for deed in (lambda: dataset.index(kept), lambda: Summary.open(dataset.snapshot, kept)):
        with pytest.raises(KeyAccessError, match="epoch 2"):
            deed()
    index = dataset.index(dataset.keys(identity))
    thief = PackReader(index, kept, DirectSource(local_store), 0)
    new = [n for n in range(index.packs) if index.pack(n).epoch == 2]
    assert len(new) == 1
    with pytest.raises(KeyAccessError, match="epoch 2"):
        thief.read_into(new[0], 0, memoryview(bytearray(1)))


def test_unchanged_files_keep_their_packs_over_a_rotation_and_stay_readable(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    push(tree, local_store, identity, trust)
    AccessChange(local_store, identity, trust).rotate(False, SILENT)
    (tree / "new").write_bytes(b"new")
    result = push(tree, local_store, identity, trust)
    assert result.sent < 1000
    dataset = Dataset.open(local_store, trust)
    index = dataset.index(dataset.keys(identity))
    assert {index.pack(n).epoch for n in range(index.packs)} == {1, 2}
    assert served(local_store, identity, trust) == state_of_folder(tree)


@pytest.mark.parametrize("action", ["revoke", "rotate"])
@pytest.mark.usefixtures("small_packs")
def test_reencryption_and_gc_leave_nothing_that_the_old_key_opens(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, reader: Identity, action: str
) -> None:
    push(tree, local_store, identity, trust, recipients=[reader.recipient])
    (tree / "new").write_bytes(b"new" * 50_000)
    push(tree, local_store, identity, trust)
    old = names(local_store, PACKS)
    change = AccessChange(local_store, identity, trust)
    if action == "revoke":
        change.revoke([reader.recipient.fingerprint], True, SILENT)
    else:
        change.rotate(True, SILENT)
    dataset = Dataset.open(local_store, trust)
    assert not old & {ref.name for ref in dataset.snapshot.packs}
    index = dataset.index(dataset.keys(identity))
    assert {index.pack(n).epoch for n in range(index.packs)} == {2}
    delete_garbage(local_store, find_garbage(local_store, trust, keep=1))
    assert not old & names(local_store, PACKS)
    for version in (1, 2):
        assert not local_store_has(local_store, trust, version)
    assert list(served(local_store, identity, trust).items()) == list(state_of_folder(tree).items())
    assert can_open(local_store, reader, trust) == (action == "rotate")
    assert push(tree, local_store, identity, trust).snapshot is None


def local_store_has(store: LocalStore, trust: TrustStore, version: int) -> bool:
    newest = Dataset.open(store, trust).newest
    return any(a.ref.name in names(store, SNAPSHOTS) for a in newest.history if a.version == version)


@pytest.mark.parametrize("whom", [[""], ["zz"], ["0" * 16], ["", ""]])
def test_revoking_nobody_in_particular_is_refused(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, reader: Identity, whom: list[str]
) -> None:
    push(tree, local_store, identity, trust, recipients=[reader.recipient])
    before = names(local_store)
    with pytest.raises(UsageError):
        AccessChange(local_store, identity, trust).revoke(whom, False, SILENT)
    assert names(local_store) == before


def test_the_provider_cannot_lock_itself_out(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, reader: Identity
) -> None:
    push(tree, local_store, identity, trust, recipients=[reader.recipient])
    with pytest.raises(UsageError, match="provider"):
        revoke(local_store, identity, trust, identity)
    with pytest.raises(UsageError, match="provider"):
        AccessChange(local_store, identity, trust).revoke(
            [reader.recipient.fingerprint, identity.recipient.fingerprint], False, SILENT
        )
    assert can_open(local_store, reader, trust)


def test_a_reader_cannot_change_access(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, reader: Identity
) -> None:
    push(tree, local_store, identity, trust, recipients=[reader.recipient])
    before = names(local_store)
    with pytest.raises(TrustError):
        AccessChange(local_store, reader, trust)
    assert names(local_store) == before


@pytest.mark.parametrize("reencrypt", [False, True])
def test_a_change_that_is_interrupted_at_any_object_changes_nothing(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, reader: Identity, reencrypt: bool
) -> None:
    push(tree, local_store, identity, trust, recipients=[reader.recipient])
    for at in range(50):

        class Plug(Spy):
            left = at

            def before_put(self, key: str) -> None:
                self.left -= 1
                if self.left < 0:
                    raise StoreError("the plug was pulled")

        try:
            AccessChange(Plug(local_store), identity, trust).revoke(
                [reader.recipient.fingerprint], reencrypt, SILENT
            )
        except StoreError:
            assert Dataset.open(local_store, trust).newest.version == 1
            assert can_open(local_store, reader, trust)
            continue
        break
    assert at >= 5
    assert not can_open(local_store, reader, trust)
    assert served(local_store, identity, trust) == state_of_folder(tree)


def test_a_change_that_loses_against_a_push_says_so(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, reader: Identity
) -> None:
    push(tree, local_store, identity, trust, recipients=[reader.recipient])
    change = AccessChange(local_store, identity, trust)
    (tree / "new").write_bytes(b"new")
    push(tree, local_store, identity, trust)
    with pytest.raises(ConflictError, match="version 2"):
        change.revoke([reader.recipient.fingerprint], False, SILENT)
    assert can_open(local_store, reader, trust)
    revoke(local_store, identity, trust, reader)
    assert not can_open(local_store, reader, trust)
    assert Dataset.open(local_store, trust).newest.version == 3


def test_a_finished_change_leaves_no_marker(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    push(tree, local_store, identity, trust)
    AccessChange(local_store, identity, trust).rotate(True, SILENT)
    assert names(local_store, PUSHES) == set()
