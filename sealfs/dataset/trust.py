"""Pins: whom this user believes, and how far they have already seen a dataset go.

A store can serve old but authentic snapshots, or somebody else's. So for each address the first dataset seen is
remembered, with its signer, newest version and that version's digest, and nothing that contradicts it is
accepted later (trust on first use; `--signer` removes the leap of faith).

Threading: safe between threads and processes; each update holds a file lock.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sealfs.dataset.keyring import DATASET_ID_SIZE
from sealfs.dataset.objects import ObjectRef
from sealfs.dataset.snapshot import MAX_VERSION, Snapshot
from sealfs.errors import LocalIOError, SealfsError, TrustError
from sealfs.fields import FORMAT_VERSION, Fields, canonical_json
from sealfs.keys import Signer
from sealfs.locking import lock_file
from sealfs.xdg import state_directory

_MAX_PIN_SIZE = 16 << 10


@dataclass(frozen=True, slots=True)
class Pin:
    """What is remembered of one address.

    Attributes:
        uri: The normalized address.
        dataset: Dataset id, 16 bytes.
        signer: Whose snapshots are believed.
        version: Newest version seen; 0 before the first.
        sha256: Digest of that version's snapshot object, 32 bytes.
    """

    uri: str
    dataset: bytes
    signer: Signer
    version: int
    sha256: bytes

    def check(self, snapshot: Snapshot, ref: ObjectRef) -> None:
        """Refuse a newest snapshot that contradicts this pin.

        Raises:
            TrustError: Another signer, another dataset, older than seen, or a different history.
        """
        if snapshot.signer != self.signer:  # pinned since the snapshot was fetched
            raise TrustError(
                f"the snapshot is signed by {snapshot.signer}, but {self.uri} is pinned to {self.signer}",
                f"if the provider really has a new key, run: sealfs trust {self.uri} --signer NEW",
            )
        if snapshot.dataset != self.dataset:
            raise TrustError(
                f"{self.uri} now holds another dataset than the one seen before",
                f"if that is meant to be, run: sealfs trust --forget {self.uri}",
            )
        if snapshot.version < self.version:
            raise TrustError(
                f"the store serves version {snapshot.version}, but version {self.version} was seen here before",
                "the store is rolled back or stale: tell its operator and the provider",
            )
        known = {ancestor.version: ancestor.ref.sha256 for ancestor in snapshot.history}
        known[snapshot.version] = ref.sha256
        if self.version and known.get(self.version, self.sha256) != self.sha256:
            raise TrustError(
                f"version {self.version} is not the one that was seen here before",
                "the dataset has two histories: ask the provider which one is right",
            )


class TrustStore:
    """The pins of one user.

    Args:
        directory: Where they lie; made when needed.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or state_directory() / "trust"

    def _path(self, uri: str) -> Path:
        return self._directory / (hashlib.sha256(uri.encode()).hexdigest()[:32] + ".json")

    def get(self, uri: str) -> Pin | None:
        """Return what is pinned for an address.

        Raises:
            TrustError: The pin is there but unreadable; it is never taken for absent.
        """
        path = self._path(uri)
        try:
            with path.open("rb") as file:
                fields = Fields.parse(file.read(_MAX_PIN_SIZE), "trust pin")
            fields.check_version()
            return Pin(
                fields.text("uri"),
                fields.hexadecimal("dataset", DATASET_ID_SIZE),
                Signer.parse(fields.text("signer")),
                fields.integer("version", 0, MAX_VERSION),
                fields.hexadecimal("sha256", 32),
            )
        except FileNotFoundError:
            return None
        except (OSError, SealfsError) as error:
            raise TrustError(
                f"cannot read the trust pin {path}: {error}", "mend or delete the file, then check the signer"
            ) from None

    def expected_signer(self, uri: str, demanded: Signer | None) -> Signer | None:
        """Return whose signature to demand at an address; None at first use.

        Raises:
            TrustError: `demanded` is not the pinned one.
        """
        pin = self.get(uri)
        if pin is not None and demanded is not None and pin.signer != demanded:
            raise TrustError(
                f"{uri} is pinned to {pin.signer}, not to {demanded}",
                f"if the provider really has a new key, run: sealfs trust {uri} --signer NEW",
            )
        return pin.signer if pin is not None else demanded

    def accept(self, uri: str, snapshot: Snapshot, ref: ObjectRef) -> bool:
        """Check the newest snapshot against the pin, then move the pin forward.

        Returns:
            Whether this was the first use of the address.

        Raises:
            TrustError: It contradicts the pin.
        """
        with self._locked():
            pin = self.get(uri)
            if pin is not None:
                pin.check(snapshot, ref)
            if pin is None or pin.version < snapshot.version:
                self._write(Pin(uri, snapshot.dataset, snapshot.signer, snapshot.version, ref.sha256))
        return pin is None

    def repin(self, uri: str, signer: Signer) -> None:
        """Believe another signer from now on; the versions seen stay pinned.

        Raises:
            TrustError: Nothing is pinned there yet.
        """
        with self._locked():
            pin = self.get(uri)
            if pin is None:
                raise TrustError(f"nothing is pinned for {uri} yet", "give --signer at the first use instead")
            self._write(Pin(uri, pin.dataset, signer, pin.version, pin.sha256))

    def forget(self, uri: str) -> bool:
        """Drop the pin of an address; say whether there was one."""
        with self._locked():
            try:
                self._path(uri).unlink()
            except FileNotFoundError:
                return False
        return True

    def _write(self, pin: Pin) -> None:
        document = {
            "format_version": FORMAT_VERSION,
            "uri": pin.uri,
            "dataset": pin.dataset.hex(),
            "signer": str(pin.signer),
            "version": pin.version,
            "sha256": pin.sha256.hex(),
        }
        replace_file(self._path(pin.uri), canonical_json(document))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            with (self._directory / "lock").open("ab") as lock:
                lock_file(lock)
                yield
        except OSError as error:
            raise LocalIOError(
                f"cannot keep trust pins in {self._directory}: {error.strerror}",
                "point XDG_STATE_HOME at a writable folder",
            ) from None


def replace_file(path: Path, data: bytes) -> None:
    """Write a private file so that a crash leaves either the old or the new bytes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
