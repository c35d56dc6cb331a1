"""What tests of pushing fill and push."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataset.tools import Provider
from sealfs.dataset.trust import TrustStore
from sealfs.keys import Identity
from sealfs.store.local import LocalStore


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty folder."""
    top = tmp_path / "source"
    top.mkdir()
    return top


@pytest.fixture
def provider(source: Path, local_store: LocalStore, identity: Identity, trust: TrustStore) -> Provider:
    """Whoever fills it, and all that they need to push it."""
    return Provider(source, local_store, identity, trust)
