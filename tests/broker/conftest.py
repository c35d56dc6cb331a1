from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.tools import Broker, running
from sealfs.keys import Identity


@pytest.fixture(scope="session")
def owner() -> Identity:
    return Identity.generate()


@pytest.fixture
def broker(tmp_path: Path, owner: Identity) -> Iterator[Broker]:
    """A broker that answers over TLS."""
    with running(tmp_path / "broker", owner) as found:
        yield found
