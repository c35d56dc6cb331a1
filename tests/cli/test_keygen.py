from __future__ import annotations

import stat
from pathlib import Path

import pytest
from commands import InProcess

from sealfs.keys import RECIPIENT_PREFIX, SIGNER_PREFIX


@pytest.fixture
def newcomer(tmp_path: Path) -> InProcess:
    """A user without an identity."""
    return InProcess(tmp_path / "newcomer")


def test_writes_a_private_file_and_prints_the_public_string(newcomer: InProcess) -> None:
    outcome = newcomer("keygen")
    (recipient,) = outcome.lines
    assert recipient.startswith(RECIPIENT_PREFIX)
    path = newcomer.identity_path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    public = path.with_name("identity.pub").read_text().splitlines()
    assert public[0] == recipient
    assert public[1].startswith(SIGNER_PREFIX)
    assert str(path) in outcome.complaint  # it is told where
    assert recipient not in path.read_text()


def test_json(newcomer: InProcess, tmp_path: Path) -> None:
    outcome = newcomer("keygen", "--json", "--output", tmp_path / "elsewhere")
    assert outcome.stderr == ""
    told = outcome.json
    assert set(told) == {"path", "recipient", "signer", "fingerprint"}
    assert told["path"] == str(tmp_path / "elsewhere")
    assert told["recipient"].startswith(RECIPIENT_PREFIX)
    assert not newcomer.identity_path.exists()


def test_never_overwrites(newcomer: InProcess) -> None:
    newcomer("keygen")
    before = newcomer.identity_path.read_bytes()
    assert "exists already; choose another file with --output" in newcomer("keygen", code=9).complaint
    assert newcomer.identity_path.read_bytes() == before


def test_locked_with_a_passphrase(newcomer: InProcess, source: Path, store: Path, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text("correct horse battery staple\n")
    unlocked = {"SEALFS_PASSPHRASE_FILE": str(secret)}
    newcomer("keygen", "--passphrase", env=unlocked)
    newcomer("push", source, store, env=unlocked)
    complaint = newcomer("ls", store, code=4).complaint  # no terminal to ask at
    assert "is locked" in complaint
    assert "SEALFS_PASSPHRASE_FILE" in complaint
    secret.write_text("wrong")
    assert "wrong passphrase for" in newcomer("ls", store, env=unlocked, code=4).complaint
    secret.unlink()
    assert "cannot read the passphrase" in newcomer("ls", store, env=unlocked, code=4).complaint


def test_short_passphrases_are_refused(newcomer: InProcess, tmp_path: Path) -> None:
    (tmp_path / "short").write_text("1234567")
    complaint = newcomer("keygen", "-p", env={"SEALFS_PASSPHRASE_FILE": str(tmp_path / "short")}, code=2).complaint
    assert "at least 8 characters" in complaint
    assert not newcomer.identity_path.exists()


def test_unwritable_place(newcomer: InProcess) -> None:
    assert "cannot write /proc/identity" in newcomer("keygen", "-o", "/proc/identity", code=9).complaint
