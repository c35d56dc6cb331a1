"""SGX and TDX: real quotes at the time when they were fresh, and each threat with a machine made of paper."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.hardware import MRENCLAVE, MRSIGNER, NOW, TDX_MEASUREMENT, Machine, SyntheticProvider
from sealfs.attestation.claims import Claims
from sealfs.attestation.collateral import CollateralFolder
from sealfs.attestation.dcap import MAX_QUOTE_SIZE
from sealfs.attestation.evidence import Evidence
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.attestation.verdict import RegisteredManifest, judge
from sealfs.attestation.verify import Verifier
from sealfs.errors import EvidenceError

REAL = Path(__file__).parents[1] / "fixtures" / "quotes"
REAL_NOW = datetime.fromtimestamp(1751000000, UTC)
BOUND = bytes(range(64))
MACHINE = Machine()
KINDS = pytest.mark.parametrize("tee", ["sgx", "tdx"])


class Fixed:
    """A source that has one statement about everything."""

    def __init__(self, text: str) -> None:
        self.text = text

    def checked(self, quote: bytes, at: datetime, check: Callable[[str], Any]) -> Any:
        return check(self.text)


def verify(
    quote: bytes, collateral: str, tee: str = "sgx", at: datetime = NOW, root: bytes | None = MACHINE.root_der
) -> Claims:
    evidence = Evidence(tee, {"quote": base64.b64encode(quote).decode()})
    return Verifier(collateral=Fixed(collateral), intel_root=root).verify(evidence, BOUND, at)


def quote_of(tee: str, bound: bytes = BOUND, **options: Any) -> bytes:
    return MACHINE.sgx_quote(bound, **options) if tee == "sgx" else MACHINE.tdx_quote(bound, **options)


def real(name: str) -> tuple[bytes, str]:
    return (REAL / f"{name}_quote.bin").read_bytes(), (REAL / f"{name}_collateral.json").read_text()


def verify_real(name: str, at: datetime = REAL_NOW) -> Claims:
    quote, collateral = real(name)
    evidence = Evidence.from_raw(quote)
    assert evidence.tee == name[:3]
    return Verifier(collateral=Fixed(collateral)).examine(evidence, at)


def test_the_real_sgx_quote_at_its_time() -> None:
    claims = verify_real("sgx_v3")
    assert claims.measurement.startswith("33d8736d")
    assert claims.report_data.startswith(b"Hello, world!")
    assert (claims.tcb_status, claims.advisories) == (
        "ConfigurationAndSWHardeningNeeded",
        ("INTEL-SA-00289", "INTEL-SA-00615"),
    )
    assert (claims.debug, claims.product, claims.svn, claims.tcb_evaluation_number) == (False, 0, 0, 17)
    assert claims.collateral_expires is not None
    assert claims.collateral_expires.date() == datetime(2025, 7, 19, tzinfo=UTC).date()
    assert claims.details["FMSPC"] == "00a067110000"


def test_the_real_tdx_quote_at_its_time() -> None:
    claims = verify_real("tdx_v4")
    assert (claims.tcb_status, claims.advisories, claims.debug) == ("UpToDate", (), False)
    assert claims.details["MRTD"].startswith("91eb2b44")


def test_the_real_quotes_later() -> None:
    for name in ("sgx_v3", "tdx_v4"):
        with pytest.raises(EvidenceError, match="does not verify"):
            verify_real(name, datetime(2025, 7, 21, tzinfo=UTC))


def test_the_real_debug_quote() -> None:
    """There is no collateral for it, and none is needed: its own bytes say that it has to be refused."""
    quote = (REAL / "sgx_v3_debug_quote.bin").read_bytes()
    assert quote[48 + 320 :].startswith(b"test"), "its report data"
    assert quote[48 + 48] & 2, "its ATTRIBUTES have the debug bit"
    with pytest.raises(EvidenceError, match="debug enclave"):
        verify(quote, real("sgx_v3")[1], at=REAL_NOW, root=None)
    with pytest.raises(EvidenceError, match="debug enclave"):
        Verifier(collateral=CollateralFolder(REAL / "sgx_v3_collateral.json")).verify(
            Evidence.from_raw(quote), bytes(64), REAL_NOW
        )


def test_what_policies_say_about_the_real_quote() -> None:
    claims = verify_real("sgx_v3")
    manifest = RegisteredManifest(claims.measurement, Level.L5)
    strict = Policy(measurements={"sgx": frozenset({claims.measurement})})
    verdict = judge([strict], claims, manifest, REAL_NOW)
    assert [finding.rule for finding in verdict.findings if not finding.ok] == ["TCB status", "advisories"]
    accepting = Policy(
        measurements=strict.measurements,
        tcb_statuses=frozenset({"ConfigurationAndSWHardeningNeeded"}),
        advisories=frozenset({"INTEL-SA-00289", "INTEL-SA-00615"}),
    )
    assert judge([accepting], claims, manifest, REAL_NOW).allowed
    assert not judge([Policy()], claims, manifest, REAL_NOW).allowed


def test_a_synthetic_enclave() -> None:
    claims = verify(MACHINE.sgx_quote(BOUND), MACHINE.collateral())
    assert (claims.tee, claims.ceiling, claims.measurement, claims.signer) == ("sgx", Level.L5, MRENCLAVE, MRSIGNER)
    assert (claims.product, claims.svn, claims.config_id, claims.debug) == (1, 2, None, False)
    assert (claims.tcb_status, claims.tcb_evaluation_number) == ("UpToDate", 17)
    assert claims.collateral_expires == NOW + timedelta(days=29)


def test_a_synthetic_guest() -> None:
    claims = verify(MACHINE.tdx_quote(BOUND), MACHINE.collateral("tdx"), "tdx")
    assert (claims.tee, claims.ceiling, claims.measurement) == ("tdx", Level.L4, TDX_MEASUREMENT)
    assert (claims.config_id, claims.debug) == (None, False)
    others = [{"mrtd": "00" * 48}, *({"rtmrs": tuple("00" * 48 if i == j else "a0" * 48 for j in range(4))}
              for i in range(4))]  # fmt: skip
    for other in others:
        changed = verify(MACHINE.tdx_quote(BOUND, **other), MACHINE.collateral("tdx"), "tdx")  # type: ignore[arg-type]
        assert changed.measurement != TDX_MEASUREMENT


def test_what_the_host_configured_at_launch() -> None:
    assert verify(MACHINE.sgx_quote(BOUND, config_id=b"c" * 64), MACHINE.collateral()).config_id == "63" * 64
    collateral = MACHINE.collateral("tdx")
    assert verify(MACHINE.tdx_quote(BOUND, config_id=b"c" * 48), collateral, "tdx").config_id == "63" * 48
    owned = verify(MACHINE.tdx_quote(BOUND, owner=b"o" * 48), collateral, "tdx").config_id
    assert owned is not None
    assert len(owned) == 2 * 3 * 48


@KINDS
def test_a_replayed_quote_or_one_for_another_key(tee: str) -> None:
    with pytest.raises(EvidenceError, match="another challenge"):
        verify(quote_of(tee, bytes(64)), MACHINE.collateral(tee), tee)


@pytest.mark.parametrize(
    "flags",
    [0x04, 0x01, 0x15, 0x25],
    ids=["not initialised", "32-bit mode", "provisioning key", "launch key"],
)
def test_the_same_code_in_another_kind_of_enclave(flags: int) -> None:
    """MRENCLAVE does not cover ATTRIBUTES: whoever signs the enclave anew chooses them."""
    with pytest.raises(EvidenceError, match="not those of an ordinary 64-bit one"):
        verify(quote_of("sgx", flags=flags), MACHINE.collateral())
    assert verify(quote_of("sgx", flags=0x85), MACHINE.collateral()).measurement == MRENCLAVE  # KSS


@pytest.mark.parametrize(
    "flags",
    [1 << 28 | 1 << 4, 1 << 28 | 1 << 5, 1 << 28 | 1 << 29, 0],
    ids=["profiled", "profiled", "migratable", "SEPT_VE enabled"],
)
def test_a_guest_that_its_host_can_look_into(flags: int) -> None:
    with pytest.raises(EvidenceError, match="does not verify"):
        verify(quote_of("tdx", flags=flags), MACHINE.collateral("tdx"), "tdx")


@KINDS
def test_a_debug_enclave_with_a_perfect_measurement(tee: str) -> None:
    with pytest.raises(EvidenceError, match="debug enclave"):
        verify(quote_of(tee, debug=True), MACHINE.collateral(tee), tee)


@KINDS
@pytest.mark.parametrize("status", ["OutOfDate", "SWHardeningNeeded", "OutOfDateConfigurationNeeded"])
def test_an_outdated_platform_is_for_the_policy_to_judge(tee: str, status: str) -> None:
    text = MACHINE.collateral(tee, status=status, advisories=("INTEL-SA-00615",), evaluation=16)
    claims = verify(quote_of(tee), text, tee)
    assert (claims.tcb_status, claims.advisories, claims.tcb_evaluation_number) == (status, ("INTEL-SA-00615",), 16)
    policy = Policy(
        measurements={tee: frozenset({claims.measurement})}, level=Level.L4, minimum_evaluation_number=17
    )
    verdict = judge([policy], claims, RegisteredManifest(claims.measurement, Level.L5), NOW)
    bad = [finding.rule for finding in verdict.findings if not finding.ok]
    assert bad == ["TCB status", "advisories", "TCB evaluation number"]


def test_an_outdated_quoting_enclave() -> None:
    assert verify(quote_of("sgx"), MACHINE.collateral(qe_status="OutOfDate")).tcb_status == "OutOfDate"


@KINDS
@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "Revoked"},
        {"qe_status": "Revoked"},
        {"pck_revoked": True},
        {"pck_ca_revoked": True},
        {"expires": NOW},
        {"expires": NOW - timedelta(seconds=1)},
        {"issued": NOW + timedelta(seconds=1)},
    ],
    ids=str,
)
def test_revoked_expired_and_premature(tee: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError):
        verify(quote_of(tee), MACHINE.collateral(tee, **wrong), tee)


@KINDS
@pytest.mark.parametrize("days", [-2, -200, 30, 200])
def test_a_clock_that_is_wrong(tee: str, days: int) -> None:
    with pytest.raises(EvidenceError):
        verify(quote_of(tee), MACHINE.collateral(tee), tee, NOW + timedelta(days=days))


@KINDS
def test_an_unknown_root(tee: str) -> None:
    for root in (None, Machine().root_der):
        with pytest.raises(EvidenceError, match="does not verify"):
            verify(quote_of(tee), MACHINE.collateral(tee), tee, root=root)
    with pytest.raises(EvidenceError, match="does not verify"):  # and the other way round
        verify(quote_of(tee), Machine().collateral(tee), tee)


def test_a_quote_of_another_kind() -> None:
    for tee, other in (("sgx", "tdx"), ("tdx", "sgx")):
        for text in (MACHINE.collateral(tee), MACHINE.collateral(other)):
            with pytest.raises(EvidenceError):
                verify(quote_of(other), text, tee)


def test_what_stands_behind_a_quote_counts_for_nothing() -> None:
    assert verify(quote_of("sgx") + bytes(70), MACHINE.collateral()).measurement == MRENCLAVE


@pytest.mark.slow
@KINDS
def test_a_bit_flipped_anywhere_in_the_quote(tee: str) -> None:
    """Refused; but for what frames the certificates, where a flip may change nothing that is read."""
    quote, collateral = quote_of(tee), MACHINE.collateral(tee)
    expected = verify(quote, collateral, tee)
    armour = quote.index(b"-----BEGIN")
    framing = set(range(armour - 6, len(quote)))  # type and length of the certificates, then their PEM
    if tee == "tdx":
        framing |= set(range(764, 770))  # type and length of what holds the quoting enclave's report as well
    for place in range(len(quote)):
        for bit in range(8) if place < armour else [place % 7] if place % 5 == 0 else []:
            flipped = bytearray(quote)
            flipped[place] ^= 1 << bit
            try:
                claims = verify(bytes(flipped), collateral, tee)
            except EvidenceError:
                continue
            assert place in framing, f"bit {bit} of byte {place} is not protected"
            assert claims == expected


@pytest.mark.slow
def test_a_bit_flipped_anywhere_in_the_collateral() -> None:
    """A bit of each character in turn: exhaustive would take minutes."""
    quote, document = quote_of("sgx"), json.loads(MACHINE.collateral())
    expected = verify(quote, json.dumps(document))
    for name, text in document.items():
        pem = name.endswith("chain")
        for place in range(0, len(text), 5 if pem else 1):
            character = chr(ord(text[place]) ^ 1 << place % 7)
            if character.lower() == text[place].lower() and not pem:
                continue  # hexadecimal in another case
            changed = {**document, name: text[:place] + character + text[place + 1 :]}
            try:
                claims = verify(quote, json.dumps(changed))
            except EvidenceError:
                continue
            assert pem, f"character {place} of {name} is not protected"
            assert claims == expected


@pytest.mark.parametrize(
    "body", [{}, {"quote": 1}, {"quote": "!"}, {"quote": ""}, {"quote": "A" * 2 * MAX_QUOTE_SIZE}]
)
def test_evidence_without_a_quote(body: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError):
        Verifier(collateral=Fixed(MACHINE.collateral())).verify(Evidence("sgx", body), BOUND, NOW)


@KINDS
@given(data=st.data())
def test_mangled_quotes(tee: str, data: st.DataObject) -> None:
    quote = bytearray(quote_of(tee))
    place = data.draw(st.integers(0, len(quote) - 1))
    quote[place : place + data.draw(st.integers(0, 600))] = data.draw(st.binary(max_size=64))
    if bytes(quote).startswith(quote_of(tee)[:48]) and data.draw(st.booleans()):
        del quote[data.draw(st.integers(48, max(48, len(quote)))) :]
    for at in (NOW, NOW + timedelta(days=1)):
        try:
            verify(bytes(quote), MACHINE.collateral(tee), tee, at)
        except EvidenceError:
            continue


@given(st.binary(max_size=300))
def test_bytes_that_are_no_quote(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        verify(data, MACHINE.collateral())


def test_a_provider_for_clients_under_test() -> None:
    for tee in ("sgx", "tdx"):
        evidence = SyntheticProvider(MACHINE, tee).collect(BOUND)
        verifier = Verifier(collateral=Fixed(MACHINE.collateral(tee)), intel_root=MACHINE.root_der)
        assert verifier.verify(evidence, BOUND, NOW).tee == tee
