from __future__ import annotations

from pathlib import Path

from commands import InProcess, objects


def test_keep(sealfs: InProcess, source: Path, pushed: Path) -> None:
    (source / "labels.csv").write_text("other")
    sealfs("push", source, pushed)
    assert sealfs("gc", pushed).text == "deleted 0 objects, 0 bytes\n"
    before = objects(pushed, "snapshots")
    outcome = sealfs("gc", "--keep", "1", "--dry-run", pushed)
    assert "would delete" in outcome.text
    assert "versions 1" in outcome.text
    assert objects(pushed, "snapshots") == before
    told = sealfs("gc", "--keep", "1", "--json", pushed).json
    assert told["deleted"] is True
    assert told["versions"] == [1]
    assert set(told) == {"deleted", "objects", "size", "versions", "pushes_in_progress"}
    assert sealfs("cat", pushed, "labels.csv").stdout == b"other"
    assert sealfs("cat", f"{pushed}@1", "labels.csv", code=3).complaint
    assert "version 2 is good" in sealfs("verify", pushed).text


def test_bad_numbers(sealfs: InProcess, pushed: Path) -> None:
    assert "--keep" in sealfs("gc", "--keep", "0", pushed, code=2).complaint
    assert "--abandoned-after" in sealfs("gc", "--abandoned-after", "-1", pushed, code=2).complaint
