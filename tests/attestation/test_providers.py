"""Evidence from device files that behave as drivers' do, verified; and environments that can prove nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from attestation.devices import served
from attestation.hardware import NOW
from sealfs.attestation.collateral import CollateralFolder
from sealfs.attestation.detect import detect
from sealfs.attestation.evidence import EvidenceProvider
from sealfs.attestation.gramine import GramineProvider
from sealfs.attestation.snp import load_certificates
from sealfs.attestation.tsm import TsmProvider
from sealfs.attestation.verify import Verifier
from sealfs.errors import EvidenceError

BOUND = bytes(range(64))
needs_fuse = pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")


def verifier(folder: Path) -> Verifier:
    return Verifier(
        collateral=CollateralFolder(folder / "collateral.json"),
        intel_root=(folder / "intel.der").read_bytes(),
        amd_roots=load_certificates((folder / "amd.pem").read_bytes()),
    )


def found(root: Path) -> EvidenceProvider:
    provider = detect(root)
    assert provider is not None
    return provider


@needs_fuse
@pytest.mark.parametrize("tee", ["sgx", "tdx", "snp"])
def test_what_is_there_is_found_and_its_evidence_verifies(tmp_path: Path, tee: str) -> None:
    with served(tmp_path, tee) as root:
        provider = found(root)
        assert provider.tee == tee
        for bound in (BOUND, bytes(64), os.urandom(64)):
            claims = verifier(tmp_path).verify(provider.collect(bound), bound, NOW)
            assert claims.tee == tee
        with pytest.raises(EvidenceError, match="another challenge"):
            verifier(tmp_path).verify(provider.collect(BOUND), bytes(64), NOW)
        if tee != "sgx":
            assert not os.listdir(root / "sys/kernel/config/tsm/report"), "reports were left behind"


@needs_fuse
def test_a_report_that_somebody_wrote_into_is_made_anew(tmp_path: Path) -> None:
    with served(tmp_path, "tdx", disturbed=3) as root:
        claims = verifier(tmp_path).verify(found(root).collect(BOUND), BOUND, NOW)
        assert claims.report_data == BOUND


@needs_fuse
def test_a_report_that_is_always_written_into(tmp_path: Path) -> None:
    with served(tmp_path, "tdx", disturbed=100) as root, pytest.raises(EvidenceError, match="kept writing"):
        found(root).collect(BOUND)


def test_an_environment_that_can_prove_nothing(tmp_path: Path) -> None:
    assert detect(tmp_path) is None
    for provider in (GramineProvider(tmp_path), TsmProvider("tdx", tmp_path)):
        with pytest.raises(EvidenceError):
            provider.collect(BOUND)


def test_gramine_without_attestation_or_with_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "dev/attestation"
    folder.mkdir(parents=True)
    for kind in ("none", "epid", ""):
        (folder / "attestation_type").write_text(kind)
        assert detect(tmp_path) is None


def test_gramine_that_gives_an_empty_quote_or_a_huge_one(tmp_path: Path) -> None:
    folder = tmp_path / "dev/attestation"
    folder.mkdir(parents=True)
    (folder / "user_report_data").touch()
    for quote in (b"", b"q" * (1 << 20)):
        (folder / "quote").write_bytes(quote)
        with pytest.raises(EvidenceError, match="quote has"):
            GramineProvider(tmp_path).collect(BOUND)
