"""Evidence that proves nothing, for development: it has KBS's form and name, and reaches L1.

Threading: stateless.
"""

from __future__ import annotations

import base64
from datetime import datetime

from sealfs.attestation.binding import REPORT_DATA_SIZE
from sealfs.attestation.canonical import Members
from sealfs.attestation.claims import Claims
from sealfs.attestation.evidence import Evidence
from sealfs.attestation.levels import Level

TEE = "sample"


class SampleProvider:
    """Says whatever it is asked to say. Never chosen by `detect`."""

    tee = TEE

    def collect(self, report_data: bytes) -> Evidence:
        """See `EvidenceProvider`."""
        return Evidence(TEE, {"svn": "1", "report_data": base64.b64encode(report_data).decode()})


class SampleVerifier:
    """Checks the binding, so that the protocol is exercised as with real evidence."""

    def verify(self, body: Members, at: datetime) -> Claims:
        """See `KindVerifier`."""
        del at
        return Claims(
            tee=TEE,
            ceiling=Level.L1,
            report_data=body.base64("report_data", REPORT_DATA_SIZE),
            debug=True,
            measurement="",
            details={"protection": "none"},
        )
