"""A broker's certificate: TLS wants one, but only its key counts, which clients pin.

Threading: stateless.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_YEARS = 20  # the key is pinned, so the certificate's dates protect nobody


def self_signed(key: ec.EllipticCurvePrivateKey, identity: str) -> bytes:
    """Return a self-signed certificate, PEM, for a key and the identity that clients know it by."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"sealfs broker {identity[7:23]}")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM)
