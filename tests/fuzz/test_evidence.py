"""Evidence of a hostile client: whatever it sends, it is verified or refused, and nothing else happens."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from attestation.amd import SnpMachine, SnpProvider
from attestation.hardware import NOW, Machine, SyntheticProvider
from attestation.test_dcap import Fixed
from hypothesis import given
from hypothesis import strategies as st

from sealfs.attestation.evidence import KINDS, Evidence
from sealfs.attestation.runner import RunnerProvider
from sealfs.attestation.sample import SampleProvider
from sealfs.attestation.tpm_quote import load_key
from sealfs.attestation.verify import Verifier
from sealfs.errors import DocumentError, EvidenceError
from sealfs.keys import Identity

BOUND = bytes(range(64))
MACHINE, AMD, RUNNER = Machine(), SnpMachine(), Identity.generate()
TPM_KEY = b"""-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEXfb+NUOjCaNJf080rzG5XCDMhNgB
zCZv3UnbK1Bw1us5zxaCbQH96MFRAb6WPTj3Dj64pIbjBhXbZFaPGjuRug==
-----END PUBLIC KEY-----
"""
VERIFIER = Verifier(
    runners=[RUNNER.signer],
    tpm_keys=[load_key(TPM_KEY)],
    allow_sample=True,
    collateral=Fixed(MACHINE.collateral()),
    intel_root=MACHINE.root_der,
    amd_roots=[AMD.root],
)
TPM = "5b0c2f4a" + "00" * 28
VALID: dict[str, dict[str, Any]] = {
    "sgx": dict(SyntheticProvider(MACHINE).collect(BOUND).body),
    "tdx": dict(SyntheticProvider(MACHINE, "tdx").collect(BOUND).body),
    "snp": dict(SnpProvider(AMD).collect(BOUND).body),
    "tpm": {"key": TPM, "quoted": "AAAA", "signature": "AAAA", "report_data": base64.b64encode(BOUND).decode()},
    "sealfs-runner": dict(RunnerProvider(RUNNER, "5e" * 32).collect(BOUND).body),
    "sample": dict(SampleProvider().collect(BOUND).body),
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("A" * 200_000),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
EVERY = pytest.mark.parametrize("tee", KINDS)


def refused(tee: str, body: dict[str, Any]) -> bool:
    try:
        VERIFIER.verify(Evidence(tee, body), BOUND, NOW)
    except EvidenceError:
        return True
    return False


def test_each_kind_is_tried() -> None:
    assert set(VALID) == set(KINDS)
    assert [tee for tee in KINDS if not refused(tee, VALID[tee])] == ["sgx", "snp", "sealfs-runner", "sample"]


@EVERY
@given(body=st.dictionaries(st.sampled_from(["quote", "report", "payload", "key", "svn", "x"]), VALUES, max_size=4))
def test_any_object(tee: str, body: dict[str, Any]) -> None:
    assert refused(tee, body)


@EVERY
@given(data=st.data())
def test_one_member_replaced_or_gone(tee: str, data: st.DataObject) -> None:
    body = dict(VALID[tee])
    name = data.draw(st.sampled_from(sorted(body)))
    value = data.draw(
        VALUES | st.just(...) | st.binary(max_size=100).map(lambda raw: base64.b64encode(raw).decode())
    )
    if value is ...:
        del body[name]
    else:
        body[name] = value
    refused(tee, body)  # some members may go, an SNP's certificates for one; nothing but a refusal may come out


@given(st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_files_that_are_none(data: bytes) -> None:
    for read in (Evidence.parse, Evidence.from_raw):
        try:
            evidence = read(data)
        except DocumentError:
            continue
        assert refused(evidence.tee, dict(evidence.body))
