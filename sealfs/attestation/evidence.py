"""Evidence as it travels, and the interface of what makes it.

Threading: immutable; a provider is for one thread.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sealfs.attestation.canonical import MAX_SIZE, Members, parse_json
from sealfs.errors import DocumentError

SNP_REPORT_SIZE = 1184  # bytes
_TEE_TYPES = {0: "sgx", 0x81: "tdx"}  # of Intel's quotes

KINDS = ("sgx", "tdx", "snp", "tpm", "sealfs-runner", "sample")


@dataclass(frozen=True)
class Evidence:
    """What an environment offers as proof.

    Attributes:
        tee: Its kind, by KBS's name ("sgx", "tdx", "snp", "tpm", "sample") or ours ("sealfs-runner").
        body: The JSON object that is sent as "tee-evidence"; what is in it is the matter of the kind's verifier.
    """

    tee: str
    body: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object with both, as files hold it for `sealfs policy check`."""
        return {"tee": self.tee, "tee-evidence": dict(self.body)}

    @classmethod
    def parse(cls, data: bytes) -> Evidence:
        """Read such a file.

        Raises:
            DocumentError: It is none.
        """
        what = "the evidence"
        document = parse_json(data, what)
        members = Members(document, what).only("tee", "tee-evidence")
        members.object("tee-evidence")
        return cls(members.text("tee", r"[a-z0-9-]{1,40}"), document["tee-evidence"])

    @classmethod
    def from_raw(cls, data: bytes) -> Evidence:
        """Wrap a bare SGX or TDX quote, or a bare SNP report, as drivers give them.

        Raises:
            DocumentError: It is none of them.
        """
        encoded = base64.b64encode(data[:MAX_SIZE]).decode()
        if len(data) == SNP_REPORT_SIZE:
            return cls("snp", {"report": encoded})
        if len(data) >= 8:
            version, _, tee = struct.unpack_from("<HHI", data)
            if version == 3 or (version in (4, 5) and tee in _TEE_TYPES):
                return cls("sgx" if version == 3 else _TEE_TYPES[tee], {"quote": encoded})
        raise DocumentError("that is no evidence: neither its JSON, nor a quote, nor an SNP report")


class EvidenceProvider(Protocol):
    """Makes evidence of one kind about the environment that it runs in."""

    tee: str

    def collect(self, report_data: bytes) -> Evidence:
        """Return evidence that is bound to 64 bytes.

        Raises:
            EvidenceError: The hardware or its driver refused.
        """
