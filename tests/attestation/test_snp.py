"""SEV-SNP: a real report up to AMD's root, and each threat with a machine made of paper."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from attestation.amd import CHIP, MEASUREMENT, TCB, SnpMachine, SnpProvider
from attestation.hardware import NOW
from sealfs.attestation.claims import Claims
from sealfs.attestation.evidence import Evidence
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.attestation.snp import (
    REPORT_SIZE,
    Report,
    amd_certificates,
    encode,
    load_certificates,
    parse_certificates,
)
from sealfs.attestation.verdict import judge
from sealfs.attestation.verify import Verifier
from sealfs.errors import DocumentError, EvidenceError

REAL = Path(__file__).parents[1] / "fixtures" / "snp"
BOUND = bytes(range(64))
MACHINE = SnpMachine()
VERIFIER = Verifier(amd_roots=[MACHINE.root])


def verify(
    report: bytes, table: bytes = MACHINE.table, at: datetime = NOW, verifier: Verifier = VERIFIER
) -> Claims:
    return verifier.verify(Evidence("snp", encode(report, table)), BOUND, at)


def real(at: datetime = datetime(2023, 1, 1, tzinfo=UTC), **verifier: Any) -> Claims:
    report = (REAL / "milan_v2_debug_report.bin").read_bytes()
    certificates = load_certificates((REAL / "milan_vcek.der").read_bytes())
    bound = bytes([1, 2, 3, 4, 5]).ljust(64, b"\0")
    return Verifier(amd_certificates=certificates, **verifier).verify(
        Evidence("snp", encode(report, b"")), bound, at
    )


def test_a_real_report_up_to_amds_root() -> None:
    claims = real()
    assert claims.measurement.startswith("b07af962")
    assert claims.tcb == {"bootloader": 2, "tee": 0, "snp": 5, "microcode": 68}
    assert claims.details["endorsed by"] == "VCEK of ARK-Milan"
    assert claims.debug
    policy = Policy(level=Level.L4, measurements={"snp": frozenset({claims.measurement})}, minimum_tcb={"snp": 5})
    verdict = judge([policy], claims, None, NOW)
    assert [finding.rule for finding in verdict.findings if not finding.ok] == ["level", "debug", "revocation list"]


def test_a_real_report_under_other_roots_or_at_another_time() -> None:
    with pytest.raises(EvidenceError, match="no root"):
        real(amd_roots=[MACHINE.root])
    with pytest.raises(EvidenceError, match="not valid at"):
        real(datetime(2022, 1, 1, tzinfo=UTC))
    with pytest.raises(EvidenceError, match="not valid at"):
        real(datetime(2030, 1, 1, tzinfo=UTC))


def test_amds_own_certificates() -> None:
    names = [certificate.subject.rfc4514_string().split(",")[0] for certificate in amd_certificates()]
    products = ("Milan", "Genoa", "Turin")
    assert sorted(names) == sorted(f"CN={kind}-{name}" for kind in ("ARK", "SEV", "SEV-VLEK") for name in products)


def test_a_synthetic_guest() -> None:
    claims = verify(MACHINE.report(BOUND))
    assert (claims.tee, claims.ceiling, claims.measurement, claims.tcb) == ("snp", Level.L4, MEASUREMENT, TCB)
    assert (claims.debug, claims.svn, claims.config_id, claims.signer) == (False, 7, None, None)
    assert verify(MACHINE.report(BOUND, host_data=b"h" * 32)).config_id == "68" * 32
    assert verify(MACHINE.report(BOUND, policy=0x30000 | 1 << 19)).debug
    assert verify(MACHINE.report(BOUND, chip=bytes(64))).measurement == MEASUREMENT  # masked by the host


def test_turin_and_vlek() -> None:
    turin = SnpMachine({**TCB, "fmc": 1}, turin=True)
    assert verify(turin.report(BOUND), turin.table, verifier=Verifier(amd_roots=[turin.root])).tcb == {
        **TCB,
        "fmc": 1,
    }
    vlek = SnpMachine(kind="VLEK")
    assert (
        verify(vlek.report(BOUND), vlek.table, verifier=Verifier(amd_roots=[vlek.root])).details["endorsed by"]
        == "VLEK of ARK-Paper"
    )


def test_a_replay() -> None:
    with pytest.raises(EvidenceError, match="another challenge"):
        verify(MACHINE.report(bytes(64)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": 0x30000 | 1 << 18}, "migrated"),
        ({"vmpl": 1}, "VMPL 1"),
        ({"tcb": {**TCB, "snp": 23}}, "another TCB"),
        ({"chip": b"c" * 64}, "another chip's"),
        ({"version": 6}, "version 6"),
        ({"version": 1}, "version 1"),
    ],
)
def test_what_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(EvidenceError, match=words):
        verify(MACHINE.report(BOUND, **options))


def test_an_unknown_root_another_chips_key_and_none() -> None:
    other = SnpMachine()
    with pytest.raises(EvidenceError, match="no root"):
        verify(other.report(BOUND), other.table)
    with pytest.raises(EvidenceError, match="no root"):
        Verifier().verify(SnpProvider(MACHINE).collect(BOUND), BOUND, NOW)
    with pytest.raises(EvidenceError, match="signature is not by"):
        verify(other.report(BOUND), MACHINE.table)
    with pytest.raises(EvidenceError, match="nobody has the VCEK"):
        verify(MACHINE.report(BOUND), b"")


def test_a_certificate_that_calls_itself_an_authority() -> None:
    """A chip's key may sign reports, not certificates of other chips."""
    forger = SnpMachine()
    forger.authority = MACHINE.endorser
    with pytest.raises(EvidenceError, match="no root"):
        verify(forger.report(BOUND), forger.table)


