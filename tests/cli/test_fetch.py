from __future__ import annotations

from pathlib import Path

from commands import InProcess, flip_bit, objects


def test_copies_ciphertext_without_a_key(sealfs: InProcess, source: Path, pushed: Path, tmp_path: Path) -> None:
    operator = InProcess(tmp_path / "operator")
    assert "version 1: copied " in operator("fetch", pushed, tmp_path / "copy").text
    expected = (source / "labels.csv").read_bytes()
    assert sealfs("cat", tmp_path / "copy", "labels.csv").stdout == expected
    for path in objects(tmp_path / "copy", "packs"):
        assert path.read_bytes() == (pushed / "packs" / path.name).read_bytes()
        assert expected not in path.read_bytes()


def test_json(sealfs: InProcess, pushed: Path, tmp_path: Path) -> None:
    told = sealfs("fetch", "--json", pushed, tmp_path / "copy").json
    assert set(told) == {"version", "objects", "size"}
    assert told["version"] == 1
    assert told["objects"] > 2


def test_damage_is_not_copied(sealfs: InProcess, pushed: Path, tmp_path: Path) -> None:
    (pack,) = objects(pushed, "packs")
    flip_bit(pack, pack.stat().st_size // 2)
    assert pack.name in sealfs("fetch", pushed, tmp_path / "copy", code=5).complaint
    assert not objects(tmp_path / "copy", "packs")
