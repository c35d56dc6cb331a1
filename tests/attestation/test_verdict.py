"""The table of levels, and each rule that refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealfs.attestation.claims import Claims
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy, SignerRule
from sealfs.attestation.verdict import RegisteredManifest, judge
from sealfs.errors import DocumentError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
ENCLAVE, GUEST = "5e" * 32, "5e" * 48
INTEL: dict[str, Any] = {
    "tcb_status": "UpToDate",
    "tcb_evaluation_number": 17,
    "collateral_expires": LATER,
}
SGX = Claims("sgx", Level.L5, bytes(64), False, ENCLAVE, "51" * 32, 1, 2, **INTEL)
TDX = Claims("tdx", Level.L4, bytes(64), False, GUEST, **INTEL)
SNP = Claims("snp", Level.L4, bytes(64), False, GUEST, tcb={"snp": 22, "microcode": 213}, collateral_expires=LATER)
TPM = Claims("tpm", Level.L3, bytes(64), False, ENCLAVE, pcrs="sha256:0,7")
RUNNER = Claims("sealfs-runner", Level.L2, bytes(64), False, ENCLAVE)
SAMPLE = Claims("sample", Level.L1, bytes(64), True, "")
EVERY = (SGX, TDX, SNP, TPM, RUNNER, SAMPLE)
CLEAN = RegisteredManifest(ENCLAVE, Level.L5)
POLICY = Policy(
    measurements={
        "sgx": frozenset({ENCLAVE}),
        "tdx": frozenset({GUEST}),
        "snp": frozenset({GUEST}),
        "tpm": frozenset({ENCLAVE}),
        "sealfs-runner": frozenset({ENCLAVE}),
    },
    minimum_evaluation_number=17,
    minimum_tcb={"snp": 22},
    pcrs="sha256:0,7",
    development=True,
)


def at(level: Level, **changes: Any) -> Policy:
    return replace(POLICY, level=level, **changes)


def refusals(policy: Policy, claims: Claims | None, manifest: RegisteredManifest | None = CLEAN) -> list[str]:
    verdict = judge([policy], claims, manifest, NOW)
    bad = [finding.rule for finding in verdict.findings if not finding.ok]
    assert verdict.allowed == (not bad)
    assert str(verdict).startswith("refused" if bad else "allowed")
    return bad


@pytest.mark.parametrize("demanded", list(Level))
@pytest.mark.parametrize("claims", EVERY, ids=[claims.tee for claims in EVERY])
def test_each_kind_of_evidence_serves_up_to_its_level(demanded: Level, claims: Claims) -> None:
    assert judge([at(demanded)], claims, CLEAN, NOW).allowed == (claims.ceiling >= demanded)


@pytest.mark.parametrize("demanded", list(Level))
def test_no_evidence_serves_development_only(demanded: Level) -> None:
    verdict = judge([at(demanded)], None, None, NOW)
    assert verdict.allowed == (demanded == Level.L1)
    assert verdict.level == Level.L1


def test_the_words_of_a_refusal() -> None:
    verdict = judge([Policy()], None, None, NOW)
    assert verdict.reason == "this dataset needs L5; this process offered no evidence"
    assert "BAD level: demanded L5" in str(verdict)


def test_l1_needs_a_dataset_that_is_marked() -> None:
    with pytest.raises(DocumentError, match="protects nothing"):
        replace(POLICY, level=Level.L1, development=False)


@pytest.mark.parametrize(
    ("claims", "changes", "rule"),
    [
        (SGX, {"measurement": "00" * 32}, "measurement"),
        (SGX, {"config_id": "01" * 64}, "launch configuration"),
        (SGX, {"tcb_status": "OutOfDate"}, "TCB status"),
        (SGX, {"tcb_status": "SWHardeningNeeded"}, "TCB status"),
        (SGX, {"tcb_status": None}, "TCB status"),
        (SGX, {"advisories": ("INTEL-SA-00615",)}, "advisories"),
        (SGX, {"tcb_evaluation_number": 16}, "TCB evaluation number"),
        (SGX, {"tcb_evaluation_number": None}, "TCB evaluation number"),
        (SGX, {"collateral_expires": NOW}, "collateral"),
        (SGX, {"collateral_expires": None}, "collateral"),
        (TDX, {"measurement": "00" * 48}, "measurement"),
        (TDX, {"tcb_status": "Revoked"}, "TCB status"),
        (TDX, {"config_id": "01" * 48}, "launch configuration"),
        (SNP, {"tcb": {"snp": 21}}, "TCB"),
        (SNP, {"tcb": {}}, "TCB"),
        (SNP, {"collateral_expires": None}, "revocation list"),
        (SNP, {"collateral_expires": NOW}, "revocation list"),
        (SNP, {"measurement": "00" * 48}, "measurement"),
        (TPM, {"pcrs": "sha256:0"}, "PCRs"),
        (TPM, {"pcrs": "sha256:16,23"}, "PCRs"),
        (TPM, {"measurement": "00" * 32}, "measurement"),
        (RUNNER, {"measurement": "00" * 32}, "measurement"),
    ],
)
def test_each_rule_refuses(claims: Claims, changes: dict[str, Any], rule: str) -> None:
    changed = replace(claims, **changes)
    found = refusals(at(Level.L2), changed, replace(CLEAN, measurement=changed.measurement))
    assert found == [rule]


@pytest.mark.parametrize("claims", [SGX, TDX, SNP], ids=["sgx", "tdx", "snp"])
@pytest.mark.parametrize("demanded", [level for level in Level if level > Level.L1])
def test_a_debug_bit_overrides_a_perfect_measurement(claims: Claims, demanded: Level) -> None:
    debugged = replace(claims, debug=True)
    assert {"debug", "level"} <= set(refusals(at(demanded), debugged))
    assert judge([at(demanded)], debugged, CLEAN, NOW).level == Level.L1


def test_an_enclave_whose_manifest_is_not_registered_or_serves_less() -> None:
    assert refusals(at(Level.L5), SGX, None) == ["level", "manifest"]
    weak = replace(CLEAN, level=Level.L2, findings=("loader.insecure__use_host_env: a shell",))
    assert refusals(at(Level.L5), SGX, weak) == ["level", "manifest"]
    assert not refusals(at(Level.L2), SGX, weak)
    assert "a shell" in str(judge([at(Level.L5)], SGX, weak, NOW))
    assert refusals(at(Level.L2), RUNNER, None) == ["level", "manifest"]


def test_a_manifest_of_another_enclave_says_nothing() -> None:
    assert refusals(at(Level.L5), SGX, replace(CLEAN, measurement="00" * 32)) == ["level", "manifest"]


def test_signer_product_and_svn() -> None:
    policy = at(Level.L5, measurements={}, signers=frozenset({SignerRule("51" * 32, 1, 2)}))
    assert not refusals(policy, SGX)
    assert not refusals(policy, replace(SGX, svn=3))
    for changes in ({"svn": 1}, {"svn": None}, {"product": 2}, {"product": None}, {"signer": "00" * 32}):
        assert refusals(policy, replace(SGX, **changes)) == ["measurement"]
    assert "measurement" in refusals(
        replace(policy, level=Level.L4), replace(TDX, signer="51" * 32, product=1, svn=2)
    )


def test_what_is_accepted_explicitly() -> None:
    hardened = replace(SGX, tcb_status="SWHardeningNeeded", advisories=("INTEL-SA-00615",))
    assert refusals(at(Level.L5), hardened) == ["TCB status", "advisories"]
    accepted = frozenset({"UpToDate", "SWHardeningNeeded"})
    assert refusals(at(Level.L5, tcb_statuses=accepted), hardened) == ["advisories"]
    assert not refusals(at(Level.L5, tcb_statuses=accepted, advisories=frozenset({"INTEL-SA-00615"})), hardened)


def test_a_launch_configuration_that_is_allow_listed() -> None:
    policy = at(Level.L4, config_ids=frozenset({"01" * 48}))
    assert not refusals(policy, replace(TDX, config_id="01" * 48))
    assert refusals(policy, TDX) == ["launch configuration"]


def test_no_policy_allows_nothing() -> None:
    assert not judge([], SGX, CLEAN, NOW).allowed


def test_a_second_dataset_lowers_nothing() -> None:
    weak, strict = at(Level.L1), at(Level.L5)
    for claims in (None, *EVERY):
        both = judge([weak, strict], claims, CLEAN, NOW)
        assert both.allowed == judge([strict], claims, CLEAN, NOW).allowed
        assert both.allowed == judge([strict, weak], claims, CLEAN, NOW).allowed
        assert both.demanded == Level.L5


@given(
    st.lists(st.builds(at, st.sampled_from(list(Level))), min_size=1, max_size=3),
    st.sampled_from([None, *EVERY]),
    st.sampled_from([None, CLEAN, replace(CLEAN, level=Level.L3)]),
)
def test_all_policies_have_to_allow(
    policies: list[Policy], claims: Claims | None, manifest: RegisteredManifest | None
) -> None:
    verdict = judge(policies, claims, manifest, NOW)
    assert verdict.allowed == all(judge([policy], claims, manifest, NOW).allowed for policy in policies)
    if verdict.allowed:
        assert verdict.level >= verdict.demanded