@pytest.mark.parametrize("days", [-200, 200])
def test_certificates_out_of_date(days: int) -> None:
    with pytest.raises(EvidenceError, match="not valid at"):
        verify(MACHINE.report(BOUND), at=NOW + timedelta(days=days))


@pytest.mark.slow
def test_a_bit_flipped_anywhere_in_the_report() -> None:
    report = MACHINE.report(BOUND)
    for bit in range(0, 8 * REPORT_SIZE, 3):
        flipped = bytearray(report)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(EvidenceError):
            verify(bytes(flipped))


def test_a_bit_flipped_anywhere_in_the_certificates() -> None:
    report, table = MACHINE.report(BOUND), MACHINE.table
    expected = verify(report)
    # Each certificate ends with its signature, before which stands how many of its last bits do not count: where
    # those happen to be zeros, more of them may be left out.
    last = len(table) - 256 - 1
    uncounted = {last, last - len(MACHINE.authority.public_bytes(Encoding.DER))}
    assert {table[place] for place in uncounted} == {0}
    for place in range(48, len(table)):
        flipped = bytearray(table)
        flipped[place] ^= 1 << place % 8
        try:
            claims = verify(report, bytes(flipped))
        except EvidenceError:
            continue
        assert place < 72 or place in uncounted, f"byte {place} is not protected"  # 72: what ends the table
        assert claims == expected


@given(st.binary(max_size=200) | st.binary(min_size=REPORT_SIZE, max_size=REPORT_SIZE))
def test_bytes_that_are_no_report(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        verify(data)


@given(st.integers(0, REPORT_SIZE - 8), st.binary(min_size=1, max_size=8))
def test_mangled_reports(place: int, data: bytes) -> None:
    report = bytearray(MACHINE.report(BOUND))
    report[place : place + len(data)] = data
    try:
        Report.parse(bytes(report))
    except DocumentError:
        return


ENTRY = st.builds(
    lambda guid, offset, length: guid + struct.pack("<II", offset, length),
    st.sampled_from([MACHINE.table[:16], MACHINE.table[24:40], b"g" * 16, bytes(16)]),
    st.integers(0, 3000) | st.sampled_from([2**32 - 1, 2**31]),
    st.integers(0, 3000) | st.sampled_from([2**32 - 1, 2**31]),
)


@given(st.lists(ENTRY, max_size=12).map(b"".join), st.binary(max_size=30))
def test_mangled_tables(entries: bytes, rest: bytes) -> None:
    try:
        parse_certificates(entries + rest + MACHINE.table)
    except DocumentError:
        return


def test_certificates_that_are_none() -> None:
    for data in (b"", b"junk", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", CHIP):
        with pytest.raises(DocumentError):
            load_certificates(data)
