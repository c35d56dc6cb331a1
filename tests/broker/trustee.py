"""Confidential containers' side of the protocol, written from its documentation and from nothing of ours.

KBS protocol 0.1.1 as documented and 0.4.0 as deployed (https://github.com/confidential-containers/trustee,
kbs/docs/kbs_attestation_protocol.md); JWE by RFC 7516 and RFC 7518 from primitives. Their implementation reads the
protected header into a structure and hashes what it writes again: "alg", "enc", then other members by name.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap, aes_key_wrap

AGREEMENT = "ECDH-ES+A256KW"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def report_data(runtime: dict[str, Any], additional: str | None) -> bytes:
    """What evidence is bound to: SHA-384 of sorted JSON without white space; `sample` has just that."""
    members = {"nonce": runtime["nonce"], "tee-pubkey": runtime["tee-pubkey"]}
    if additional is not None:
        members["additional-evidence"] = additional
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return hashlib.sha384(text.encode()).digest()


def _kek(secret: bytes) -> bytes:
    algorithm = AGREEMENT.encode()
    other = len(algorithm).to_bytes(4, "big") + algorithm + bytes(8) + (256).to_bytes(4, "big")
    return ConcatKDFHash(SHA256(), 32, other).derive(secret)


def _numbers(jwk: dict[str, str]) -> ec.EllipticCurvePublicKey:
    curve = {"P-256": ec.SECP256R1(), "P-521": ec.SECP521R1()}[jwk["crv"]]
    x, y = (int.from_bytes(unb64(jwk[name]), "big") for name in "xy")
    return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()


def jwk_of(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    size = (key.curve.key_size + 7) // 8
    numbers = key.public_numbers()
    name = {256: "P-256", 521: "P-521"}[key.curve.key_size]
    x, y = (b64(number.to_bytes(size, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": name, "alg": AGREEMENT, "x": x, "y": y}


def encrypt(jwk: dict[str, str], secret: bytes) -> dict[str, str]:
    """A response as their server makes it."""
    public = _numbers(jwk)
    ephemeral = ec.generate_private_key(public.curve)
    epk = jwk_of(ephemeral.public_key())
    del epk["alg"]
    header = {"alg": AGREEMENT, "enc": "A256GCM", "epk": dict(sorted(epk.items()))}
    protected = b64(json.dumps(header, separators=(",", ":")).encode())
    key, iv = os.urandom(32), os.urandom(12)
    sealed = AESGCM(key).encrypt(iv, secret, protected.encode())
    return {
        "protected": protected,
        "encrypted_key": b64(aes_key_wrap(_kek(ephemeral.exchange(ec.ECDH(), public)), key)),
        "iv": b64(iv),
        "ciphertext": b64(sealed[:-16]),
        "tag": b64(sealed[-16:]),
    }


def decrypt(key: ec.EllipticCurvePrivateKey, response: dict[str, str]) -> bytes:
    """What their client makes of a response: the header is read, and written again to be authenticated."""
    header = json.loads(unb64(response["protected"]))
    assert (header["alg"], header["enc"]) == (AGREEMENT, "A256GCM")
    others = {name: header[name] for name in sorted(set(header) - {"alg", "enc"})}
    written = json.dumps(
        {"alg": header["alg"], "enc": header["enc"], **json.loads(json.dumps(others, sort_keys=True))},
        separators=(",", ":"),
    )
    secret = key.exchange(ec.ECDH(), _numbers(header["epk"]))
    content_key = aes_key_unwrap(_kek(secret), unb64(response["encrypted_key"]))
    sealed = unb64(response["ciphertext"]) + unb64(response["tag"])
    return AESGCM(content_key).decrypt(unb64(response["iv"]), sealed, b64(written.encode()).encode())


class Kbs(BaseHTTPRequestHandler):
    """Their server, which knows one secret and believes `sample` evidence that is bound as it should be."""

    secret: ClassVar[bytes] = b"the secret"
    path_of_secret: ClassVar[str] = "/kbs/v0/resource/default/key/one"
    sessions: ClassVar[dict[str, dict[str, Any]]] = {}
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self, status: int, document: object, cookie: str | None = None) -> None:
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if cookie:
            expires = "Sun, 22 Nov 2037 05:00:00 GMT"
            self.send_header("Set-Cookie", f"kbs-session-id={cookie}; Expires={expires}")
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, kind: str, detail: str, status: int = 401) -> None:
        kind = f"https://github.com/confidential-containers/kbs/errors/{kind}"
        self._answer(status, {"type": kind, "detail": detail})

    def _session(self) -> dict[str, Any] | None:
        name, _, value = self.headers.get("Cookie", "").partition("=")
        return self.sessions.get(value) if name == "kbs-session-id" else None

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/json"
        if self.path == "/kbs/v0/auth":
            assert set(body) == {"version", "tee", "extra-params"}
            if body["version"] != "0.4.0":
                self._refuse("AttestationError", f"expect =0.4.0 while the request is {body['version']}")
                return
            cookie, nonce = os.urandom(16).hex(), base64.b64encode(os.urandom(32)).decode()
            self.sessions[cookie] = {"nonce": nonce, "tee": body["tee"], "key": None}
            self._answer(200, {"nonce": nonce, "extra-params": ""}, cookie)
            return
        assert self.path == "/kbs/v0/attest"
        session = self._session()
        if session is None:
            self._refuse("AttestationError", "cookie not found")
            return
        assert set(body) <= {"init-data", "runtime-data", "tee-evidence"}
        runtime, evidence = body["runtime-data"], body["tee-evidence"]
        assert set(evidence) == {"primary_evidence", "additional_evidence"}
        bound = report_data(runtime, evidence["additional_evidence"])
        offered = base64.b64decode(evidence["primary_evidence"]["report_data"])
        if runtime["nonce"] != session["nonce"] or session["tee"] != "sample" or offered != bound:
            self._refuse("AttestationError", "verify TEE evidence failed")
            return
        session["key"] = runtime["tee-pubkey"]
        self._answer(200, {"token": "header.payload.signature"})

    def do_GET(self) -> None:
        session = self._session()
        if session is None or session["key"] is None:
            self._refuse("TokenNotFound", "Attestation Token not found")
        elif self.path != self.path_of_secret:
            self._refuse("PluginNotFound", "resource not found", 404)
        else:
            self._answer(200, encrypt(session["key"], self.secret))


@contextmanager
def kbs() -> Iterator[str]:
    """Their server on loopback; yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kbs)
    thread = threading.Thread(target=server.serve_forever, name="sealfs-test-kbs")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
