"""Where a workload's keys come from: one interface, so that how they are released can change without the rest.

Here: an identity, as on any machine, and pre-shared dataset keys, for tests of enclaves without attestation. Both
lie on the host in the clear, so neither makes an enclave confidential: that takes keys that are released to a
measured enclave only. A source sees the verified dataset, so one that knows better can refuse its version, too.

Threading: immutable.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.keyring import DATASET_ID_SIZE, DatasetKeys
from sealfs.errors import IntegrityError, KeyAccessError, LocalIOError
from sealfs.keys import Identity, Recipient, parse_identity

MAX_SECRETS = 1 << 20  # bytes of an identity's text, or of a file of test keys
_PREFIX = "sealfs-test-keys-1:"
_MANIFEST_PREFIX = "sealfs-runner-manifest-1:"


@runtime_checkable
class KeySource(Protocol):
    """Gives out the keys of datasets."""

    def keys(self, dataset: Dataset) -> DatasetKeys:
        """Return what opens a verified dataset.

        Args:
            dataset: Its snapshot (`snapshot`, `ref.sha256`) is what the workload is about to see.

        Raises:
            KeyAccessError: There are no keys for it here.
            TrustError: The source knows that this is not the version to be seen.
        """

    @property
    def proven(self) -> str | None:
        """How well this environment is protected, as proven for the keys, such as "L1"; None if nobody asked."""


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

    @property
    def recipient(self) -> Recipient:
        """Whose keys these are."""
        return self._identity.recipient

    @property
    def proven(self) -> None:
        """See `KeySource`: an identity proves nothing of where it is used."""

    def to_text(self) -> str:
        """Return what gives a launcher the same keys: a secret, for a descriptor and nowhere else."""
        return self._identity.to_text()


class PresharedKeys:
    """Keys that were handed over beforehand.

    Args:
        keys: Of one dataset each.
        proven: What whoever got them has proven for them, see `KeySource.proven`.
    """

    def __init__(self, keys: Iterable[DatasetKeys], proven: str | None = None) -> None:
        self._keys: Mapping[bytes, DatasetKeys] = {entry.dataset: entry for entry in keys}
        self._proven = proven

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
                text = file.read(MAX_SECRETS).decode("ascii", "replace")
        except OSError as error:
            raise KeyAccessError(
                f"cannot read {path}: {error.strerror}", "check the name of the key file"
            ) from None
        return cls.parse(text, str(path))

    @classmethod
    def parse(cls, text: str, name: str) -> PresharedKeys:
        """Read the text of such a file; `name` says where it comes from, for messages.

        Raises:
            KeyAccessError: It is damaged, or something else.
        """
        keys = []
        for line in text.splitlines():
            try:
                dataset, packed = (bytes.fromhex(word) for word in line.removeprefix(_PREFIX).split())
                if not line.startswith(_PREFIX) or len(dataset) != DATASET_ID_SIZE:
                    raise ValueError
                keys.append(DatasetKeys.unpack(dataset, packed))
            except (ValueError, IntegrityError):
                raise KeyAccessError(f"{name} is no file of test keys, or damaged", "write it again") from None
        return cls(keys)

    def keys(self, dataset: Dataset) -> DatasetKeys:
        """See `KeySource`."""
        found = self._keys.get(dataset.snapshot.dataset)
        if found is None:
            raise KeyAccessError(
                f"the key file has no keys for {dataset.store.uri}", "write one that has, or use an identity"
            )
        return found

    @property
    def proven(self) -> str | None:
        """See `KeySource`."""
        return self._proven

    def to_text(self) -> str:
        """Return what gives a launcher the same keys: a secret, for a descriptor and nowhere else."""
        return "".join(f"{_PREFIX}{entry.dataset.hex()} {entry.pack().hex()}\n" for entry in self._keys.values())


HandedKeys = IdentityKeys | PresharedKeys
"""Keys that whoever starts a launcher has, and hands to it."""


@dataclass(frozen=True, slots=True)
class RunnerSecret:
    """What an enrolled runner hands to a launcher, so that it can ask brokers in the runner's name.

    Attributes:
        identity: The runner's.
        manifest: SHA-256 of the manifest that it runs, hex. It can't be among the arguments: they are in it.
    """

    identity: Identity = field(repr=False)
    manifest: str

    def to_text(self) -> str:
        """Return it for a descriptor and nowhere else."""
        return f"{_MANIFEST_PREFIX}{self.manifest}\n{self.identity.to_text()}"

    @classmethod
    def parse(cls, text: str) -> RunnerSecret:
        """Undo `to_text`.

        Raises:
            KeyAccessError: It is something else.
        """
        match = re.match(rf"{_MANIFEST_PREFIX}([0-9a-f]{{64}})\n", text)
        if match is None:
            raise KeyAccessError("that is no runner's secret", "'sealfs run --runner' writes it")
        return cls(parse_identity(text, "the runner's secret"), match[1])


def read_secret(descriptor: int) -> str:
    """Return what a descriptor gives to its end, and close it: the program must not inherit it.

    Raises:
        KeyAccessError: It is not open, or gives more than any key is.
    """
    try:
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(MAX_SECRETS + 1)
    except OSError as error:
        raise KeyAccessError(
            f"cannot read descriptor {descriptor}: {error.strerror}", "who starts the launcher has to open it"
        ) from None
    if len(data) > MAX_SECRETS:
        raise KeyAccessError(f"descriptor {descriptor} gives too much for a key", "give it an identity file")
    return data.decode("utf-8", "replace")


def write_preshared_keys(path: Path, keys: Iterable[DatasetKeys]) -> None:
    """Write dataset keys to a new file that only its owner can read: for tests, as nothing protects them there.

    Raises:
        LocalIOError: The file exists already, or can't be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            file.write(PresharedKeys(keys).to_text())
    except OSError as error:
        raise LocalIOError(f"cannot write {path}: {error.strerror}", "choose another file") from None
