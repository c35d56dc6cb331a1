"""Turns evidence into claims, whatever its kind; what is not proven is an error.

Threading: a `Verifier` can be shared by threads.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from cryptography import x509

from sealfs.attestation.canonical import Members
from sealfs.attestation.claims import Claims
from sealfs.attestation.collateral import CollateralSource
from sealfs.attestation.dcap import DcapVerifier
from sealfs.attestation.evidence import KINDS, Evidence
from sealfs.attestation.revocation import RevocationFolder
from sealfs.attestation.runner import RunnerVerifier
from sealfs.attestation.sample import SampleVerifier
from sealfs.attestation.snp import SnpVerifier
from sealfs.attestation.tpm_quote import TpmKey, TpmVerifier
from sealfs.errors import DocumentError, EvidenceError
from sealfs.keys import Signer


class KindVerifier(Protocol):
    """Verifies one kind of evidence."""

    def verify(self, body: Members, at: datetime) -> Claims:
        """Return what evidence proves; to whom it is bound is compared by the caller.

        Raises:
            EvidenceError: It does not verify.
            DocumentError: It is malformed.
        """


class Verifier:
    """Verifies evidence against what its operator has enrolled; a kind without roots is refused.

    Args:
        runners: Signers of enrolled runners.
        tpm_keys: Enrolled attestation keys.
        allow_sample: Whether evidence that proves nothing may reach L1.
        collateral: Where Intel's statements about SGX and TDX platforms come from; None refuses both.
        intel_root: DER of the root certificate for SGX and TDX; None for Intel's own.
        amd_roots: Certificates to believe for SEV-SNP; None for AMD's own.
        amd_certificates: More that chains may need and guests need not bring, such as chips' VCEKs.
        amd_revocations: AMD's revocation lists; None has none, and policies demand one unless they say otherwise.
    """

    def __init__(
        self,
        *,
        runners: Collection[Signer] = (),
        tpm_keys: Collection[TpmKey] = (),
        allow_sample: bool = False,
        collateral: CollateralSource | None = None,
        intel_root: bytes | None = None,
        amd_roots: Collection[x509.Certificate] | None = None,
        amd_certificates: Collection[x509.Certificate] = (),
        amd_revocations: RevocationFolder | None = None,
    ) -> None:
        self._kinds: dict[str, KindVerifier] = {
            "sealfs-runner": RunnerVerifier(runners),
            "tpm": TpmVerifier(tpm_keys),
            "snp": SnpVerifier(amd_roots, amd_certificates, amd_revocations),
        }
        if collateral is not None:
            self._kinds["sgx"] = DcapVerifier("sgx", collateral, intel_root)
            self._kinds["tdx"] = DcapVerifier("tdx", collateral, intel_root)
        if allow_sample:
            self._kinds["sample"] = SampleVerifier()

    def verify(self, evidence: Evidence, report_data: bytes, at: datetime) -> Claims:
        """Return what evidence proves about whoever was challenged.

        Args:
            evidence: Theirs.
            report_data: The 64 bytes that it has to be bound to.
            at: The time, with a zone.

        Raises:
            EvidenceError: It does not verify, is malformed, or is bound to something else.
        """
        claims = self.examine(evidence, at)
        if not hmac.compare_digest(claims.report_data, report_data):
            raise EvidenceError(
                "the evidence is bound to another challenge, key or broker",
                "evidence serves once: collect it anew for this challenge",
            )
        return claims

    def examine(self, evidence: Evidence, at: datetime) -> Claims:
        """Return what evidence proves about whoever it was made for: to explain it, never to release a key for it.

        Raises:
            EvidenceError: It does not verify, or is malformed.
        """
        if evidence.tee not in KINDS:
            known = f"known: {', '.join(KINDS)}"
            raise EvidenceError(f"evidence of the unknown kind '{evidence.tee[:40]}'", known)
        if evidence.tee not in self._kinds:
            raise EvidenceError(f"'{evidence.tee}' evidence is not accepted here", "the broker's operator decides")
        try:
            return self._kinds[evidence.tee].verify(Members(evidence.body, "the evidence"), at)
        except DocumentError as error:
            raise EvidenceError(error.message, error.hint) from None
