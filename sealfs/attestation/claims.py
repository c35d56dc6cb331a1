"""What verified evidence says, in the same words for every kind.

Threading: immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from sealfs.attestation.levels import Level


@dataclass(frozen=True)
class Claims:
    """What a verifier found to be true of an environment; none of it is judged yet.

    Attributes:
        tee: The kind of evidence.
        ceiling: What this kind can reach at most.
        report_data: The 64 bytes that it is bound to.
        debug: Whether the host may look into it.
        measurement: Lower-case hex: MRENCLAVE; for TDX the SHA-384 over MRTD and RTMR 0 to 3; SNP's launch
            measurement; the TPM's PCR digest; the SHA-256 of a runner's manifest; empty for `sample`.
        signer: Hex of MRSIGNER or of SNP's ID key digest; a runner's signer string; the SHA-256 of a TPM's key.
        product: ISVPRODID.
        svn: ISVSVN, or SNP's guest SVN.
        config_id: Hex of what the host configured at launch (CONFIGID, MRCONFIGID, HOST_DATA); None if all zeros.
        tcb_status: Intel's word for how up to date the platform is.
        advisories: Intel's advisories that apply to it.
        tcb_evaluation_number: Which of Intel's evaluations the status comes from.
        collateral_expires: When what proves the status, or its certificates, is out of date; for SNP when the
            first of AMD's revocation lists that were asked is, None if none was there.
        pcrs: Which PCRs a TPM's measurement covers, such as "sha256:0,1,7".
        tcb: SNP's reported TCB, part by part.
        details: More, for people.
    """

    tee: str
    ceiling: Level
    report_data: bytes
    debug: bool
    measurement: str
    signer: str | None = None
    product: int | None = None
    svn: int | None = None
    config_id: str | None = None
    tcb_status: str | None = None
    advisories: tuple[str, ...] = ()
    tcb_evaluation_number: int | None = None
    collateral_expires: datetime | None = None
    pcrs: str | None = None
    tcb: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, str] = field(default_factory=dict)
