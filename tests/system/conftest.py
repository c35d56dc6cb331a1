"""What tests of whole programs share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment for a program that works in the test's own folder, and leaves nothing there."""
    yield os.environ | {"TMPDIR": str(tmp_path)}
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
