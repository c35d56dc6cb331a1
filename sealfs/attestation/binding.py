"""What evidence is bound to: this challenge, this run's key, this broker, and nothing else.

The confidential containers' Key Broker Service defines it (https://github.com/confidential-containers/trustee,
kbs/docs/kbs_attestation_protocol.md): REPORTDATA is the SHA-384 of the runtime data's canonical JSON, padded with
zeros to 64 bytes. Test vectors: docs/report-data-vectors.json.

Threading: immutable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sealfs.attestation.canonical import canonical
from sealfs.errors import DocumentError

REPORT_DATA_SIZE = 64
DIGEST_SIZE = 48  # bytes of it, of SHA-384; the rest is zeros
_OURS = frozenset({"nonce", "tee-pubkey"})


@dataclass(frozen=True)
class RuntimeData:
    """What an environment says when it is challenged; its evidence has the digest of it.

    Attributes:
        nonce: The challenge, as the broker wrote it.
        tee_pubkey: The public key of this run as a JWK (RFC 7517); secrets come encrypted to it.
        extra: Members beyond KBS's two. Our brokers want "broker", the identity that the client saw
            ("sha256:" and the hex digest of its TLS public key), and take "bound", the hex digest of whatever the
            caller binds, such as a contract. Empty for other brokers.
    """

    nonce: str
    tee_pubkey: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if _OURS & set(self.extra):
            raise DocumentError("the extra runtime data has a member of the protocol's own")

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that is sent as "runtime-data"."""
        return {"nonce": self.nonce, "tee-pubkey": dict(self.tee_pubkey), **self.extra}

    def report_data(self) -> bytes:
        """Return the 64 bytes that go into the evidence.

        Raises:
            DocumentError: Something in it has no canonical JSON.
        """
        return hashlib.sha384(canonical(self.to_json())).digest().ljust(REPORT_DATA_SIZE, b"\0")
