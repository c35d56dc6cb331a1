"""The protocol's cryptography: a key pair for one run, secrets encrypted to it, and tokens that stand for sessions.

JWE (RFC 7516) with A256GCM, by jwcrypto. A key is P-256 or P-521 with ECDH-ES+A256KW, as the confidential
containers' clients and servers have it by default, or RSA with RSA-OAEP-256.

Their clients hash the protected header as they write it, not as it came: sorted members, "epk" among them, no white
space. That is jwcrypto's compact form taken apart; its flattened form has "epk" elsewhere.

Threading: immutable.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwcrypto.common import JWException
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

from sealfs.attestation.canonical import Members, canonical, parse_json
from sealfs.errors import BrokerError, DocumentError

_CURVES = {"P-256", "P-521"}
_AGREEMENT = "ECDH-ES+A256KW"
_TRANSPORT = "RSA-OAEP-256"
_CONTENT = "A256GCM"
_ALGORITHMS = [_AGREEMENT, _TRANSPORT, _CONTENT]
_SIGNATURE = "EdDSA"
_RSA_BITS = range(2048, 4097)
_RSA_EXPONENT = 65537
_PARTS = ("protected", "encrypted_key", "iv", "ciphertext", "tag")  # of a JWE, in the order of its compact form
_MAX_PART = 16 << 20
_BASE64URL = "[A-Za-z0-9_-]"
_TEXT = rf"{_BASE64URL}{{1,1024}}"
_MAX_TOKEN = 4096


class RunKey:
    """The key pair of one run: made where it runs, and gone with it. Shows nothing of itself."""

    __slots__ = ("_key",)

    def __init__(self) -> None:
        self._key = JWK.generate(kty="EC", crv="P-256")

    def __repr__(self) -> str:
        return "<RunKey>"

    @property
    def public(self) -> dict[str, Any]:
        """The public half, as "tee-pubkey" has it."""
        public = self._key.export_public(as_dict=True)
        return {"kty": "EC", "crv": "P-256", "alg": _AGREEMENT, "x": public["x"], "y": public["y"]}

    def open(self, response: Members) -> bytes:
        """Return what was encrypted to this key.

        Args:
            response: A flattened JWE; its "aad", which the protocol has but does not use, is passed over.

        Raises:
            BrokerError: It was encrypted to another, or changed.
            DocumentError: It is no JWE.
        """
        parts = [response.text(part, rf"{_BASE64URL}{{1,{_MAX_PART}}}") for part in _PARTS]
        header = Members.parse(_decoded(parts[0]), "the JWE's header")
        header.only("alg", "enc", "epk")  # nothing compressed, nothing critical
        message = JWE(algs=_ALGORITHMS)
        try:
            message.deserialize(".".join(parts), self._key)
        except (JWException, ValueError, TypeError, KeyError):
            raise BrokerError(
                "what the broker released does not open with this run's key",
                "it was changed on the way, or meant for somebody else: run it again",
            ) from None
        payload = message.payload
        assert isinstance(payload, bytes)  # noqa: S101 - jwcrypto has no types
        return payload


def encrypt_to(jwk: Mapping[str, Any], secret: bytes) -> dict[str, str]:
    """Return a secret that only the holder of this public key can open, as a flattened JWE.

    Raises:
        DocumentError: See `check_public_key`.
    """
    key, algorithm = _parse(jwk)
    header = canonical({"alg": algorithm, "enc": _CONTENT}).decode()
    message = JWE(secret, protected=header, recipient=key, algs=_ALGORITHMS)
    return dict(zip(_PARTS, message.serialize(compact=True).split("."), strict=True))


def check_public_key(jwk: Mapping[str, Any]) -> None:
    """Refuse a key that nothing could be encrypted to.

    Raises:
        DocumentError: It is no key, or of a kind that the protocol does not have.
    """
    _parse(jwk)


def _parse(jwk: Mapping[str, Any]) -> tuple[JWK, str]:
    members = Members(dict(jwk), "the 'tee-pubkey'")
    refused = DocumentError(
        "the 'tee-pubkey' is no key that this broker can encrypt to",
        f"send an EC key (P-256 or P-521) with alg {_AGREEMENT}, or RSA (2048 to 4096 bits) with {_TRANSPORT}",
    )
    if members.text("kty") == "EC":
        members.only("kty", "crv", "alg", "x", "y")
        names, algorithm, is_known = ["kty", "crv", "x", "y"], _AGREEMENT, members.text("crv") in _CURVES
    else:
        members.only("kty", "alg", "n", "e")
        names, algorithm, is_known = ["kty", "n", "e"], _TRANSPORT, members.text("kty") == "RSA"
    if not is_known or members.text("alg") != algorithm:
        raise refused
    try:
        key = JWK(**{name: members.text(name, _TEXT if name not in {"kty", "crv"} else ".{1,8}") for name in names})
        public = load_pem_public_key(key.export_to_pem())  # a point that is not on the curve shows now
    except (JWException, ValueError, TypeError):
        raise refused from None
    if isinstance(public, RSAPublicKey):
        numbers = public.public_numbers()
        if public.key_size not in _RSA_BITS or numbers.e != _RSA_EXPONENT:
            raise refused
    return key, algorithm


class TokenIssuer:
    """Makes and checks attestation tokens: JWTs (RFC 7519) signed by the broker.

    Args:
        key: The broker's signing key.
        issuer: Identity of the broker.
    """

    def __init__(self, key: Ed25519PrivateKey, issuer: str) -> None:
        private, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
        self._key = JWK(kty="OKP", crv="Ed25519", d=_encoded(private), x=_encoded(public))
        self._issuer = issuer

    def __repr__(self) -> str:
        return f"<TokenIssuer {self._issuer}>"

    def issue(self, session: str, jwk: Mapping[str, Any], issued: int, expires: int) -> str:
        """Return a token.

        Args:
            session: The session's public name.
            jwk: The key that secrets are encrypted to.
            issued: Unix time.
            expires: Unix time.
        """
        claims = {
            "iss": self._issuer,
            "iat": issued,
            "exp": expires,
            "sub": session,
            "jwk": self._key.export_public(as_dict=True),
            "tee-pubkey": dict(jwk),
        }
        token = JWS(canonical(claims))
        token.add_signature(self._key, protected=canonical({"alg": _SIGNATURE, "typ": "JWT"}).decode())
        return str(token.serialize(compact=True))

    def session_of(self, token: str, now: int) -> str | None:
        """Return the session that a token stands for; None if it was not issued here or is out of date."""
        if len(token) > _MAX_TOKEN:
            return None
        signed = JWS()
        signed.allowed_algs = [_SIGNATURE]
        try:
            signed.deserialize(token, self._key)
            claims = Members(parse_json(signed.payload, "the token", _MAX_TOKEN), "the token")
            if claims.text("iss") != self._issuer or claims.integer("exp") <= now:
                return None
            return claims.text("sub", "[0-9a-f]{64}")
        except (JWException, DocumentError, ValueError, TypeError, KeyError):
            return None


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise DocumentError("the JWE's header is not base64url") from None
