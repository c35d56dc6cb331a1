"""Keys come from where they are said to, and from nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.push import Push
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.keysource import IdentityKeys, PresharedKeys, write_preshared_keys
from sealfs.errors import KeyAccessError, LocalIOError
from sealfs.keys import Identity
from sealfs.store.local import LocalStore


@pytest.fixture
def dataset(tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore) -> Dataset:
    Push(tree, local_store, identity, trust).run()
    return Dataset.open(local_store, trust)


def test_identity(dataset: Dataset, identity: Identity) -> None:
    keys = IdentityKeys(identity).keys(dataset)
    assert dataset.index(keys).entries > 10
    with pytest.raises(KeyAccessError):
        IdentityKeys(Identity.generate()).keys(dataset)


def test_preshared_keys_of_several_datasets(dataset: Dataset, identity: Identity, tmp_path: Path) -> None:
    other = DatasetKeys.generate(os.urandom(16)).with_new_epoch()
    path = tmp_path / "keys"
    write_preshared_keys(path, [other, dataset.keys(identity)])
    assert path.stat().st_mode & 0o777 == 0o600
    assert dataset.index(PresharedKeys.read(path).keys(dataset)).entries > 10


def test_preshared_keys_of_another_dataset(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    write_preshared_keys(path, [DatasetKeys.generate(os.urandom(16))])
    with pytest.raises(KeyAccessError, match="no keys for"):
        PresharedKeys.read(path).keys(dataset)


@pytest.mark.parametrize(
    "text",
    [
        "no keys at all",
        "sealfs-test-keys-1:zz zz",
        f"sealfs-test-keys-1:{'00' * 16} 00",
        f"sealfs-test-keys-1:00 {'00' * 36}",
        f"{'00' * 16} {'00' * 36}",
    ],
)
def test_damaged_key_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(KeyAccessError, match="no file of test keys") as caught:
        PresharedKeys.read(path)
    assert text not in str(caught.value), "an error text with a key in it"


def test_key_file_that_others_can_read_or_that_is_there_already(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    write_preshared_keys(path, [DatasetKeys.generate(os.urandom(16))])
    with pytest.raises(LocalIOError):
        write_preshared_keys(path, [])
    path.chmod(0o640)
    with pytest.raises(KeyAccessError, match="other users"):
        PresharedKeys.read(path)
    with pytest.raises(KeyAccessError, match="cannot read"):
        PresharedKeys.read(tmp_path / "missing")
