from __future__ import annotations

from pathlib import Path

from commands import InProcess


def test_changes(sealfs: InProcess, source: Path, pushed: Path) -> None:
    (source / "labels.csv").write_text("other")
    (source / "new").write_text("x")
    (source / "images" / "0.bin").unlink()
    sealfs("push", source, pushed)
    assert {"M labels.csv", "A new", "D images/0.bin"} <= set(sealfs("diff", pushed).lines)
    told = sealfs("diff", "--json", pushed).json
    assert {"change": "A", "path": "new"} in told
    backwards = set(sealfs("diff", f"{pushed}@1", "2").lines)
    assert {"M labels.csv", "D new", "A images/0.bin"} <= backwards


def test_nothing_before_the_first(sealfs: InProcess, pushed: Path) -> None:
    assert "there is no version before the first" in sealfs("diff", pushed, code=2).complaint
    assert sealfs("diff", pushed, "9", code=3).complaint
    assert "'x' is not a valid integer" in sealfs("diff", pushed, "x", code=2).complaint
