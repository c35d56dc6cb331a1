"""Which evidence can be made here.

Threading: stateless.
"""

from __future__ import annotations

from pathlib import Path

from sealfs.attestation.evidence import EvidenceProvider
from sealfs.attestation.gramine import GramineProvider
from sealfs.attestation.tpm import TpmProvider
from sealfs.attestation.tsm import TsmProvider


def detect(root: Path = Path("/")) -> EvidenceProvider | None:
    """Return the strongest provider that this environment has; None if it can prove nothing. Never `sample`.

    Args:
        root: Where /dev and /sys are; tests have a folder that stands in for hardware.
    """
    enclave = GramineProvider(root)
    if enclave.is_there():
        return enclave
    guest = TsmProvider.find(root)
    if guest is not None:
        return guest
    chip = TpmProvider(root=root)
    return chip if chip.is_there() else None
