"""Verifies TPM 2.0 quotes: the one place that takes them apart.

Source: TCG, "TPM 2.0 Library", part 2: TPMS_ATTEST, TPMS_QUOTE_INFO, TPMT_SIGNATURE. Quotes and signatures with
SHA-256 only. That a key signs nothing but what its TPM says (`restricted`) is for whoever enrols it to see to.

Threading: stateless.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from sealfs.attestation.binding import REPORT_DATA_SIZE
from sealfs.attestation.canonical import Members
from sealfs.attestation.claims import Claims
from sealfs.attestation.levels import Level
from sealfs.errors import DocumentError, EvidenceError

TEE = "tpm"
TpmKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey

_MAX_SIZE = 4096  # bytes, of a quote and of a signature
_MAGIC = 0xFF544347  # TPM_GENERATED_VALUE: a restricted key signs nothing of others that starts with it
_ATTEST_QUOTE = 0x8018
_SHA256 = 0x000B
_RSASSA, _RSAPSS, _ECDSA = 0x0014, 0x0016, 0x0018
_DIGEST_SIZE = 32
_PCRS = 24


def load_key(data: bytes) -> TpmKey:
    """Read an attestation key's public half: PEM or DER, as `tpm2_readpublic -f pem` writes it.

    Raises:
        DocumentError: It is none, or of another kind.
    """
    try:
        key = (load_pem_public_key if b"-----BEGIN" in data else load_der_public_key)(data)
    except (ValueError, UnsupportedAlgorithm):
        raise DocumentError(
            "that is no public key, neither PEM nor DER", "tpm2_readpublic -f pem writes one"
        ) from None
    if not isinstance(key, TpmKey):
        raise DocumentError("a TPM's key is an RSA or an elliptic curve key")
    return key


def fingerprint(key: TpmKey) -> str:
    """Return the SHA-256 of a key's DER in hex, which names it."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def qualifying_data(report_data: bytes) -> bytes:
    """Return what a TPM quotes for 64 bytes, of which not every TPM takes so many."""
    return hashlib.sha256(report_data).digest()


def encode(quoted: bytes, signature: bytes, public: bytes) -> dict[str, str]:
    """Return the body of evidence, but for the report data."""
    return {
        "quoted": base64.b64encode(quoted).decode(),
        "signature": base64.b64encode(signature).decode(),
        "key": fingerprint(load_key(public)),
    }


class _Reader:
    """Takes big-endian fields off a structure, which has to end with the last of them."""

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._what = what

    def take(self, size: int) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        if len(taken) < size:
            raise DocumentError(f"{self._what} was cut")
        return taken

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        return self.take(self.integer(2))

    def end(self) -> None:
        if self._data:
            raise DocumentError(f"{self._what} goes on behind its end")


@dataclass(frozen=True)
class Quote:
    """What a TPM says.

    Attributes:
        nonce: What it was asked with.
        pcrs: Which it quotes, as policies write them.
        digest: SHA-256 over them.
        resets: How often the machine was started.
        firmware: The TPM's own version.
    """

    nonce: bytes
    pcrs: str
    digest: bytes
    resets: int
    firmware: int

    @classmethod
    def parse(cls, data: bytes) -> Quote:
        """Read a TPMS_ATTEST.

        Raises:
            DocumentError: It is none, or not of a quote.
        """
        reader = _Reader(data, "the TPM's quote")
        if reader.integer(4) != _MAGIC:
            raise DocumentError("the TPM's quote was not made by a TPM")
        if reader.integer(2) != _ATTEST_QUOTE:
            raise DocumentError("the TPM attests something else than PCRs")
        reader.sized()  # the signer's name: which key signed, its signature shows
        nonce = reader.sized()
        _clock, resets, _restarts, _safe, firmware = struct.unpack(">QIIBQ", reader.take(25))
        if reader.integer(4) != 1 or reader.integer(2) != _SHA256:
            raise DocumentError("the TPM quotes something else than its SHA-256 PCRs")
        selected = int.from_bytes(reader.take(reader.integer(1)), "little")
        digest = reader.sized()
        reader.end()
        numbers = [number for number in range(_PCRS) if selected >> number & 1]
        if selected >> _PCRS or not numbers or len(digest) != _DIGEST_SIZE:
            raise DocumentError("the TPM quotes PCRs that there are not, none, or with another digest")
        return cls(nonce, f"sha256:{','.join(map(str, numbers))}", digest, resets, firmware)


def _verify(key: TpmKey, signature: bytes, data: bytes) -> None:
    """Check a TPMT_SIGNATURE.

    Raises:
        InvalidSignature: It is another key's, or over something else.
        DocumentError: It is none.
    """
    reader = _Reader(signature, "the TPM's signature")
    scheme, algorithm = reader.integer(2), reader.integer(2)
    if algorithm != _SHA256:
        raise DocumentError("the TPM signs with something else than SHA-256")
    if isinstance(key, rsa.RSAPublicKey) and scheme in (_RSASSA, _RSAPSS):
        raw = reader.sized()
        reader.end()
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.AUTO)
        key.verify(raw, data, pss if scheme == _RSAPSS else padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(key, ec.EllipticCurvePublicKey) and scheme == _ECDSA:
        r, s = reader.sized(), reader.sized()
        reader.end()
        der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
        key.verify(der, data, ec.ECDSA(hashes.SHA256()))
    else:
        raise InvalidSignature


class TpmVerifier:
    """Believes the attestation keys that were enrolled.

    Args:
        enrolled: Their public halves.
    """

    def __init__(self, enrolled: Collection[TpmKey]) -> None:
        self._enrolled = {fingerprint(key): key for key in enrolled}

    def verify(self, body: Members, at: datetime) -> Claims:
        """See `KindVerifier`."""
        del at
        name = body.hexadecimal("key", 32).hex()
        report_data = body.base64("report_data", REPORT_DATA_SIZE)
        quoted = body.base64("quoted", _MAX_SIZE)
        if name not in self._enrolled:
            raise EvidenceError(f"the TPM key {name} is not enrolled here", "its owner enrols it at the broker")
        try:
            _verify(self._enrolled[name], body.base64("signature", _MAX_SIZE), quoted)
        except InvalidSignature:
            raise EvidenceError(f"the TPM's quote bears no valid signature of the key {name}") from None
        quote = Quote.parse(quoted)
        if not hmac.compare_digest(quote.nonce, qualifying_data(report_data)):
            raise EvidenceError("the TPM's quote answers another challenge", "collect it anew for this challenge")
        return Claims(
            tee=TEE,
            ceiling=Level.L3,
            report_data=report_data,
            debug=False,
            measurement=quote.digest.hex(),
            signer=name,
            pcrs=quote.pcrs,
            details={"resets": str(quote.resets), "TPM firmware": f"{quote.firmware:#x}"},
        )
