"""SGX evidence in Gramine: its pseudo-files in /dev/attestation.

Source: Gramine's documentation, "Attestation and Secret Provisioning". Nothing of this has run on SGX hardware.

Threading: the pseudo-files are the process's, so one provider at a time.
"""

from __future__ import annotations

import base64
from pathlib import Path

from sealfs.attestation.dcap import MAX_QUOTE_SIZE
from sealfs.attestation.evidence import Evidence
from sealfs.errors import EvidenceError


class GramineProvider:
    """Has the enclave that this process runs in quoted.

    Args:
        root: Where /dev is.
    """

    tee = "sgx"

    def __init__(self, root: Path = Path("/")) -> None:
        self._folder = root / "dev" / "attestation"

    def is_there(self) -> bool:
        """Whether this process runs in an enclave that can be attested."""
        try:
            return (self._folder / "attestation_type").read_text().strip() == "dcap"
        except (OSError, UnicodeDecodeError):
            return False

    def collect(self, report_data: bytes) -> Evidence:
        """See `EvidenceProvider`."""
        try:
            with (self._folder / "user_report_data").open("wb", buffering=0) as file:
                file.write(report_data)
            with (self._folder / "quote").open("rb") as file:
                quote = file.read(MAX_QUOTE_SIZE + 1)
        except OSError as error:
            raise EvidenceError(
                f"Gramine made no quote: {error.strerror}",
                'the manifest needs sgx.remote_attestation = "dcap", and the host a quote service (sealfs doctor)',
            ) from None
        if not quote or len(quote) > MAX_QUOTE_SIZE:
            raise EvidenceError(f"Gramine's quote has {len(quote)} bytes", "ask the host's administrator")
        return Evidence(self.tee, {"quote": base64.b64encode(quote).decode()})
