"""An enrolled runner's word for the manifest that it runs: no hardware vouches for it, so it reaches L2.

The signature is a DSSE envelope's, over what is run and the challenge together: neither can be exchanged later.

Threading: stateless.
"""

from __future__ import annotations

import base64
from collections.abc import Collection
from datetime import datetime

from sealfs.attestation.binding import REPORT_DATA_SIZE
from sealfs.attestation.canonical import Members, canonical
from sealfs.attestation.claims import Claims
from sealfs.attestation.evidence import Evidence
from sealfs.attestation.levels import Level
from sealfs.dsse import DsseError, Envelope, read_envelope
from sealfs.errors import EvidenceError, UsageError
from sealfs.keys import Identity, Signer

TEE = "sealfs-runner"
PAYLOAD_TYPE = "application/vnd.sealfs.runner+json"


class RunnerProvider:
    """Signs for a runner.

    Args:
        identity: The runner's; its signer is what brokers enrol.
        manifest: SHA-256 of the manifest that it runs, in lower-case hex.
    """

    tee = TEE

    def __init__(self, identity: Identity, manifest: str) -> None:
        self._identity = identity
        self._manifest = manifest

    def collect(self, report_data: bytes) -> Evidence:
        """See `EvidenceProvider`."""
        statement = {
            "manifest": self._manifest,
            "report_data": base64.b64encode(report_data).decode(),
            "runner": str(self._identity.signer),
        }
        envelope = Envelope(canonical(statement), PAYLOAD_TYPE, {})
        envelope.sign(self._identity.signing_key())
        return Evidence(TEE, envelope.to_dict())


class RunnerVerifier:
    """Believes the runners that were enrolled.

    Args:
        enrolled: Their signers.
    """

    def __init__(self, enrolled: Collection[Signer]) -> None:
        self._enrolled = frozenset(enrolled)

    def verify(self, body: Members, at: datetime) -> Claims:
        """See `KindVerifier`."""
        del at
        envelope = read_envelope(body, PAYLOAD_TYPE, "runner's statement")
        statement = Members.parse(envelope.payload, "the runner's statement")
        try:
            runner = Signer.parse(statement.text("runner"))
        except UsageError as error:
            raise EvidenceError(f"the runner's statement: {error.message}") from None
        if runner not in self._enrolled:
            raise EvidenceError(f"the runner {runner} is not enrolled here", "its owner enrols it at the broker")
        try:
            envelope.verify([runner.verification_key()], 1)
        except (DsseError, ValueError):
            raise EvidenceError(f"the statement bears no valid signature of the runner {runner}") from None
        return Claims(
            tee=TEE,
            ceiling=Level.L2,
            report_data=statement.base64("report_data", REPORT_DATA_SIZE),
            debug=False,
            measurement=statement.hexadecimal("manifest", 32).hex(),
            signer=str(runner),
            details={"protection": "none: the host sees everything"},
        )
