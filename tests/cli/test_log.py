from __future__ import annotations

from pathlib import Path

from commands import InProcess


def test_versions_newest_first(sealfs: InProcess, source: Path, pushed: Path) -> None:
    (source / "more").write_text("x")
    sealfs("push", source, pushed, "-m", "second \x1b[31m")
    lines = sealfs("log", pushed).lines
    assert lines[0].startswith("version 2  ")
    assert lines[1] == "    second \\x1b[31m"
    assert lines[2].startswith("version 1  ")
    assert lines[3] == "    first"
    assert len(sealfs("log", "-n", "1", pushed).lines) == 2


def test_json(sealfs: InProcess, source: Path, pushed: Path, tmp_path: Path) -> None:
    (version,) = sealfs("log", "--json", pushed).json
    assert {"version", "time", "epoch", "packs", "ciphertext", "action", "message", "files", "size"} <= set(version)
    assert version["message"] == "first"
    (sealed,) = InProcess(tmp_path / "operator")("log", "--json", pushed).json
    assert "message" not in sealed
    assert sealed["version"] == 1
    assert "message and counts are sealed" in InProcess(tmp_path / "operator")("log", pushed).text
