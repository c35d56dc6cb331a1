from __future__ import annotations

from pathlib import Path

from commands import InProcess, flip_bit, objects


def test_good(sealfs: InProcess, pushed: Path, tmp_path: Path) -> None:
    assert "version 1 is good" in sealfs("verify", pushed).text
    assert "every byte authenticated" in sealfs("verify", pushed).text
    operator = InProcess(tmp_path / "operator")
    outcome = operator("verify", pushed)
    assert "held against the signed list" in outcome.text
    assert "no identity" in outcome.complaint
    assert "held against the signed list" in sealfs("verify", "--no-keys", pushed).text


def test_json(sealfs: InProcess, pushed: Path) -> None:
    told = sealfs("verify", "--json", pushed).json
    assert set(told) == {"version", "good", "authenticated", "objects", "size", "bad_objects", "bad_files"}
    assert told["good"] is told["authenticated"] is True
    assert sealfs("verify", "--json", "--no-keys", pushed).json["authenticated"] is False


def test_names_what_is_bad(sealfs: InProcess, pushed: Path) -> None:
    (pack,) = objects(pushed, "packs")
    flip_bit(pack, pack.stat().st_size // 2)
    outcome = sealfs("verify", pushed, code=5)
    assert f"BAD object packs/{pack.name}" in outcome.text
    assert "BAD file images/" in outcome.text
    assert "bad files: 4" in outcome.complaint
    told = sealfs("verify", "--json", "--no-keys", pushed, code=5).json
    assert list(told["bad_objects"]) == [f"packs/{pack.name}"]
    pack.unlink()
    assert sealfs("verify", "--json", pushed, code=5).json["good"] is False
