"""Evidence that proves nothing, for development: it has KBS's form and name, and reaches L1.

Confidential containers' has the digest itself where hardware's has it padded to 64 bytes, and so has this.

Threading: stateless.
"""

from __future__ import annotations

import base64
from datetime import datetime

from sealfs.attestation.binding import DIGEST_SIZE, REPORT_DATA_SIZE
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
        digest = report_data if any(report_data[DIGEST_SIZE:]) else report_data[:DIGEST_SIZE]
        return Evidence(TEE, {"svn": "1", "report_data": base64.b64encode(digest).decode()})


class SampleVerifier:
    """Checks the binding, so that the protocol is exercised as with real evidence."""

    def verify(self, body: Members, at: datetime) -> Claims:
        """See `KindVerifier`."""
        del at
        return Claims(
            tee=TEE,
            ceiling=Level.L1,
            report_data=body.base64("report_data", REPORT_DATA_SIZE).ljust(REPORT_DATA_SIZE, b"\0"),
            debug=True,
            measurement="",
            details={"protection": "none"},
        )
