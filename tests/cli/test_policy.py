"""`sealfs policy`: verdicts in words, by what they say about real quotes and ones made of paper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from attestation.amd import MEASUREMENT, TCB, SnpMachine, SnpProvider
from attestation.hardware import MRENCLAVE, NOW, Machine, SyntheticProvider
from commands import InProcess
from cryptography.hazmat.primitives.serialization import Encoding

from sealfs.attestation.runner import RunnerProvider
from sealfs.attestation.sample import SampleProvider
from sealfs.keys import Identity

QUOTES = Path(__file__).parents[1] / "fixtures" / "quotes"
SNP = Path(__file__).parents[1] / "fixtures" / "snp"
REFUSED = 14
BOUND = bytes(range(64))
CLEAN = """\
loader.argv = ["python3", "-m", "sealfs.enclave.launch", "--out", "file:///results:/out", "--out-log", "log",
  "--", "train.py"]
fs.root.type = "tmpfs"
sgx.remote_attestation = "dcap"
"""


@pytest.fixture
def cli(tmp_path: Path) -> InProcess:
    return InProcess(tmp_path / "home")


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def synthetic(tmp_path: Path) -> list[object]:
    """Arguments to check an enclave on a machine made of paper: all but the policy."""
    machine = Machine()
    evidence = SyntheticProvider(machine).collect(BOUND).to_json()
    (tmp_path / "root.der").write_bytes(machine.root_der)
    return [
        written(tmp_path / "evidence.json", json.dumps(evidence)),
        *("--collateral", written(tmp_path / "collateral.json", machine.collateral())),
        *("--intel-root", tmp_path / "root.der"),
        *("--manifest", written(tmp_path / "workload.manifest", CLEAN)),
        *("--at", NOW.isoformat()),
    ]


def test_show_fills_in_what_is_not_said(cli: InProcess, tmp_path: Path) -> None:
    toml = written(tmp_path / "a.toml", f'[measurements]\nsgx = ["{MRENCLAVE}"]\n')
    outcome = cli("policy", "show", toml)
    assert outcome.text.startswith("L5: an SGX enclave")
    assert f"sgx {MRENCLAVE}" in outcome.text
    shown = cli("policy", "show", "--json", toml).json
    assert shown["tcb_statuses"] == ["UpToDate"]
    digest = shown.pop("digest")
    again = written(tmp_path / "a.json", json.dumps(shown))
    assert cli("policy", "show", "--json", again).json["digest"] == digest


def test_a_policy_that_is_none(cli: InProcess, tmp_path: Path) -> None:
    assert "unknown member 'lvel'" in cli("policy", "show", written(tmp_path / "p", 'lvel = "L5"'), code=2).stderr
    assert "cannot read" in cli("policy", "show", tmp_path / "nothing", code=9).stderr


def test_an_enclave_that_is_allowed(cli: InProcess, tmp_path: Path, synthetic: list[object]) -> None:
    policy = written(tmp_path / "p.toml", f'[measurements]\nsgx = ["{MRENCLAVE}"]\n')
    outcome = cli("policy", "check", *synthetic, "--policy", policy)
    assert "BAD" not in outcome.text
    assert "this process reaches L5 with 'sgx' evidence" in outcome.text
    assert f"not checked: to whom it is bound. It says {BOUND.hex()}" in outcome.text
    verdict = cli("policy", "check", *synthetic, "--policy", policy, "--report-data", BOUND.hex(), "--json").json
    assert (verdict["allowed"], verdict["level"], verdict["bound"]) == (True, "L5", True)
    assert verdict["claims"]["measurement"] == MRENCLAVE


def test_each_rule_has_its_line(cli: InProcess, tmp_path: Path, synthetic: list[object]) -> None:
    policy = written(tmp_path / "p.toml", "minimum_evaluation_number = 18")
    outcome = cli("policy", "check", *synthetic, "--policy", policy, code=REFUSED)
    assert "BAD measurement: demanded one of 0 allow-listed for 'sgx'; offered " + MRENCLAVE in outcome.text
    assert "BAD TCB evaluation number: demanded 18 or more; offered 17" in outcome.text
    assert "ok  debug: demanded off; offered off" in outcome.text


def test_the_strictest_policy_counts(cli: InProcess, tmp_path: Path, synthetic: list[object]) -> None:
    lax = written(tmp_path / "lax.toml", 'level = "L1"\ndevelopment = true')
    strict = written(tmp_path / "strict.toml", "")
    cli("policy", "check", *synthetic, "--policy", lax)
    cli("policy", "check", *synthetic, "--policy", lax, "--policy", strict, code=REFUSED)


def test_a_manifest_that_lets_the_host_in(cli: InProcess, tmp_path: Path, synthetic: list[object]) -> None:
    policy = written(tmp_path / "p.toml", f'[measurements]\nsgx = ["{MRENCLAVE}"]\n')
    weak = written(tmp_path / "weak.manifest", "loader.insecure__use_host_env = true\n" + CLEAN)
    outcome = cli("policy", "check", *synthetic, "--manifest", weak, "--policy", policy, code=REFUSED)
    assert "BAD manifest: demanded a registered manifest that may serve L5; offered one for L2" in outcome.text


def test_bound_to_something_else(cli: InProcess, tmp_path: Path, synthetic: list[object]) -> None:
    policy = written(tmp_path / "p.toml", "")
    check = ["policy", "check", *synthetic, "--policy", policy, "--report-data"]
    assert "another challenge" in cli(*check, bytes(64).hex(), code=REFUSED).text
    assert "not hexadecimal" in cli(*check, "xyz", code=2).stderr


def test_the_real_quotes(cli: InProcess, tmp_path: Path) -> None:
    policy = written(tmp_path / "p.toml", 'level = "L4"')
    for name, status in (("sgx_v3", "ConfigurationAndSWHardeningNeeded"), ("tdx_v4", "UpToDate")):
        files = [QUOTES / f"{name}_quote.bin", "--collateral", QUOTES / f"{name}_collateral.json"]
        check = ["policy", "check", *files, "--policy", policy]
        assert f"offered {status}" in cli(*check, "--at", "2025-06-27T05:00", code=REFUSED).text
        assert "expired at 2025-07-19" in cli(*check, "--at", "2025-07-20", code=REFUSED).text
        assert "clock says 2025-06-01" in cli(*check, "--at", "2025-06-01", code=REFUSED).text
    outcome = cli("policy", "check", QUOTES / "sgx_v3_debug_quote.bin", "--policy", policy, code=REFUSED)
    assert "debug enclave" in outcome.text


def test_a_real_snp_report(cli: InProcess, tmp_path: Path) -> None:
    policy = written(tmp_path / "p.toml", 'level = "L4"')
    check = ["policy", "check", SNP / "milan_v2_debug_report.bin", "--policy", policy, "--at", "2025-01-01"]
    assert "nobody has the VCEK" in cli(*check, code=REFUSED).text
    outcome = cli(*check, "--amd-certificate", SNP / "milan_vcek.der", code=REFUSED)
    assert "BAD debug: demanded off; offered on" in outcome.text


def test_a_revoked_snp_platform(cli: InProcess, tmp_path: Path) -> None:
    machine = SnpMachine()
    tcb = ", ".join(f"{part} = {svn}" for part, svn in TCB.items())
    demanded = f'level = "L4"\nminimum_tcb = {{ {tcb} }}\n[measurements]\nsnp = ["{MEASUREMENT}"]\n'
    policy = written(tmp_path / "p.toml", demanded)
    evidence = written(tmp_path / "e", json.dumps(SnpProvider(machine).collect(BOUND).to_json()))
    root = tmp_path / "root.pem"
    root.write_bytes(machine.root.public_bytes(Encoding.PEM))
    said = tmp_path / "said"
    said.mkdir()
    check = ["policy", "check", evidence, "--policy", policy, "--amd-root", root]
    check += ["--collateral", said, "--at", NOW.isoformat()]
    assert "BAD revocation list: demanded in date" in cli(*check, code=REFUSED).text
    (said / "milan.crl").write_bytes(machine.revocations())
    assert "reaches L4" in cli(*check).text
    (said / "milan.crl").write_bytes(machine.revocations(machine.authority))
    assert "AMD has revoked the certificate 'CN=SEV-Paper'" in cli(*check, code=REFUSED).text
    policy.write_text(f"revocation_list = false\n{demanded}")
    assert "AMD has revoked the certificate" in cli(*check, code=REFUSED).text


def test_runners_and_samples(cli: InProcess, tmp_path: Path) -> None:
    runner = Identity.generate()
    evidence = written(tmp_path / "e", json.dumps(RunnerProvider(runner, "5e" * 32).collect(BOUND).to_json()))
    policy = written(tmp_path / "p.toml", f'level = "L2"\n[measurements]\nsealfs-runner = ["{"5e" * 32}"]')
    manifest = written(tmp_path / "m", CLEAN)
    check = ["policy", "check", evidence, "--policy", policy, "--manifest", manifest]
    assert "not enrolled" in cli(*check, code=REFUSED).text
    assert "reaches L2" in cli(*check, "--runner", runner.signer).text
    sample = written(tmp_path / "s", json.dumps(SampleProvider().collect(BOUND).to_json()))
    assert "offered L1" in cli("policy", "check", sample, "--policy", policy, code=REFUSED).text


def test_what_is_no_evidence(cli: InProcess, tmp_path: Path) -> None:
    policy = written(tmp_path / "p.toml", "")
    for text in ("", "junk", "{}", "[]", '{"tee":"sgx","tee-evidence":{},"more":1}'):
        cli("policy", "check", written(tmp_path / "e", text), "--policy", policy, code=2)
    cli("policy", "check", tmp_path / "nothing", "--policy", policy, code=9)
    unverified = written(tmp_path / "e", '{"tee":"sgx","tee-evidence":{}}')
    assert "no valid 'quote'" in cli("policy", "check", unverified, "--policy", policy, code=REFUSED).text
