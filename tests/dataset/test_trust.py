"""What a store can serve that is authentic in itself and still wrong: each refused, and told apart."""

from __future__ import annotations

import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from securesystemslib.dsse import Envelope

from dataset.tools import Unclosed, names, push, served, state_of_folder
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.objects import HEAD, SNAPSHOTS, ObjectRef
from sealfs.dataset.snapshot import PAYLOAD_TYPE, Ancestor, Head
from sealfs.dataset.trust import TrustStore
from sealfs.errors import FormatError, IntegrityError, LocalIOError, NotADatasetError, TrustError
from sealfs.fields import canonical_json
from sealfs.keys import Identity
from sealfs.store.base import ObjectStore
from sealfs.store.local import LocalStore


def copy(source: LocalStore, target: Path) -> LocalStore:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(Path(source.uri.removeprefix("file://")), target)
    return LocalStore(target)


def restore(source: LocalStore, target: LocalStore) -> None:
    """Make `target`, at its own address, an exact copy of `source`."""
    target.delete(names(target))
    for key in names(source):
        target.put(key, source.get(key, max_size=1 << 30)[0])


def head_of(store: LocalStore) -> bytes:
    return store.get(HEAD, max_size=4096)[0]


@pytest.fixture
def versions(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path
) -> list[LocalStore]:
    """Three versions pushed to `local_store`; returns copies of the store after each push."""
    copies = []
    for number in range(3):
        (tree / "script").write_bytes(b"version %d" % number)
        push(tree, local_store, identity, trust)
        copies.append(copy(local_store, tmp_path / f"copy {number}"))
    return copies


@pytest.mark.parametrize("to", [1, 2])
def test_a_store_that_is_rolled_back_is_refused(
    versions: list[LocalStore], local_store: LocalStore, trust: TrustStore, to: int
) -> None:
    restore(versions[to - 1], local_store)
    with pytest.raises(TrustError, match=f"serves version {to}, but version 3 was seen") as caught:
        Dataset.open(local_store, trust)
    assert "rolled back" in caught.value.hint
    assert Dataset.open(local_store, TrustStore(Path(local_store.uri[7:]) / "new user")).newest.version == to


def test_only_the_head_rolled_back_is_refused_too(
    versions: list[LocalStore], local_store: LocalStore, trust: TrustStore
) -> None:
    local_store.put(HEAD, head_of(versions[0]))
    with pytest.raises(TrustError, match="version 3 was seen"):
        Dataset.open(local_store, trust)


@pytest.mark.parametrize("further", [0, 1])
def test_a_forked_history_is_refused(
    versions: list[LocalStore],
    local_store: LocalStore,
    tree: Path,
    identity: Identity,
    trust: TrustStore,
    tmp_path: Path,
    further: int,
) -> None:
    fork = versions[1]
    for number in range(1 + further):
        (tree / "script").write_bytes(b"another version %d" % (3 + number))
        push(tree, fork, identity, TrustStore(tmp_path / "fork's"))
    restore(fork, local_store)
    with pytest.raises(TrustError, match="version 3 is not the one that was seen") as caught:
        Dataset.open(local_store, trust)
    assert "two histories" in caught.value.hint


@pytest.mark.parametrize("same_provider", [True, False])
def test_another_dataset_at_the_same_address_is_refused(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path, same_provider: bool
) -> None:
    push(tree, local_store, identity, trust)
    other = LocalStore(tmp_path / "other")
    provider = identity if same_provider else Identity.generate()
    push(tree, other, provider, TrustStore(tmp_path / "other's"))
    restore(other, local_store)
    expected = "another dataset" if same_provider else "pinned to"
    with pytest.raises(TrustError, match=expected) as caught:
        Dataset.open(local_store, trust)
    assert "sealfs trust" in caught.value.hint
    trust.forget(local_store.uri)
    assert Dataset.open(local_store, trust).first_use


def test_first_use_takes_the_demanded_signer_only(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path
) -> None:
    push(tree, local_store, identity, TrustStore(tmp_path / "provider's"))
    stranger = Identity.generate().signer
    with pytest.raises(TrustError, match="pinned to"):
        Dataset.open(local_store, trust, signer=stranger)
    assert trust.get(local_store.uri) is None
    assert Dataset.open(local_store, trust, signer=identity.signer).first_use
    assert not Dataset.open(local_store, trust).first_use
    with pytest.raises(TrustError, match="is pinned to"):
        Dataset.open(local_store, trust, signer=stranger)


def test_a_new_signer_takes_a_deliberate_repin(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path
) -> None:
    push(tree, local_store, identity, trust)
    with pytest.raises(TrustError, match="nothing is pinned"):
        trust.repin("file:///elsewhere", identity.signer)
    trust.repin(local_store.uri, Identity.generate().signer)
    with pytest.raises(TrustError):
        Dataset.open(local_store, trust)
    trust.repin(local_store.uri, identity.signer)
    assert Dataset.open(local_store, trust).newest.version == 1


def test_an_older_version_is_what_the_newest_pins(
    versions: list[LocalStore], local_store: LocalStore, trust: TrustStore, identity: Identity
) -> None:
    first, second = (Dataset.open(local_store, trust, version=n).ref for n in (1, 2))
    data, _ = local_store.get(second.name, max_size=1 << 20)
    local_store.put(first.name, data)
    with pytest.raises(IntegrityError, match="the provider signed"):
        Dataset.open(local_store, trust, version=1)
    assert served(local_store, identity, trust, 2)[b"/script"][2] == b"version 1"


