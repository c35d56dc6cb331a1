"""grant, revoke, rotate and trust."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from commands import InProcess


def public(user: InProcess) -> Path:
    return user.identity_path.with_name("identity.pub")


def test_grant_and_revoke(
    sealfs: InProcess, source: Path, pushed: Path, somebody: Callable[[str], InProcess]
) -> None:
    friend = somebody("friend")
    friend("ls", pushed, code=4)
    assert "can open the dataset now" in sealfs("grant", pushed, public(friend)).text
    assert friend("cat", pushed, "labels.csv").stdout == (source / "labels.csv").read_bytes()
    assert "they all can open it already" in sealfs("grant", pushed, public(friend)).text

    mine = {word for finding in sealfs("doctor", "--json").json for word in finding["words"].split()}
    (theirs,) = set(sealfs("stat", "--json", pushed).json["recipient"]) - mine
    outcome = sealfs("revoke", pushed, theirs)
    assert "epoch 2" in outcome.text
    assert "stays readable to them: --reencrypt" in outcome.complaint
    (source / "secret").write_text("not for friends")
    sealfs("push", source, pushed)
    assert friend("cat", pushed, "secret", code=4).stdout == b""
    assert friend("cat", f"{pushed}@2", "labels.csv").stdout == (source / "labels.csv").read_bytes()
    assert sealfs("cat", pushed, "secret").stdout == b"not for friends"


def test_revoke_and_reencrypt(
    sealfs: InProcess, source: Path, store: Path, somebody: Callable[[str], InProcess]
) -> None:
    friend = somebody("friend")
    sealfs("push", source, store, "-r", public(friend))
    mine = {word for finding in sealfs("doctor", "--json").json for word in finding["words"].split()}
    (theirs,) = set(sealfs("stat", "--json", store).json["recipient"]) - mine
    outcome = sealfs("revoke", "--reencrypt", store, theirs)
    assert f"sealfs gc --keep 1 {store}" in outcome.complaint
    sealfs("gc", "--keep", "1", store)
    assert friend("cat", store, "labels.csv", code=4).stdout == b""
    assert sealfs("cat", store, "labels.csv").stdout == (source / "labels.csv").read_bytes()


def test_revoke_of_nobody(sealfs: InProcess, pushed: Path) -> None:
    assert sealfs("revoke", pushed, "0123456789abcdef", code=None).code in {2, 3, 4}
    assert sealfs("stat", "--json", pushed).json["version"] == 1


def test_grant_by_a_stranger(sealfs: InProcess, pushed: Path, somebody: Callable[[str], InProcess]) -> None:
    stranger = somebody("stranger")
    assert stranger("grant", pushed, public(stranger), code=None).code in {4, 6}
    assert sealfs("stat", "--json", pushed).json["version"] == 1


def test_rotate(sealfs: InProcess, pushed: Path) -> None:
    assert sealfs("rotate", pushed).text == "version 2, epoch 2\n"
    assert sealfs("rotate", "--reencrypt", pushed).text == "version 3, epoch 3\n"
    assert "version 3 is good" in sealfs("verify", pushed).text


def test_trust(sealfs: InProcess, pushed: Path, somebody: Callable[[str], InProcess]) -> None:
    told = sealfs("trust", "--json", pushed).json
    assert set(told) == {"uri", "dataset", "signer", "version", "sha256"}
    assert told["version"] == 1
    assert "signer:   sealfs-signer-1:" in sealfs("trust", pushed).text
    assert sealfs("trust", "--forget", pushed).text == "forgotten\n"
    assert sealfs("trust", "--forget", pushed).text == "nothing was pinned\n"
    assert "nothing is pinned for" in sealfs("trust", pushed, code=6).complaint
    stranger = public(somebody("stranger"))
    complaint = sealfs("trust", "--forget", "--signer", stranger, pushed, code=2).complaint
    assert "contradict" in complaint


def test_pinned_signer_wins(sealfs: InProcess, pushed: Path, somebody: Callable[[str], InProcess]) -> None:
    reader, stranger = somebody("reader"), somebody("stranger")
    complaint = reader("stat", pushed, "--signer", public(stranger), code=6).complaint
    assert "sign" in complaint
    outcome = reader("stat", pushed, "--signer", public(sealfs))
    assert "first use" not in outcome.stderr
