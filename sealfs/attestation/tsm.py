"""TDX and SEV-SNP evidence in a Linux guest: the kernel's reports in configfs.

Source: Linux, Documentation/ABI/testing/configfs-tsm-report. Nothing of this has run on TDX or SNP hardware.

Threading: each report has a folder of its own, so any.
"""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sealfs.attestation import snp
from sealfs.attestation.dcap import MAX_QUOTE_SIZE
from sealfs.attestation.evidence import Evidence
from sealfs.errors import EvidenceError

_KINDS = {"tdx_guest": "tdx", "sev_guest": "snp"}  # by the kernel's name of what makes reports
_TRIES = 5  # a report during which somebody wrote is made anew


class TsmProvider:
    """Has the guest that this process runs in attested.

    Args:
        tee: "tdx" or "snp"; see `find`.
        root: Where /sys is.
    """

    def __init__(self, tee: str, root: Path = Path("/")) -> None:
        self.tee = tee
        self._reports = _reports(root)

    @classmethod
    def find(cls, root: Path = Path("/")) -> TsmProvider | None:
        """Return a provider for the kind of guest that this is; None if it is none, or may not ask."""
        if not _reports(root).is_dir():
            return None
        try:
            with _report(_reports(root)) as folder:
                tee = _KINDS.get((folder / "provider").read_text().strip())
        except OSError:
            return None
        return None if tee is None else cls(tee, root)

    def collect(self, report_data: bytes) -> Evidence:
        """See `EvidenceProvider`."""
        try:
            for _ in range(_TRIES):
                with _report(self._reports) as folder:
                    report = self._made(folder, report_data)
                if report is not None:
                    return self._evidence(*report)
        except OSError as error:
            raise EvidenceError(
                f"the kernel made no report: {error.strerror}",
                "reports are for root; the host has to offer a quote service for TDX",
            ) from None
        raise EvidenceError("somebody else kept writing into our report", "what else runs here as root?")

    @staticmethod
    def _made(folder: Path, report_data: bytes) -> tuple[bytes, bytes] | None:
        """Return a report and what came with it; None if somebody wrote into its folder meanwhile."""
        with (folder / "inblob").open("wb", buffering=0) as file:
            file.write(report_data)
        before = (folder / "generation").read_text()
        report = _read(folder / "outblob", MAX_QUOTE_SIZE)
        try:
            certificates = _read(folder / "auxblob", snp.MAX_TABLE_SIZE)
        except FileNotFoundError:
            certificates = b""  # TDX has none, nor has an SNP host that gives none
        return (report, certificates) if (folder / "generation").read_text() == before else None

    def _evidence(self, report: bytes, certificates: bytes) -> Evidence:
        if self.tee == "snp":
            return Evidence(self.tee, snp.encode(report, certificates))
        return Evidence(self.tee, {"quote": base64.b64encode(report).decode()})


def _reports(root: Path) -> Path:
    return root / "sys" / "kernel" / "config" / "tsm" / "report"


@contextmanager
def _report(reports: Path) -> Iterator[Path]:
    folder = reports / f"sealfs-{os.getpid()}-{secrets.token_hex(8)}"
    folder.mkdir()
    try:
        yield folder
    finally:
        folder.rmdir()


def _read(path: Path, max_size: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(max_size + 1)
    if len(data) > max_size:
        raise EvidenceError(f"the kernel's {path.name} is longer than {max_size} bytes")
    return data
