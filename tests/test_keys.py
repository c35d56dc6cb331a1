"""Identities on disk, public strings, wrapping, and what must never show."""

from __future__ import annotations

import base64
import os
import pickle
import re
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealfs import keys
from sealfs.dataset.keyring import DatasetKeys, Keyring
from sealfs.errors import KeyAccessError, LocalIOError, SealfsError, UsageError
from sealfs.keys import (
    RECIPIENT_PREFIX,
    SIGNER_PREFIX,
    Identity,
    Recipient,
    Signer,
    default_identity_path,
    is_locked,
    load_identity,
)


@pytest.fixture
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_SCRYPT_LOG_N", 10)


def same(a: Identity, b: Identity) -> bool:
    return a.recipient == b.recipient and a.signer == b.signer


def traces_of_secret(text: str, secret: bytes) -> list[str]:
    """Which encodings of any 12 bytes in a row of `secret` are in `text`."""
    squeezed = re.sub(r"\s", "", text)
    found = []
    for start in range(len(secret) - 12):
        piece = secret[start : start + 12]
        shown = {repr(piece)[2:-1], piece.hex(), base64.urlsafe_b64encode(piece).decode()}
        found += [s for s in shown if s in squeezed]
    return found


# --- on disk ---


def test_identity_round_trip(tmp_path: Path, identity: Identity) -> None:
    path = tmp_path / "new" / "folder" / "identity"
    identity.save(path)
    assert same(load_identity(path), identity)
    assert not is_locked(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    public = path.with_name("identity.pub").read_text().splitlines()
    assert Recipient.parse(public[0]) == identity.recipient
    assert Signer.parse(public[1]) == identity.signer


def test_identity_is_private_whatever_the_umask(tmp_path: Path, identity: Identity) -> None:
    before = os.umask(0)
    try:
        identity.save(tmp_path / "identity")
    finally:
        os.umask(before)
    assert (tmp_path / "identity").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("passphrase", ["horse", "", "ünï 🐎", "with\nnewline", "x" * 10_000])
@pytest.mark.usefixtures("quick_scrypt")
def test_locked_identity_round_trip(tmp_path: Path, identity: Identity, passphrase: str) -> None:
    path = tmp_path / "identity"
    identity.save(path, passphrase)
    assert is_locked(path)
    assert same(load_identity(path, passphrase), identity)
    for wrong in (passphrase + " ", "wrong", None):
        with pytest.raises(KeyAccessError, match="locked" if wrong is None else "wrong passphrase"):
            load_identity(path, wrong)
    assert not traces_of_secret(path.read_text(), identity._secret)


def test_default_cost_of_a_passphrase_is_what_owasp_advises(tmp_path: Path, identity: Identity) -> None:
    identity.save(tmp_path / "identity", "horse")
    line = (tmp_path / "identity").read_text().splitlines()[1]
    assert base64.urlsafe_b64decode(line.partition(":")[2] + "==")[0] == 17


@pytest.mark.usefixtures("quick_scrypt")
def test_two_locked_files_of_one_identity_share_nothing(tmp_path: Path, identity: Identity) -> None:
    for name in ("a", "b"):
        identity.save(tmp_path / name, "horse")
    lines = [(tmp_path / name).read_text().splitlines()[1].partition(":")[2] for name in ("a", "b")]
    assert lines[0][8:40] != lines[1][8:40]
    assert lines[0][60:] != lines[1][60:]


def test_identity_is_never_overwritten(tmp_path: Path, identity: Identity) -> None:
    path = tmp_path / "identity"
    identity.save(path)
    before = path.read_bytes(), path.with_name("identity.pub").read_bytes()
    with pytest.raises(LocalIOError, match="exists already"):
        Identity.generate().save(path)
    assert (path.read_bytes(), path.with_name("identity.pub").read_bytes()) == before


def test_a_dangling_link_is_not_written_through(tmp_path: Path, identity: Identity) -> None:
    (tmp_path / "identity").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LocalIOError):
        identity.save(tmp_path / "identity")
    assert not (tmp_path / "elsewhere").exists()


def test_identity_that_cannot_be_written_is_a_local_error(tmp_path: Path, identity: Identity) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocalIOError, match="cannot make"):
        identity.save(tmp_path / "file" / "identity")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601, 0o610])
