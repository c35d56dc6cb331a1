"""AMD's revocation lists: who is on one is refused, and a list that proves nothing lets nobody through."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from attestation.amd import MEASUREMENT, TCB, SnpMachine, SnpProvider
from attestation.hardware import NOW
from sealfs.attestation.claims import Claims
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.attestation.revocation import MAX_SIZE, RevocationFolder, RevocationList
from sealfs.attestation.verdict import Verdict, judge
from sealfs.attestation.verify import Verifier
from sealfs.errors import DocumentError, EvidenceError

BOUND = bytes(range(64))
DAY = timedelta(days=1)
MACHINE, OTHER = SnpMachine(), SnpMachine()
EVIDENCE = SnpProvider(MACHINE).collect(BOUND)
POLICY = Policy(level=Level.L4, measurements={"snp": frozenset({MEASUREMENT})}, minimum_tcb=TCB)


def claims(folder: Path, *lists: bytes, at: datetime = NOW, roots: list[x509.Certificate] | None = None) -> Claims:
    folder.mkdir(exist_ok=True)
    for number, data in enumerate(lists):
        (folder / f"{number}.crl").write_bytes(data)
    verifier = Verifier(amd_roots=roots or [MACHINE.root], amd_revocations=RevocationFolder(folder))
    return verifier.verify(EVIDENCE, BOUND, at)


def verdict(found: Claims, at: datetime = NOW, **policy: Any) -> Verdict:
    return judge([Policy.from_json({**POLICY.to_json(), **policy})], found, None, at)


def test_nobody_on_the_list(tmp_path: Path) -> None:
    found = claims(tmp_path, MACHINE.revocations(), MACHINE.revocations(OTHER.authority, expires=20 * DAY))
    assert found.collateral_expires == NOW + 20 * DAY
    assert verdict(found).allowed
    assert not verdict(found, NOW + 21 * DAY).allowed  # in a session that began before


def test_no_list_is_refused_unless_the_policy_says_otherwise(tmp_path: Path) -> None:
    for found in (
        claims(tmp_path / "none"),
        claims(tmp_path, MACHINE.revocations(issuer="SEV-Paper")),  # about the chip only
        Verifier(amd_roots=[MACHINE.root]).verify(EVIDENCE, BOUND, NOW),
    ):
        assert "revocation list: demanded in date" in verdict(found).reason
        assert "offered nothing" in verdict(found).reason
        assert verdict(found, revocation_list=False).allowed


@pytest.mark.parametrize(("revoked", "issuer"), [("authority", "ARK-Paper"), ("endorser", "SEV-Paper")])
@pytest.mark.parametrize("encoding", [Encoding.DER, Encoding.PEM])
def test_revoked(revoked: str, issuer: str, encoding: Encoding, tmp_path: Path) -> None:
    data = MACHINE.revocations(OTHER.authority, getattr(MACHINE, revoked), issuer=issuer)
    data = x509.load_der_x509_crl(data).public_bytes(encoding)
    words = "AMD has revoked the certificate 'CN=SEV-"
    with pytest.raises(EvidenceError, match=words):
        claims(tmp_path, MACHINE.revocations(issuer="SEV-Paper"), data)
    with pytest.raises(EvidenceError, match=words):  # nor does a newer list beside it help
        claims(tmp_path, data, MACHINE.revocations(issuer=issuer, issued=-DAY))


def test_a_list_of_others_says_nothing(tmp_path: Path) -> None:
    """An issuer's who has certified nothing here."""
    data = OTHER.revocations(MACHINE.authority, issuer="ARK-Other", signer="ARK-Paper")
    assert verdict(claims(tmp_path, data, MACHINE.revocations())).allowed
    assert not verdict(claims(tmp_path / "alone", data)).allowed


@pytest.mark.parametrize(
    "data",
    [
        OTHER.revocations(),  # by another's root of the same name
        MACHINE.revocations(signer="SEV-Paper"),
        MACHINE.revocations(issuer="SEV-Paper", signer="ARK-Paper"),
    ],
)
def test_forged(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"list 0\.crl is not signed by whom it names"):
        claims(tmp_path, data)


def test_a_bit_flipped_anywhere(tmp_path: Path) -> None:
    """Which is neither taken for good nor for a list of somebody else that does not matter."""
    data = MACHINE.revocations(MACHINE.authority)
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        try:
            found = claims(tmp_path, bytes(flipped))
        except EvidenceError:
            continue
        assert not verdict(found).allowed


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (MACHINE.revocations(), NOW + 30 * DAY),
        (MACHINE.revocations(), NOW - 31 * DAY),  # a clock that was moved back
        (MACHINE.revocations(expires=-DAY), NOW),
        (MACHINE.revocations(expires=None), NOW),
    ],
)
def test_out_of_date(data: bytes, at: datetime, tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"list 0\.crl counts from"):
        claims(tmp_path, data, at=at)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0.crl is no revocation list"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "0.crl is no revocation list"),
        (MACHINE.root.public_bytes(Encoding.DER), "0.crl is no revocation list"),
        (bytes(MAX_SIZE + 1), "more than"),
        (MACHINE.revocations(extension=x509.DeltaCRLIndicator(1)), "not understood"),
    ],
)
def test_files_that_are_no_lists(data: bytes, words: str, tmp_path: Path) -> None:
    """They might have been: whatever they said, nobody passes until they are gone."""
    with pytest.raises(EvidenceError, match=words):
        claims(tmp_path, data, MACHINE.revocations())


def test_files_come_and_go(tmp_path: Path) -> None:
    verifier = Verifier(amd_roots=[MACHINE.root], amd_revocations=RevocationFolder(tmp_path))
    assert verifier.verify(EVIDENCE, BOUND, NOW).collateral_expires is None
    (tmp_path / "ask.crl").write_bytes(MACHINE.revocations())
    assert verifier.verify(EVIDENCE, BOUND, NOW).collateral_expires is not None
    (tmp_path / "ask.crl").write_bytes(MACHINE.revocations(MACHINE.authority))
    with pytest.raises(EvidenceError, match="revoked"):
        verifier.verify(EVIDENCE, BOUND, NOW)


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "ask.crl").write_bytes(MACHINE.revocations())
    (tmp_path / "intel.json").write_text("{}")
    assert len(RevocationFolder(tmp_path / "ask.crl").every()) == 1
    assert not RevocationFolder(tmp_path / "intel.json").every()


@given(st.binary(max_size=300), st.integers(0, 400))
def test_bytes_that_are_no_list(data: bytes, place: int) -> None:
    mangled = bytearray(MACHINE.revocations(MACHINE.authority))
    mangled[place : place + len(data)] = data
    for attempt in (data, bytes(mangled)):
        try:
            RevocationList.parse(attempt, "x.crl")
        except DocumentError:
            continue
