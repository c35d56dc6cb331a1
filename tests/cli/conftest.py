"""The command line: mostly in this process, which is quicker; as processes where that is what matters."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import InProcess, Sealfs

from sealfs.keys import Identity


@pytest.fixture(scope="session")
def shared_identity() -> Identity:
    return Identity.generate()


@pytest.fixture
def sealfs(tmp_path: Path, shared_identity: Identity) -> InProcess:
    """A user with an identity."""
    return InProcess(tmp_path / "home", shared_identity)


@pytest.fixture
def process(sealfs: InProcess) -> Sealfs:
    """The same user, in processes."""
    same = Sealfs(sealfs.home)
    same.env = sealfs.env
    return same


@pytest.fixture
def somebody(tmp_path: Path) -> Callable[[str], InProcess]:
    """Returns a function that makes one more user, with an identity of their own."""

    def make(name: str) -> InProcess:
        return InProcess(tmp_path / name, Identity.generate())

    return make


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder to push."""
    top = tmp_path / "source"
    (top / "images").mkdir(parents=True)
    for number in range(3):
        (top / "images" / f"{number}.bin").write_bytes(bytes([number]) * 1000)
    (top / "labels.csv").write_text("image,label\n0.bin,healthy\n")
    (top / "latest").symlink_to("images/2.bin")
    os.utime(top / "labels.csv", ns=(0, 1_700_000_000_123_456_789))
    return top


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where to push it."""
    return tmp_path / "store"


@pytest.fixture
def pushed(sealfs: InProcess, source: Path, store: Path) -> Path:
    """A store with one version of it."""
    sealfs("push", source, store, "-m", "first")
    return store
