from __future__ import annotations

import os
from pathlib import Path

import pytest
from attestation.hardware import Machine
from commands import InProcess
from mount.bucket import PLACE, running_bucket


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")
def test_all_is_well(sealfs: InProcess, pushed: Path) -> None:
    outcome = sealfs("doctor", pushed)
    assert "BAD" not in outcome.text
    for about in ("/dev/fuse", "libfuse", "identity", "store", "conditional writes", "clock"):
        assert f"ok  {about}: " in outcome.text
    assert not list(pushed.rglob("probe-*"))  # it cleans up


def test_json(sealfs: InProcess, pushed: Path) -> None:
    findings = sealfs("doctor", "--json", pushed, code=None).json
    assert all(set(finding) == {"about", "good", "words"} for finding in findings)
    assert "holds a dataset" in next(f["words"] for f in findings if f["about"] == "store")


def test_no_identity(tmp_path: Path) -> None:
    outcome = InProcess(tmp_path / "newcomer")("doctor", code=1)
    assert "BAD identity: no identity at" in outcome.text
    assert "sealfs keygen" in outcome.text


def test_locked_identity_is_all_right(sealfs: InProcess, tmp_path: Path) -> None:
    (tmp_path / "phrase").write_text("correct horse")
    env = {"SEALFS_PASSPHRASE_FILE": str(tmp_path / "phrase"), "SEALFS_IDENTITY": str(tmp_path / "locked")}
    sealfs("keygen", "-p", "-o", tmp_path / "locked", env=env)
    assert "locked with a passphrase" in sealfs("doctor", env=env, code=None).text


def test_store_down_or_nonsense(sealfs: InProcess) -> None:
    env = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s"}
    env |= {"AWS_MAX_ATTEMPTS": "1", "AWS_DEFAULT_REGION": "us-east-1"}
    assert "BAD store: " in sealfs("doctor", "s3://bucket/x", env=env, code=1).text
    assert "BAD address: " in sealfs("doctor", "gs://bucket", code=1).text


def test_bucket_without_conditional_writes(sealfs: InProcess, source: Path) -> None:
    with running_bucket() as bucket:
        assert bucket._server is not None
        bucket._server.conditions.clear()
        env = bucket.environment()
        outcome = sealfs("doctor", PLACE, env=env, code=1)
        assert "BAD conditional writes: are ignored there; push with --single-writer" in outcome.text
        complaint = sealfs("push", source, PLACE, env=env, code=None).complaint
        assert "--single-writer" in complaint
        assert "pushed version 1" in sealfs("push", "--single-writer", source, PLACE, env=env).text


def test_attestation(sealfs: InProcess, tmp_path: Path) -> None:
    (tmp_path / "collateral.json").write_text(Machine().collateral())
    outcome = sealfs("doctor", "--attestation", "--collateral", tmp_path, code=None)
    for about in ("evidence", "/dev/sgx_enclave", "SGX quote service", "collateral sgx-", "synchronized clock"):
        assert f" {about}" in outcome.text
    assert "sgx_enclave" not in sealfs("doctor", code=None).text