@pytest.mark.parametrize("version", [0, 4, 99, -1])
def test_a_version_that_never_was(
    versions: list[LocalStore], local_store: LocalStore, trust: TrustStore, version: int
) -> None:
    with pytest.raises(NotADatasetError, match="the newest is 3"):
        Dataset.open(local_store, trust, version=version)


@pytest.mark.parametrize("newer", ["head", "snapshot"])
def test_a_newer_format_says_upgrade(
    versions: list[LocalStore], local_store: LocalStore, trust: TrustStore, newer: str, identity: Identity
) -> None:
    head = json.loads(head_of(local_store))
    if newer == "head":
        head["format_version"] = 2
        local_store.put(HEAD, json.dumps(head).encode())
    else:
        name = SNAPSHOTS + "0" * 16 + "-" + "0" * 32
        envelope = Envelope(b'{"format_version":2}', PAYLOAD_TYPE, {})
        envelope.sign(identity.signing_key())
        data = canonical_json(envelope.to_dict())
        local_store.put(name, data)
        local_store.put(HEAD, Head(4, ObjectRef.of(name, data)).to_bytes())
    with pytest.raises(FormatError, match="format version 2") as caught:
        Dataset.open(local_store, trust)
    assert "upgrade" in caught.value.hint
    assert caught.value.exit_code == 11


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 5000, b"{}", b'{"format_version":1}'])
def test_a_head_that_is_none(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, content: bytes
) -> None:
    push(tree, local_store, identity, trust)
    local_store.put(HEAD, content)
    with pytest.raises(IntegrityError):
        Dataset.open(local_store, trust)


def test_a_head_that_lies_about_its_version(
    versions: list[LocalStore], local_store: LocalStore, trust: TrustStore
) -> None:
    head = Head.parse(head_of(local_store))
    local_store.put(HEAD, Head(9, head.ref).to_bytes())
    with pytest.raises(IntegrityError, match="another version"):
        Dataset.open(local_store, trust)
    local_store.put(HEAD, head.to_bytes())
    assert Dataset.open(local_store, trust).newest.version == 3


def test_what_is_refused_leaves_the_pin_alone(
    versions: list[LocalStore], local_store: LocalStore, trust: TrustStore
) -> None:
    before = trust.get(local_store.uri)
    restore(versions[0], local_store)
    with pytest.raises(TrustError):
        Dataset.open(local_store, trust)
    assert trust.get(local_store.uri) == before


def test_an_empty_store_is_no_dataset(local_store: LocalStore, trust: TrustStore) -> None:
    with pytest.raises(NotADatasetError, match="not a sealed dataset") as caught:
        Dataset.open(local_store, trust)
    assert "sealfs push" in caught.value.hint


def test_pins_that_cannot_be_kept_are_a_local_error(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path
) -> None:
    push(tree, local_store, identity, trust)
    (tmp_path / "file").touch()
    with pytest.raises((LocalIOError, TrustError)):
        Dataset.open(local_store, TrustStore(tmp_path / "file" / "trust"))


def test_pins_only_move_forward_whatever_the_order_of_those_who_move_them(
    versions: list[LocalStore], local_store: LocalStore, tmp_path: Path
) -> None:
    seen = [Dataset.open(local_store, TrustStore(tmp_path / "reader's"), version=n) for n in (1, 2, 3)]
    pins: list[int] = []

    def move(dataset: Dataset) -> None:
        trust = TrustStore(tmp_path / "pins")
        for _ in range(20):
            with contextlib.suppress(TrustError):
                trust.accept(local_store.uri, dataset.snapshot, dataset.ref)
            pin = trust.get(local_store.uri)
            assert pin is not None
            pins.append(pin.version)

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(move, dataset) for dataset in seen]:
            future.result()
    assert pins[-1] == 3
    for dataset in seen[:2]:
        with pytest.raises(TrustError, match="version 3 was seen"):
            TrustStore(tmp_path / "pins").accept(local_store.uri, dataset.snapshot, dataset.ref)


def test_state_is_unharmed_by_all_of_this(
    tree: Path, versions: list[LocalStore], local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    restore(versions[0], local_store)
    with pytest.raises(TrustError):
        push(tree, local_store, identity, trust)
    restore(versions[2], local_store)
    assert served(local_store, identity, trust) == state_of_folder(tree)


def test_a_pin_that_appears_meanwhile_counts(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path
) -> None:
    """Somebody opens an unknown address; before they are done another process pins its true provider."""
    push(tree, local_store, identity, TrustStore(tmp_path / "provider's"))
    genuine = Dataset.open(local_store, TrustStore(tmp_path / "anybody's"))
    forger = Identity.generate()
    forged = replace(genuine.snapshot, version=2, signer=forger.signer, history=(Ancestor(1, genuine.ref),)).sign(
        forger
    )
    ref = ObjectRef.of(f"{SNAPSHOTS}{16 * '0'}-{32 * '0'}", forged)
    local_store.put(ref.name, forged)
    local_store.put(HEAD, Head(2, ref).to_bytes())

    class Slow(Unclosed):
        def get(self, key: str, *, max_size: int) -> tuple[bytes, str]:
            if key == ref.name:
                trust.accept(local_store.uri, genuine.snapshot, genuine.ref)
            return local_store.get(key, max_size=max_size)

    with pytest.raises(TrustError, match="pinned to"):
        Dataset.open(cast("ObjectStore", Slow(local_store)), trust)
    pin = trust.get(local_store.uri)
    assert pin is not None
    assert pin.signer == identity.signer
