"""Policies: read strictly, strict by default, one digest whichever way they were written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealfs.attestation.levels import Level
from sealfs.attestation.policy import MEASURED_KINDS, TCB_PARTS, TCB_STATUSES, Policy, SignerRule
from sealfs.errors import DocumentError

HEX = {kind: st.binary(min_size=size, max_size=size).map(bytes.hex) for kind, size in MEASURED_KINDS.items()}
SVNS = st.integers(0, 255)
POLICIES = st.builds(
    Policy,
    level=st.sampled_from(list(Level)),
    development=st.just(True),
    measurements=st.fixed_dictionaries({}, optional={kind: st.frozensets(HEX[kind], max_size=3) for kind in HEX}),
    signers=st.frozensets(st.builds(SignerRule, HEX["sgx"], SVNS, SVNS), max_size=3),
    config_ids=st.frozensets(HEX["snp"], max_size=2),
    tcb_statuses=st.frozensets(st.sampled_from(TCB_STATUSES)),
    advisories=st.frozensets(st.from_regex(r"INTEL-SA-[0-9]{5}", fullmatch=True), max_size=3),
    minimum_evaluation_number=SVNS,
    minimum_tcb=st.dictionaries(st.sampled_from(TCB_PARTS), SVNS, min_size=1),
    revocation_list=st.booleans(),
    pcrs=st.sampled_from(["sha256:0", "sha256:0,7,23"]),
)


def test_the_default_lets_nobody_in() -> None:
    assert Policy.parse(b"") == Policy.parse(b"{}") == Policy()
    assert Policy().level == Level.L5
    assert not Policy().measurements
    assert not Policy().signers
    assert Policy().tcb_statuses == {"UpToDate"}


@given(POLICIES)
def test_what_is_written_is_read_back(policy: Policy) -> None:
    assert Policy.from_json(policy.to_json()) == policy
    assert Policy.parse(json.dumps(policy.to_json()).encode()).digest == policy.digest


def test_toml_and_json_are_the_same_policy() -> None:
    toml = b"""
    level = "L4"
    tcb_statuses = ["SWHardeningNeeded", "UpToDate"]  # as most machines are
    advisories = ["INTEL-SA-00615"]
    minimum_evaluation_number = 17
    pcrs = "sha256:7,0,0"
    signers = [{ signer = "%s", product = 1, minimum_svn = 2 }]
    [measurements]
    sgx = ["%s"]
    """ % (b"ab" * 32, b"cd" * 32)
    document = {
        "level": "L4",
        "tcb_statuses": ["UpToDate", "SWHardeningNeeded"],
        "advisories": ["INTEL-SA-00615"],
        "minimum_evaluation_number": 17,
        "pcrs": "sha256:0,7",
        "signers": [{"signer": "ab" * 32, "product": 1, "minimum_svn": 2}],
        "measurements": {"sgx": ["cd" * 32]},
    }
    assert Policy.parse(toml) == Policy.from_json(document)
    assert Policy.parse(toml).digest == Policy.from_json(document).digest


@pytest.mark.parametrize(
    "document",
    [
        {"level": "L6"},
        {"level": 5},
        {"level": "L1"},  # not without development
        {"development": 1},
        {"developement": True},  # a typing error must not go unnoticed
        {"measurements": {"sgx": ["AB" * 32]}},
        {"measurements": {"sgx": ["ab" * 31]}},
        {"measurements": {"sgx": "ab" * 32}},
        {"measurements": {"sev": ["ab" * 32]}},
        {"measurements": {"sample": ["ab" * 32]}},
        {"measurements": {"tpm": ["ab" * 32]}},  # not without PCRs
        {"measurements": {"snp": ["ab" * 48]}},  # not without a minimum
        {"signers": [{"signer": "ab" * 32, "product": 1}]},
        {"signers": [{"signer": "ab" * 32, "product": 1, "minimum_svn": 1, "svn": 2}]},
        {"tcb_statuses": ["Revoked"]},
        {"tcb_statuses": ["uptodate"]},
        {"tcb_statuses": [1]},
        {"advisories": ["*"]},
        {"minimum_evaluation_number": -1},
        {"minimum_evaluation_number": True},
        {"minimum_tcb": {"snp": 256}},
        {"minimum_tcb": {"kernel": 1}},
        {"revocation_list": 0},
        {"pcrs": "sha256:24"},
        {"pcrs": "sha1:1"},
        {"pcrs": "sha256:"},
        [],
        None,
    ],
)
def test_what_is_no_policy(document: Any) -> None:
    with pytest.raises(DocumentError):
        Policy.from_json(document)
    if isinstance(document, dict):
        with pytest.raises(DocumentError):
            Policy.parse(json.dumps(document).encode())


@pytest.mark.parametrize(
    "data", [b"\xff", b"level = L5", b"x" * (1 << 20), b"[" * 10_000, b'{"level":"L5","level":"L4"}']
)
def test_bytes_that_are_no_policy(data: bytes) -> None:
    with pytest.raises(DocumentError):
        Policy.parse(data)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        Policy.parse(data)
    except DocumentError:
        return


@given(POLICIES, st.data())
def test_a_policy_with_one_member_changed_is_another_or_none(policy: Policy, data: st.DataObject) -> None:
    document = policy.to_json()
    name = data.draw(st.sampled_from(sorted(document)))
    document[name] = data.draw(st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text()))
    try:
        Policy.from_json(document)
    except DocumentError:
        return
