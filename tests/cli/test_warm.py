"""warm on stores where there is nothing to warm; tests/mount/test_cache.py has the rest."""

from __future__ import annotations

from pathlib import Path

from commands import InProcess


def test_local_store(sealfs: InProcess, pushed: Path) -> None:
    assert "lies on this machine: there is nothing to fetch" in sealfs("warm", pushed, code=2).complaint
