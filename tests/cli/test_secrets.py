"""No secret shows in what is printed, logged or passed on, however much is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from commands import InProcess, Sealfs, mounted
from mount.bucket import PLACE, running_bucket

PHRASE = "hunter2-hunter2"
SECRET_KEY = "a-secret-that-nobody-may-see"


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")
def test_all_that_is_said_and_left_behind(process: Sealfs, source: Path, tmp_path: Path) -> None:
    phrase = tmp_path / "phrase"
    phrase.write_text(PHRASE)
    locked = tmp_path / "locked"
    with running_bucket() as bucket:
        process.env |= {
            **bucket.environment(),
            "SEALFS_PASSPHRASE_FILE": str(phrase),
            "SEALFS_IDENTITY": str(locked),
            "SEALFS_DEBUG": "1",
        }
        said = [
            process("-v", "keygen", "--json", "-p", "-o", locked),
            process("-v", "push", source, PLACE),
            process("-v", "ls", PLACE),
            process("-v", "doctor", PLACE, code=None),
            process("-v", "ls", "s3://other/x", code=None),
            process("-v", "rotate", "--reencrypt", PLACE),
            process("-v", "verify", PLACE),
        ]
        with mounted(process, PLACE, tmp_path / "mnt") as here:
            (here.path / "labels.csv").read_bytes()
            command = Path(f"/proc/{here.pid}/cmdline").read_bytes()
            environment = Path(f"/proc/{here.pid}/environ").read_bytes()
            words = here.words()
    identity = locked.read_text().splitlines()[-1].partition(":")[2]
    everything = "".join(outcome.text + outcome.stderr for outcome in said) + words
    for secret in (PHRASE, SECRET_KEY, identity):
        assert secret not in everything
        assert secret.encode() not in command
    assert PHRASE.encode() not in environment
    for path in (path for path in process.home.rglob("*") if path.is_file() and "config" not in path.parts):
        content = path.read_bytes()
        assert PHRASE.encode() not in content
        assert SECRET_KEY.encode() not in content


def test_an_identity_stays_in_its_file(sealfs: InProcess, source: Path, store: Path, tmp_path: Path) -> None:
    secret = sealfs.identity_path.read_text().splitlines()[-1].partition(":")[2]
    assert len(secret) > 40
    outcomes = [
        sealfs("-v", "push", source, store),
        sealfs("-v", "stat", store),
        sealfs("-v", "log", "--json", store),
        sealfs("-v", "doctor", "--json", store, code=None),
        sealfs("-v", "trust", store),
    ]
    assert all(secret not in outcome.text + outcome.stderr for outcome in outcomes)
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != sealfs.identity_path]
    assert len(files) > 5
    assert all(secret.encode() not in path.read_bytes() for path in files)
