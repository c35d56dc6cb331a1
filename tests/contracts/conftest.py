"""What most tests of contracts begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.world import World, three_brokers


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Everybody, and the two banks' loans sealed."""
    with three_brokers(tmp_path) as found:
        found.seal_loans()
        yield found
