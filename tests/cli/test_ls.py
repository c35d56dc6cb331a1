from __future__ import annotations

import os
from pathlib import Path

from commands import InProcess


def test_in_the_providers_order(sealfs: InProcess, source: Path, pushed: Path) -> None:
    assert sealfs("ls", pushed).lines == os.listdir(source)
    assert sealfs("ls", pushed, "images").lines == os.listdir(source / "images")
    assert sealfs("ls", pushed, "images/1.bin").lines == ["images/1.bin"]


def test_recursive_and_long(sealfs: InProcess, source: Path, pushed: Path) -> None:
    lines = sealfs("ls", "-R", "-l", pushed).lines
    assert len(lines) == 6
    (csv,) = (line for line in lines if line.endswith(" labels.csv"))
    size = (source / "labels.csv").stat().st_size
    assert csv.split() == ["-rw-r--r--", str(size), "2023-11-14", "22:13", "labels.csv"]
    assert any(line.endswith(" latest -> images/2.bin") and line.startswith("l") for line in lines)


def test_json(sealfs: InProcess, pushed: Path) -> None:
    entries = {entry["path"]: entry for entry in sealfs("ls", "-R", "--json", pushed).json}
    assert set(entries["labels.csv"]) == {"path", "type", "mode", "size", "mtime_ns", "sha256"}
    assert entries["labels.csv"]["mtime_ns"] == 1_700_000_000_123_456_789
    assert entries["latest"]["target"] == "images/2.bin"
    assert entries["images"]["type"] == "directory"


def test_control_characters_do_not_reach_the_terminal(sealfs: InProcess, source: Path, store: Path) -> None:
    for name in (b"new\nline", b"\x1b[31mred", b"bad-\xff"):
        Path(os.fsdecode(os.path.join(os.fsencode(source), name))).touch()
    sealfs("push", source, store)
    text = sealfs("ls", store).text
    assert {"new\\nline", "\\x1b[31mred", "bad-\\xff"} <= set(text.splitlines())


def test_older_version(sealfs: InProcess, source: Path, pushed: Path) -> None:
    (source / "labels.csv").unlink()
    sealfs("push", source, pushed)
    assert "labels.csv" in sealfs("ls", f"{pushed}@1").lines
    assert "labels.csv" not in sealfs("ls", pushed).lines
    assert "version" in sealfs("ls", f"{pushed}@7", code=3).complaint


def test_what_is_not_there(sealfs: InProcess, pushed: Path) -> None:
    assert "no 'images/9.bin' in the dataset" in sealfs("ls", pushed, "images/9.bin", code=3).complaint
