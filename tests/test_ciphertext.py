"""A version's objects as files, without any key: complete, checked, and nothing but what a reader needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealfs.ciphertext import fetch, objects_of, open_objects
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.push import Push
from sealfs.dataset.trust import TrustStore
from sealfs.errors import IntegrityError, ObjectNotFoundError
from sealfs.keys import Identity
from sealfs.opening import CacheSettings, open_view
from sealfs.progress import Silent
from sealfs.store.local import LocalStore


@pytest.fixture
def two_versions(tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore) -> LocalStore:
    Push(tree, local_store, identity, trust).run()
    (tree / "later").write_bytes(b"only in version 2")
    Push(tree, local_store, identity, trust).run()
    return local_store


def test_the_view_shows_exactly_the_objects_of_its_version(two_versions: LocalStore, trust: TrustStore) -> None:
    dataset = Dataset.open(two_versions, trust, version=1)
    view, _ = open_objects(dataset, CacheSettings())
    index = view.index
    files = {index.path(n).decode(): n for n in index.walk() if index.entry(n).is_file}
    assert files.keys() == {"head", *(ref.name for ref in objects_of(dataset))}
    for ref in objects_of(dataset):
        content = bytearray(ref.size)
        assert view.read_into(files[ref.name], 0, memoryview(content)) == ref.size
        assert content == two_versions.get(ref.name, max_size=ref.size)[0]
    view.close()


def test_a_view_has_no_byte_past_the_end_and_reads_any_range(two_versions: LocalStore, trust: TrustStore) -> None:
    dataset = Dataset.open(two_versions, trust)
    view, _ = open_objects(dataset, CacheSettings())
    name, size = dataset.snapshot.packs[0].name, dataset.snapshot.packs[0].size
    number = view.lookup(name.encode())
    raw = two_versions.get(name, max_size=size)[0]
    for offset, length in ((0, 1), (1, 100), (size - 5, 100), (size, 10), (size // 2, 4096)):
        out = bytearray(length)
        count = view.read_into(number, offset, memoryview(out))
        assert out[:count] == raw[offset : offset + length]
    view.close()


@pytest.mark.error_logs
def test_a_lost_object_poisons_the_view(two_versions: LocalStore, trust: TrustStore) -> None:
    dataset = Dataset.open(two_versions, trust)
    view, _ = open_objects(dataset, CacheSettings())
    name = dataset.snapshot.packs[0].name
    number = view.lookup(name.encode())
    two_versions.delete([name])
    with pytest.raises(IntegrityError):
        view.read_into(number, 0, memoryview(bytearray(10)))
    with pytest.raises(IntegrityError):
        view.lookup(b"head")
    view.close()


def test_a_copy_is_a_store_of_its_own(
    two_versions: LocalStore, tree: Path, tmp_path: Path, identity: Identity, trust: TrustStore
) -> None:
    copy = LocalStore(tmp_path / "copy")
    old = Dataset.open(two_versions, trust, version=1)
    count, size = fetch(old, copy, Silent())
    assert (count, size) == (len(objects_of(old)), sum(ref.size for ref in objects_of(old)))
    assert fetch(old, copy, Silent()) == (0, 0)  # all of it is there
    copied = Dataset.open(copy, trust)
    assert copied.snapshot.version == 1
    view, _ = open_view(copied, copied.keys(identity))
    number = view.lookup(b"images/deep/random")
    content = bytearray(view.entry(number).size)
    view.read_into(number, 0, memoryview(content))
    assert content == (tree / "images/deep/random").read_bytes()
    view.close()


@pytest.mark.parametrize("kind", ["packs/", "indexes/", "keyrings/"])
def test_damage_is_not_copied_and_leaves_no_head(
    two_versions: LocalStore, tmp_path: Path, trust: TrustStore, kind: str
) -> None:
    dataset = Dataset.open(two_versions, trust)
    name = next(ref.name for ref in objects_of(dataset) if ref.name.startswith(kind))
    raw = bytearray(two_versions.get(name, max_size=1 << 30)[0])
    raw[len(raw) // 2] ^= 1
    two_versions.put(name, raw)
    copy = LocalStore(tmp_path / "copy")
    with pytest.raises(IntegrityError, match=name):
        fetch(dataset, copy, Silent())
    with pytest.raises(ObjectNotFoundError):
        copy.stat("head")


def test_a_damaged_copy_is_mended(two_versions: LocalStore, tmp_path: Path, trust: TrustStore) -> None:
    dataset, copy = Dataset.open(two_versions, trust), LocalStore(tmp_path / "copy")
    fetch(dataset, copy, Silent())
    ref = dataset.snapshot.packs[0]
    copy.put(ref.name, bytes(ref.size))
    assert fetch(dataset, copy, Silent()) == (1, ref.size)
