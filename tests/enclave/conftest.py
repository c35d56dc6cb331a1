"""A folder of results in memory, and what seals it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from enclave.sealed import NEVER, Sealer
from sealfs.enclave.output import OutputSealer
from sealfs.keys import Identity
from sealfs.store.base import ObjectStore
from sealfs.store.local import LocalStore


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory, as a run has one."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as top:
        (Path(top) / "content").mkdir()
        (Path(top) / "state").mkdir()
        yield Path(top)


@pytest.fixture
def folder(memory: Path) -> Path:
    return memory / "content"


@pytest.fixture
def sealer(memory: Path, local_store: LocalStore, identity: Identity) -> Iterator[Sealer]:
    """Makes sealers of the folder that do not outlive the test."""
    made: list[OutputSealer] = []

    def make(store: ObjectStore = local_store, interval: float = NEVER, patience: float = 0.0) -> OutputSealer:
        recipients, state = [identity.recipient], memory / "state"
        output = OutputSealer(memory / "content", store, recipients, state, interval=interval, patience=patience)
        made.append(output)
        return output

    yield make
    for output in made:
        output.abandon()
