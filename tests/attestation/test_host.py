"""What a host needs for attestation, and that each thing missing is said."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from attestation.amd import SnpMachine
from attestation.devices import served
from attestation.hardware import NOW, Machine
from sealfs.attestation.collateral import CollateralFolder
from sealfs.attestation.host import check_host
from sealfs.attestation.revocation import RevocationFolder

DAY = timedelta(days=1)


def bad(root: Path, folder: Path, at: timedelta = timedelta()) -> dict[str, str]:
    checks = check_host(CollateralFolder(folder), RevocationFolder(folder), NOW + at, root)
    return {check.about: check.words for check in checks if not check.good}


def test_a_machine_that_has_nothing(tmp_path: Path) -> None:
    missing = bad(tmp_path, tmp_path / "collateral")
    assert missing["evidence"].endswith("reaches L1")
    assert "firmware" in missing["/dev/sgx_enclave"]
    assert {"SGX quote service", "TDX quote service", "collateral", "/dev/tpmrm0"} <= set(missing)


def test_a_host_that_has_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("dev/sgx_enclave", "dev/sgx_provision", "dev/attestation/quote", "dev/tpmrm0"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "dev/attestation/attestation_type").write_text("dcap")
    (tmp_path / "sys/kernel/config/tsm/report").mkdir(parents=True)
    (tmp_path / "collateral").mkdir()
    (tmp_path / "collateral/sgx.json").write_text(Machine().collateral())
    sockets = []
    for path in ("var/run/aesmd/aesm.socket", "var/run/tdx-qgs/qgs.socket"):
        (tmp_path / path).parent.mkdir(parents=True)
        monkeypatch.chdir((tmp_path / path).parent)  # a socket's path may not be long
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(os.path.basename(path))
        sockets.append(listening)
    assert set(bad(tmp_path, tmp_path / "collateral")) <= {"synchronized clock"}
    for listening in sockets:
        listening.close()


@pytest.mark.parametrize(
    ("at", "words"), [(-2 * DAY, "set this machine's clock"), (30 * DAY, "expired at"), (25 * DAY, None)]
)
def test_collateral_and_the_clock(tmp_path: Path, at: timedelta, words: str | None) -> None:
    (tmp_path / "sgx.json").write_text(Machine().collateral())
    found = [text for about, text in bad(tmp_path, tmp_path, at).items() if about.startswith("collateral")]
    assert not found if words is None else words in found[0]


@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="there is no /dev/fuse")
def test_inside_of_a_guest(tmp_path: Path) -> None:
    with served(tmp_path, "snp") as root:
        assert not {"evidence", "/sys/kernel/config/tsm/report"} & set(bad(root, tmp_path))


def test_amds_lists(tmp_path: Path) -> None:
    (tmp_path / "ask.crl").write_bytes(SnpMachine().revocations())
    assert "revocation list ask.crl" not in bad(tmp_path, tmp_path)
    assert "set this machine's clock" in bad(tmp_path, tmp_path, -90 * DAY)["revocation list ask.crl"]
    assert "expired" in bad(tmp_path, tmp_path, 90 * DAY)["revocation list ask.crl"]
    (tmp_path / "junk.crl").write_bytes(b"junk")
    assert "junk.crl is no revocation list" in bad(tmp_path, tmp_path)["revocation lists"]
