from __future__ import annotations

from pathlib import Path

import pytest
from commands import InProcess, flip_bit, objects


def test_bytes_of_several_files(sealfs: InProcess, source: Path, pushed: Path) -> None:
    expected = (source / "images" / "2.bin").read_bytes() + (source / "labels.csv").read_bytes()
    assert sealfs("cat", pushed, "images/2.bin", "labels.csv").stdout == expected


def test_big_file(sealfs: InProcess, source: Path, store: Path) -> None:
    content = bytes(range(256)) * (9 << 12)
    (source / "big").write_bytes(content)
    sealfs("push", source, store)
    assert sealfs("cat", store, "big").stdout == content


def test_nothing_is_written_when_one_is_missing_or_no_file(sealfs: InProcess, pushed: Path) -> None:
    for path, words in {"nothing": "no 'nothing'", "images": "is not a file", "latest": "is not a file"}.items():
        outcome = sealfs("cat", pushed, "labels.csv", path, code=3)
        assert words in outcome.complaint
        assert outcome.stdout == b""


@pytest.mark.error_logs
def test_damage(sealfs: InProcess, pushed: Path) -> None:
    for pack in objects(pushed, "packs"):
        flip_bit(pack, pack.stat().st_size // 2)
    outcome = sealfs("cat", pushed, "labels.csv", code=5)
    assert "packs/" in outcome.stderr.splitlines()[-1]
    assert outcome.stdout == b""
