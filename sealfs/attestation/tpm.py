"""TPM 2.0 evidence: a quote of PCRs, made by tpm2-tools with an attestation key that brokers have enrolled.

Threading: stateless.
"""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from pathlib import Path

from sealfs.attestation.evidence import Evidence
from sealfs.attestation.tpm_quote import TEE, encode, qualifying_data
from sealfs.errors import EvidenceError

DEFAULT_KEY = "0x81010002"  # a persistent handle in the range that the TCG leaves to owners
DEFAULT_PCRS = "sha256:0,1,2,3,4,5,6,7"  # firmware, its configuration, boot loader, secure boot
_TIMEOUT = 60.0  # seconds; a discrete TPM takes one or two


class TpmProvider:
    """Has a TPM quote its PCRs.

    Args:
        key: Handle or context file of a restricted signing key; docs/attestation.md has how to make one.
        pcrs: What to quote, of the SHA-256 bank.
        tcti: How tpm2-tools reach the TPM; None for the device.
        root: Where /dev is.
    """

    tee = TEE

    def __init__(
        self, key: str = DEFAULT_KEY, pcrs: str = DEFAULT_PCRS, tcti: str | None = None, root: Path = Path("/")
    ) -> None:
        self._key = key
        self._pcrs = pcrs
        self._device = root / "dev" / "tpmrm0"
        self._tcti = tcti or f"device:{self._device}"
        self._given = tcti is not None

    def is_there(self) -> bool:
        """Whether there is a TPM that has the key."""
        if not self._given and not self._device.exists():
            return False
        try:
            self._run("readpublic", "-Q", "-c", self._key)
        except EvidenceError:
            return False
        return True

    def collect(self, report_data: bytes) -> Evidence:
        """See `EvidenceProvider`."""
        with tempfile.TemporaryDirectory(prefix="sealfs-") as folder:
            quoted, signature, public = (Path(folder) / name for name in ("quoted", "signature", "public"))
            nonce = qualifying_data(report_data).hex()
            self._run(
                *("quote", "-Q", "-c", self._key, "-l", self._pcrs, "-q", nonce),
                *("-g", "sha256", "-m", str(quoted), "-s", str(signature)),
            )
            self._run("readpublic", "-Q", "-c", self._key, "-f", "der", "-o", str(public))
            body = encode(quoted.read_bytes(), signature.read_bytes(), public.read_bytes())
        return Evidence(TEE, {**body, "report_data": base64.b64encode(report_data).decode()})

    def _run(self, *command: str) -> None:
        try:
            done = subprocess.run(
                ["tpm2", *command],
                env={**os.environ, "TPM2TOOLS_TCTI": self._tcti},
                capture_output=True,
                text=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except FileNotFoundError:
            raise EvidenceError(
                "a TPM is asked by tpm2-tools, which is not installed", "install tpm2-tools"
            ) from None
        except subprocess.TimeoutExpired:
            raise EvidenceError(
                "the TPM did not answer", "'tpm2 getrandom 8' tells whether it does at all"
            ) from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise EvidenceError(
                f"tpm2 {command[0]} failed: {last}",
                f"make a key at {self._key} and have it enrolled: docs/attestation.md has the commands",
            )
