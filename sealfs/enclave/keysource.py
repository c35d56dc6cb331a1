"""Where a workload's keys come from: one interface, so that how they are released can change without the rest.

Here: an identity file, as on any machine, and a file of pre-shared dataset keys, for tests of enclaves without
attestation. Both lie on the host in the clear, so neither makes an enclave confidential: that takes keys that are
released to a measured enclave only.

Threading: immutable.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.keyring import DATASET_ID_SIZE, DatasetKeys
from sealfs.errors import IntegrityError, KeyAccessError, LocalIOError
from sealfs.keys import Identity

_PREFIX = "sealfs-test-keys-1:"
_MAX_FILE = 1 << 20


class KeySource(Protocol):
    """Gives out the keys of datasets."""

    def keys(self, dataset: Dataset) -> DatasetKeys:
        """Return what opens a verified dataset.

        Raises:
            KeyAccessError: There are no keys for it here.
        """


class IdentityKeys:
    """Unwraps keys from the dataset's own keyring.

    Args:
        identity: A recipient of the dataset.
    """

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def keys(self, dataset: Dataset) -> DatasetKeys:
        """See `KeySource`."""
        return dataset.keys(self._identity)


class PresharedKeys:
    """Keys that were handed over beforehand.

    Args:
        keys: Dataset id, 16 bytes, to its keys.
    """

    def __init__(self, keys: Mapping[bytes, DatasetKeys]) -> None:
        self._keys = dict(keys)

    @classmethod
    def read(cls, path: Path) -> PresharedKeys:
        """Read a file written by `write_preshared_keys`.

        Raises:
            KeyAccessError: Missing, damaged, or open to other users.
        """
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise KeyAccessError(f"{path} can be read by other users", f"run: chmod 600 {path}")
                text = file.read(_MAX_FILE).decode("ascii", "replace")
        except OSError as error:
            raise KeyAccessError(
                f"cannot read {path}: {error.strerror}", "check the name of the key file"
            ) from None
        keys: dict[bytes, DatasetKeys] = {}
        for line in text.splitlines():
            try:
                dataset, packed = (bytes.fromhex(word) for word in line.removeprefix(_PREFIX).split())
                if not line.startswith(_PREFIX) or len(dataset) != DATASET_ID_SIZE:
                    raise ValueError
                keys[dataset] = DatasetKeys.unpack(dataset, packed)
            except (ValueError, IntegrityError):
                raise KeyAccessError(f"{path} is no file of test keys, or damaged", "write it again") from None
        return cls(keys)

    def keys(self, dataset: Dataset) -> DatasetKeys:
        """See `KeySource`."""
        found = self._keys.get(dataset.snapshot.dataset)
        if found is None:
            raise KeyAccessError(
                f"the key file has no keys for {dataset.store.uri}", "write one that has, or use an identity"
            )
        return found


def write_preshared_keys(path: Path, keys: Iterable[DatasetKeys]) -> None:
    """Write dataset keys to a new file that only its owner can read: for tests, as nothing protects them there.

    Raises:
        LocalIOError: The file exists already, or can't be written.
    """
    lines = [f"{_PREFIX}{entry.dataset.hex()} {entry.pack().hex()}\n" for entry in keys]
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            file.writelines(lines)
    except OSError as error:
        raise LocalIOError(f"cannot write {path}: {error.strerror}", "choose another file") from None
