from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import InProcess


def test_then_nothing_to_do_then_a_change(sealfs: InProcess, source: Path, store: Path) -> None:
    first = sealfs("push", source, store, "-m", "hello")
    assert first.stderr == ""
    assert f"pushed version 1 to {store}: 4 files" in first.text
    assert "0 changed, 0 removed)" in first.text
    assert sealfs("push", source, store).text == "nothing has changed since the last push\n"
    (source / "labels.csv").write_text("other\n")
    (source / "images" / "0.bin").unlink()
    assert "pushed version 2" in sealfs("push", source, store).text


def test_json(sealfs: InProcess, source: Path, store: Path) -> None:
    told = sealfs("push", "--json", source, store).json
    assert set(told) == {
        *("version", "sent", "resumed", "files", "size", "added", "changed", "removed", "pending_size"),
    }
    assert told["version"] == 1
    assert told["files"] == 4
    assert told["size"] == 3000 + (source / "labels.csv").stat().st_size
    assert sealfs("push", "--json", source, store).json["version"] is None


def test_dry_run_changes_nothing(sealfs: InProcess, source: Path, store: Path) -> None:
    outcome = sealfs("push", "--dry-run", source, store)
    assert "A labels.csv" in outcome.lines
    assert "would push 4 files" in outcome.complaint
    assert not list(store.glob("packs/*"))
    assert sealfs("ls", store, code=3).complaint
    sealfs("push", source, store)
    (source / "labels.csv").write_text("changed")
    told = sealfs("push", "-n", "--json", source, store).json
    assert told["changes"] == [{"change": "M", "path": "labels.csv"}]
    assert sealfs("log", "--json", store).json[0]["version"] == 1


def test_exclude(sealfs: InProcess, source: Path, store: Path) -> None:
    sealfs("push", source, store, "-x", "*.csv", "--exclude", "images/1.bin")
    assert sorted(sealfs("ls", "-R", store).lines) == ["images", "images/0.bin", "images/2.bin", "latest"]


def test_recipients(
    sealfs: InProcess, source: Path, store: Path, somebody: Callable[[str], InProcess], tmp_path: Path
) -> None:
    friend, stranger, third = somebody("friend"), somebody("stranger"), somebody("third")
    recipient = friend.identity_path.with_name("identity.pub").read_text().splitlines()[0]
    public = third.identity_path.with_name("identity.pub")
    sealfs("push", source, store, "-r", recipient, "--recipient", public)
    assert friend("ls", store).lines == third("ls", store).lines == sealfs("ls", store).lines
    assert "is not a recipient" in stranger("ls", store, code=4).complaint
    assert "recipient" in sealfs("push", source, store, "-r", "sealfs-recipient-1:AAAA", code=2).complaint
    assert "neither a string" in sealfs("push", source, store, "-r", tmp_path / "none.pub", code=2).complaint


def test_checksum_finds_what_size_and_time_hide(sealfs: InProcess, source: Path, store: Path) -> None:
    sealfs("push", source, store)
    path = source / "images" / "1.bin"
    status = path.stat()
    path.write_bytes(b"X" * 1000)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert "version 2" in sealfs("push", "--checksum", source, store).text
    assert sealfs("cat", store, "images/1.bin").stdout == b"X" * 1000


def test_sockets_pipes_and_devices_are_refused_by_name(sealfs: InProcess, source: Path, store: Path) -> None:
    os.mkfifo(source / "pipe")
    complaint = sealfs("push", source, store, code=9).complaint
    assert "'pipe' is a named pipe" in complaint
    assert "--exclude 'pipe'" in complaint
    (source / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(source)  # the full path may be too long for an address
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        assert "'socket' is a socket" in sealfs("push", source, store, code=9).complaint
    assert sealfs("ls", store, code=3).complaint  # nothing half-visible
    sealfs("push", source, store, "--exclude", "socket")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--jobs", "0"], "--jobs"),
        (["--segment-length", "many"], "is not a size"),
        (["--segment-length", "3"], "segment"),
        (["--signer", "nonsense"], "neither a string that starts with 'sealfs-signer-1:'"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_bad_options(sealfs: InProcess, source: Path, store: Path, arguments: list[str], words: str) -> None:
    assert words in sealfs("push", *arguments, source, store, code=2).complaint
    assert not store.exists()


def test_to_an_older_version(sealfs: InProcess, source: Path, pushed: Path) -> None:
    assert "only the newest version can be changed" in sealfs("push", source, f"{pushed}@1", code=2).complaint


def test_missing_source(sealfs: InProcess, store: Path, tmp_path: Path) -> None:
    assert sealfs("push", tmp_path / "nothing", store, code=9).complaint
    (tmp_path / "file").write_text("x")
    assert sealfs("push", tmp_path / "file", store, code=9).complaint


def test_a_store_and_the_folder_in_one_another(sealfs: InProcess, source: Path) -> None:
    before = sorted(os.listdir(source))
    for store in (source, source / "images" / "store", source.parent, source / "images" / ".." / "x"):
        assert "lies in the" in sealfs("push", source, store, code=2).complaint
        assert "lies in the" in sealfs("push", "--dry-run", source, store, code=2).complaint
    (source.parent / "link").symlink_to(source / "images")
    assert "--exclude 'images/y'" in sealfs("push", source, source.parent / "link" / "y", code=2).complaint
    assert sorted(os.listdir(source)) == before
    for exclude in ("sto*", "images/store", "images"):
        sealfs("push", source, source / "images" / "store", "--exclude", exclude)
    assert "images/store" not in sealfs("ls", "-R", source / "images" / "store").lines
    sealfs("push", source, source.parent / (source.name + "-store"))
