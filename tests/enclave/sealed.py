"""Sealed results, as their recipients see them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from dataset.tools import opened

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.output import OutputSealer
from sealfs.keys import Identity
from sealfs.progress import Silent
from sealfs.pull import Pull
from sealfs.store.local import LocalStore

NEVER = 3600.0  # seconds between snapshots where a test wants none

Sealer = Callable[..., OutputSealer]


def newest(store: LocalStore, trust: TrustStore) -> int:
    store.close()
    return Dataset.open(store, trust).snapshot.version


def content(
    store: LocalStore, identity: Identity, trust: TrustStore, version: int | None = None
) -> dict[str, bytes]:
    """All files of a version, as `sealfs pull` writes them."""
    with tempfile.TemporaryDirectory() as out, opened(store, identity, trust, version) as view:
        Pull(view, Path(out), Silent()).run([])
        return files(Path(out))


def files(top: Path) -> dict[str, bytes]:
    return {str(path.relative_to(top)): path.read_bytes() for path in top.rglob("*") if path.is_file()}