def test_identity_that_others_can_reach_is_refused(tmp_path: Path, identity: Identity, mode: int) -> None:
    path = tmp_path / "identity"
    identity.save(path)
    path.chmod(mode)
    for call in (load_identity, is_locked):
        with pytest.raises(KeyAccessError, match="other users") as caught:
            call(path)
        assert "chmod 600" in caught.value.hint
    path.chmod(0o400)
    assert same(load_identity(path), identity)


def test_missing_identity_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(KeyAccessError, match="no identity") as caught:
        load_identity(tmp_path / "identity")
    assert "keygen" in caught.value.hint


@pytest.mark.parametrize("content", [b"", b"\n\n", b"hello", b"\xff\xfe\x00" * 50, b"# sealfs-identity-1:AAAA"])
def test_another_file_is_not_an_identity(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "identity"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyAccessError, match="not a sealfs identity"):
        load_identity(path)


def test_a_folder_is_not_an_identity(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(KeyAccessError, match="cannot read"):
        load_identity(tmp_path)


@pytest.mark.parametrize("passphrase", [None, "horse"])
@pytest.mark.usefixtures("quick_scrypt")
def test_every_mistyped_character_of_an_identity_is_noticed(
    tmp_path: Path, identity: Identity, passphrase: str | None
) -> None:
    path = tmp_path / "identity"
    identity.save(path, passphrase)
    comment, line = path.read_text().splitlines()
    start = line.index(":") + 1
    for place in range(start, len(line), 3):
        wrong = "A" if line[place] != "A" else "B"
        path.write_text(f"{comment}\n{line[:place]}{wrong}{line[place + 1 :]}\n")
        with pytest.raises(KeyAccessError, match="damaged"):
            load_identity(path, passphrase)
    for cut in range(start, len(line), 7):
        path.write_text(line[:cut])
        with pytest.raises(KeyAccessError, match="damaged"):
            load_identity(path, passphrase)


@pytest.mark.parametrize("log_n", [0, 9, 21, 63, 255])
def test_a_forged_passphrase_cost_costs_nothing(tmp_path: Path, log_n: int) -> None:
    path = tmp_path / "identity"
    path.write_text(keys._encode("sealfs-identity-1-scrypt:", bytes([log_n]) + bytes(28 + 128 + 16)))
    path.chmod(0o600)
    with pytest.raises(KeyAccessError, match="damaged"):
        load_identity(path, "horse")


def test_default_path_follows_xdg(own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_identity_path() == own_folders / "config" / "sealfs" / "identity"
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    assert default_identity_path() == own_folders / ".config" / "sealfs" / "identity"


# --- public strings ---


def test_public_strings_round_trip(identity: Identity) -> None:
    assert Recipient.parse(f"  {identity.recipient}\n") == identity.recipient
    assert Signer.parse(f"{identity.signer}\n") == identity.signer
    assert re.fullmatch("[0-9a-f]{16}", identity.recipient.fingerprint)


@pytest.mark.parametrize(("kind", "step"), [(Recipient, 29), (Signer, 1)])
def test_every_mistyped_character_of_a_public_string_is_noticed(
    identity: Identity, kind: type[Recipient | Signer], step: int
) -> None:
    text = str(identity.recipient if kind is Recipient else identity.signer)
    for place in range(0, len(text), step):
        for wrong in ("A", "b", " ", "é", ""):
            if text[place] == wrong or (place == 0 and wrong in {"", " "}):
                continue
            changed = text[:place] + wrong + text[place + 1 :]
            with pytest.raises(UsageError):
                kind.parse(changed)


@given(st.text(max_size=60))
def test_arbitrary_text_is_no_public_string(text: str) -> None:
    for kind, prefix in ((Recipient, RECIPIENT_PREFIX), (Signer, SIGNER_PREFIX)):
        for candidate in (text, prefix + text):
            with pytest.raises(UsageError):
                kind.parse(candidate)


def test_a_recipient_is_not_a_signer_nor_an_identity(identity: Identity) -> None:
    with pytest.raises(UsageError, match=SIGNER_PREFIX):
        Signer.parse(str(identity.recipient))
    with pytest.raises(UsageError, match=RECIPIENT_PREFIX):
        Recipient.parse(str(identity.signer))


def test_an_impossible_lattice_key_is_refused_at_once(identity: Identity) -> None:
    forged = Recipient(b"\xff" * 1184 + identity.recipient.raw[1184:])
    with pytest.raises(UsageError, match="valid key"):
        Recipient.parse(str(forged))


# --- wrapping ---


def test_wrapped_secret_opens_for_its_recipient_and_context_only(identity: Identity) -> None:
    wrapped = identity.recipient.wrap(b"secret", b"context")
    assert identity.unwrap(wrapped, b"context") == b"secret"
    assert identity.recipient.wrap(b"secret", b"context") != wrapped
    for who, context in ((identity, b"other"), (identity, b""), (Identity.generate(), b"context")):
        with pytest.raises(KeyAccessError):
            who.unwrap(wrapped, context)


def test_changed_wrapping_is_refused(identity: Identity) -> None:
    wrapped = identity.recipient.wrap(b"secret", b"context")
    for place in [*range(0, len(wrapped), 37), len(wrapped) - 1]:
        forged = wrapped[:place] + bytes([wrapped[place] ^ 1]) + wrapped[place + 1 :]
        with pytest.raises(KeyAccessError):
            identity.unwrap(forged, b"context")
    for cut in (0, 1, 16, 1119, 1120, 1121, len(wrapped) - 1):
        with pytest.raises(KeyAccessError):
            identity.unwrap(wrapped[:cut], b"context")


def test_another_users_keyring_entry_does_not_open(identity: Identity) -> None:
    dataset, other = os.urandom(16), Identity.generate()
    keyring = Keyring.seal(DatasetKeys.generate(dataset), [identity.recipient])
    swapped = Keyring(dataset, {other.recipient: keyring._wrapped[identity.recipient]})
    with pytest.raises(KeyAccessError):
        swapped.open(other)
    moved = Keyring(bytes(16), {identity.recipient: keyring._wrapped[identity.recipient]})
    with pytest.raises(KeyAccessError):
        moved.open(identity)


# --- what must never show ---


def test_nothing_secret_shows_in_a_repr(identity: Identity) -> None:
    dataset = DatasetKeys.generate(os.urandom(16))
    for shown in (repr(identity), str(identity), f"{identity!r:>100}"):
        assert not traces_of_secret(shown, identity._secret)
    assert not traces_of_secret(repr(dataset) + str(dataset), dataset._epochs[1])


def test_an_identity_cannot_be_pickled_by_accident(identity: Identity) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(identity)


def _wrong_size(secret: bytes) -> None:
    Identity(secret + b"x")


def _unwrap_garbage(secret: bytes) -> None:
    Identity(secret).unwrap(b"garbage" * 200, b"")


def _unpack_garbage(secret: bytes) -> None:
    DatasetKeys.unpack(bytes(16), secret[:37])


def _unknown_epoch(secret: bytes) -> None:
    DatasetKeys(bytes(16), {1: secret[:32]}).pack_key(2)


def _parse_secret_as_recipient(secret: bytes) -> None:
    Recipient.parse(keys._encode("sealfs-identity-1:", secret))


def _parse_secret_as_signer(secret: bytes) -> None:
    Signer.parse(keys._encode("sealfs-identity-1:", secret))


@pytest.mark.parametrize(
    "fail",
    [
        _wrong_size,
        _unwrap_garbage,
        _unpack_garbage,
        _unknown_epoch,
        _parse_secret_as_recipient,
        _parse_secret_as_signer,
    ],
)
def test_no_error_tells_a_secret(identity: Identity, fail: Callable[[bytes], None]) -> None:
    with pytest.raises(SealfsError) as caught:
        fail(identity._secret)
    told = "".join(traceback.format_exception(caught.value)) + caught.value.message + caught.value.hint
    assert not traces_of_secret(told, identity._secret)
    assert keys._encode("", identity._secret)[:40] not in told


def test_an_uncaught_error_tells_no_secret(tmp_path: Path, identity: Identity) -> None:
    path = tmp_path / "identity"
    identity.save(path)
    program = (
        "import sys, pathlib\n"
        "from sealfs.keys import load_identity\n"
        "me = load_identity(pathlib.Path(sys.argv[1]))\n"
        "print(me, repr(me), vars)\n"
        "me.unwrap(b'x' * 2000, b'')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert "KeyAccessError" in done.stderr
    assert not traces_of_secret(done.stdout + done.stderr, identity._secret)
