from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import InProcess, flip_bit, objects
from mount import trees


def test_gives_the_folder_back(sealfs: InProcess, source: Path, pushed: Path, tmp_path: Path) -> None:
    outcome = sealfs("pull", pushed, tmp_path / "copy")
    assert "wrote 4 files" in outcome.text
    assert trees.described(tmp_path / "copy").items() == trees.described(source).items()
    assert (tmp_path / "copy" / "labels.csv").read_bytes() == (source / "labels.csv").read_bytes()
    assert "wrote 0 files, 0 bytes; 4 were there already" in sealfs("pull", pushed, tmp_path / "copy").text


def test_json_and_paths(sealfs: InProcess, pushed: Path, tmp_path: Path) -> None:
    told = sealfs("pull", "--json", pushed, tmp_path / "copy", "images/1.bin").json
    assert told == {"written": 1, "kept": 0, "size": 1000}
    assert [str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*.bin")] == [
        "images/1.bin"
    ]


def test_missing_path(sealfs: InProcess, pushed: Path, tmp_path: Path) -> None:
    assert "no 'nothing'" in sealfs("pull", pushed, tmp_path / "copy", "nothing", code=3).complaint
    assert not (tmp_path / "copy").exists()


@pytest.mark.error_logs
def test_damage_leaves_nothing_half_written(sealfs: InProcess, pushed: Path, tmp_path: Path) -> None:
    for pack in objects(pushed, "packs"):
        flip_bit(pack, pack.stat().st_size // 2)
    sealfs("pull", pushed, tmp_path / "copy", code=5)
    assert not [path for path in (tmp_path / "copy").rglob("*") if path.is_file()]


def test_something_in_the_way(sealfs: InProcess, pushed: Path, tmp_path: Path) -> None:
    (tmp_path / "copy" / "labels.csv").mkdir(parents=True)
    complaint = sealfs("pull", pushed, tmp_path / "copy", code=9).complaint
    assert "labels.csv" in complaint
    (tmp_path / "file").write_text("x")
    assert sealfs("pull", pushed, tmp_path / "file", code=9).complaint
    assert os.listdir(tmp_path / "copy" / "labels.csv") == []
