"""Where a broker is and how it is known: one string that people can pass on.

    https://keys.hospital.example:8600#sha256:6b51...

What follows the `#` is the digest of the broker's TLS public key. With it no certificate authority is asked, and
nobody can stand in for the broker; without it the usual authorities are.

Threading: immutable values.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sealfs.errors import UsageError

IDENTITY = r"sha256:[0-9a-f]{64}"
DEFAULT_PORT = 8600
_HOST = re.compile(r"[A-Za-z0-9._:%-]{1,255}")
_MAX_LENGTH = 1024
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def identity_of(key: PublicKeyTypes) -> str:
    """Return the identity of whoever has this TLS key: `sha256:` and the hex digest of its SubjectPublicKeyInfo."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"sha256:{hashlib.sha256(spki).hexdigest()}"


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """The address of a broker.

    Attributes:
        host: Name or IP address.
        port: TCP port.
        path: What comes before the protocol's paths; empty for our own brokers.
        identity: Who must be there; None for whom a certificate authority vouches for.
        tls: Whether it is HTTPS; without, only this machine is talked to.
    """

    host: str
    port: int
    path: str = ""
    identity: str | None = None
    tls: bool = True

    @classmethod
    def parse(cls, text: str) -> BrokerAddress:
        """Read an address.

        Raises:
            UsageError: It is none, or would send keys over a network in the clear.
        """
        wrong = UsageError(
            f"'{text[:200]}' is no broker's address",
            "such as https://host:8600#sha256:..., as it says itself",
        )
        if len(text) > _MAX_LENGTH:
            raise wrong
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise wrong from None
        host, identity = parts.hostname or "", parts.fragment or None
        is_plain = parts.scheme == "http"
        if (
            parts.scheme not in {"https", "http"}
            or not _HOST.fullmatch(host)
            or parts.query
            or parts.username is not None
            or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*/?", parts.path)
            or (identity is not None and not re.fullmatch(IDENTITY, identity))
        ):
            raise wrong
        if is_plain and (host not in _LOOPBACK or identity is not None):
            raise UsageError("a broker is asked by HTTPS only", "write https://")
        return cls(host, port or (80 if is_plain else 443), parts.path.rstrip("/"), identity, not is_plain)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "https" if self.tls else "http"
        identity = f"#{self.identity}" if self.identity else ""
        return f"{scheme}://{host}:{self.port}{self.path}{identity}"
