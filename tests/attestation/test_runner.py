"""An enrolled runner's word, and sample evidence: bound to one challenge, worth no more than they are."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from sealfs.attestation.evidence import Evidence
from sealfs.attestation.levels import Level
from sealfs.attestation.runner import RunnerProvider
from sealfs.attestation.sample import SampleProvider
from sealfs.attestation.verify import Verifier
from sealfs.errors import DocumentError, EvidenceError
from sealfs.keys import Identity

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOUND = bytes(range(64))
MANIFEST = "5e" * 32
RUNNER, STRANGER = Identity.generate(), Identity.generate()
VERIFIER = Verifier(runners=[RUNNER.signer])


def test_an_enrolled_runners_word() -> None:
    claims = VERIFIER.verify(RunnerProvider(RUNNER, MANIFEST).collect(BOUND), BOUND, NOW)
    assert (claims.tee, claims.ceiling, claims.measurement) == ("sealfs-runner", Level.L2, MANIFEST)
    assert claims.signer == str(RUNNER.signer)


def test_a_stranger_and_a_replay() -> None:
    with pytest.raises(EvidenceError, match="not enrolled"):
        VERIFIER.verify(RunnerProvider(STRANGER, MANIFEST).collect(BOUND), BOUND, NOW)
    with pytest.raises(EvidenceError, match="another challenge"):
        VERIFIER.verify(RunnerProvider(RUNNER, MANIFEST).collect(BOUND), bytes(64), NOW)


def test_a_runner_that_lies_about_its_manifest_afterwards() -> None:
    body = dict(RunnerProvider(RUNNER, MANIFEST).collect(BOUND).body)
    statement = json.loads(base64.b64decode(body["payload"]))
    for name, value in {"manifest": "00" * 32, "report_data": base64.b64encode(bytes(64)).decode()}.items():
        forged = base64.b64encode(json.dumps({**statement, name: value}).encode()).decode()
        with pytest.raises(EvidenceError, match="no valid signature"):
            VERIFIER.verify(Evidence("sealfs-runner", {**body, "payload": forged}), BOUND, NOW)


def test_a_stranger_who_says_that_he_is_the_runner() -> None:
    mine = dict(RunnerProvider(RUNNER, MANIFEST).collect(BOUND).body)
    theirs = RunnerProvider(STRANGER, MANIFEST).collect(BOUND).body
    with pytest.raises(EvidenceError, match="no valid signature"):
        VERIFIER.verify(Evidence("sealfs-runner", {**mine, "signatures": theirs["signatures"]}), BOUND, NOW)


def test_a_bit_flipped_anywhere() -> None:
    body = RunnerProvider(RUNNER, MANIFEST).collect(BOUND).body
    signature = body["signatures"][0]
    for bit in range(8 * len(base64.b64decode(body["payload"]))):
        payload = bytearray(base64.b64decode(body["payload"]))
        payload[bit // 8] ^= 1 << bit % 8
        forged = {**body, "payload": base64.b64encode(payload).decode()}
        with pytest.raises(EvidenceError):
            VERIFIER.verify(Evidence("sealfs-runner", forged), BOUND, NOW)
    for bit in range(512):
        raw = bytearray(base64.b64decode(signature["sig"]))
        raw[bit // 8] ^= 1 << bit % 8
        forged = {**body, "signatures": [{**signature, "sig": base64.b64encode(raw).decode()}]}
        with pytest.raises(EvidenceError):
            VERIFIER.verify(Evidence("sealfs-runner", forged), BOUND, NOW)


def test_sample_evidence_only_where_it_is_allowed() -> None:
    evidence = SampleProvider().collect(BOUND)
    with pytest.raises(EvidenceError, match="not accepted"):
        VERIFIER.verify(evidence, BOUND, NOW)
    claims = Verifier(allow_sample=True).verify(evidence, BOUND, NOW)
    assert claims.ceiling == Level.L1
    with pytest.raises(EvidenceError, match="another challenge"):
        Verifier(allow_sample=True).verify(evidence, bytes(64), NOW)


def test_kinds_that_nobody_knows() -> None:
    with pytest.raises(EvidenceError, match="unknown kind"):
        VERIFIER.verify(Evidence("az-snp-vtpm", {}), BOUND, NOW)
    with pytest.raises(EvidenceError):
        VERIFIER.verify(Evidence("sealfs-runner", {}), BOUND, NOW)


def test_evidence_in_a_file() -> None:
    evidence = RunnerProvider(RUNNER, MANIFEST).collect(BOUND)
    assert Evidence.parse(json.dumps(evidence.to_json()).encode()) == evidence
    for wrong in (b"[]", b'{"tee":"sgx"}', b'{"tee":"sgx","tee-evidence":[]}', b'{"tee":1,"tee-evidence":{}}'):
        with pytest.raises(DocumentError):
            Evidence.parse(wrong)
