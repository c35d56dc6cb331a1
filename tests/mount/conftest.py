"""Mounts with real FUSE: each in a process of its own, and always taken down again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from commands import InProcess, Mounted, Sealfs, mounted

from sealfs.keys import Identity


@pytest.fixture(scope="session", autouse=True)
def _fuse() -> None:
    """Without /dev/fuse there is nothing to test; a /dev/fuse that can't be used is a failure, not a reason."""
    if not os.path.exists("/dev/fuse"):
        pytest.skip("there is no /dev/fuse")


@pytest.fixture(scope="session")
def identity() -> Identity:
    return Identity.generate()


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory, identity: Identity) -> Sealfs:
    """Who pushes what the tests of a module read."""
    return InProcess(tmp_path_factory.mktemp("provider"), identity)


@pytest.fixture
def sealfs(tmp_path: Path, identity: Identity) -> Sealfs:
    """A reader with a home of this test's own."""
    return InProcess(tmp_path / "home", identity)


class MountFactory(Protocol):
    """Mounts something until the test is over."""

    def __call__(self, uri: object, *options: object, name: str = "mnt") -> Mounted: ...


@pytest.fixture
def mount(sealfs: Sealfs, tmp_path: Path) -> Iterator[MountFactory]:
    with ExitStack() as stack:

        def enter(uri: object, *options: object, name: str = "mnt") -> Mounted:
            return stack.enter_context(mounted(sealfs, uri, tmp_path / name, *options))

        yield enter
