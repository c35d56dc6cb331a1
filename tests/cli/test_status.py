"""status and umount where nothing is mounted; tests/mount has the rest."""

from __future__ import annotations

from pathlib import Path

from commands import InProcess


def test_nothing_mounted(sealfs: InProcess, tmp_path: Path) -> None:
    assert sealfs("status").text == "nothing is mounted\n"
    assert sealfs("status", "--json").json == []
    assert "no sealfs is mounted on" in sealfs("status", tmp_path, code=10).complaint
    assert "no sealfs is mounted on" in sealfs("umount", tmp_path, code=10).complaint
