from __future__ import annotations

from pathlib import Path

from commands import InProcess


def test_dataset_needs_no_key(sealfs: InProcess, pushed: Path, tmp_path: Path) -> None:
    operator = InProcess(tmp_path / "operator")
    text = operator("stat", pushed).text
    assert "version:        1" in text
    told = operator("stat", "--json", pushed).json
    assert told["version"] == told["newest"] == 1
    assert told["uri"] == pushed.as_uri()
    assert len(told["recipient"]) == 1
    assert told["signer"].startswith("sealfs-signer-1:")
    assert set(told) == {
        *("uri", "dataset", "version", "newest", "time", "signer", "epoch", "segment length", "packs"),
        *("snapshot", "ciphertext", "recipient"),
    }
    digest = told["snapshot"].removeprefix("sha256:")
    assert operator("stat", "--json", f"{pushed}@sha256:{digest}").json == told
    operator("stat", f"{pushed}@sha256:{'00' * 32}", code=3)


def test_path(sealfs: InProcess, pushed: Path) -> None:
    told = sealfs("stat", "--json", pushed, "labels.csv").json
    assert told["path"] == "labels.csv"
    assert told["type"] == "file"
    assert len(told["sha256"]) == 64
    assert "target:         images/2.bin" in sealfs("stat", pushed, "latest").text


def test_path_needs_a_key(pushed: Path, tmp_path: Path) -> None:
    assert "no identity at" in InProcess(tmp_path / "operator")("stat", pushed, "labels.csv", code=4).complaint
