"""Stands in for a key broker while `sealfs measure` rehearses: the protocol's three steps, for data made up there.

It checks nothing, and has only the keys that it is given: what counts is that the launcher talks as to a real one.

Threading: it answers in a thread of its own, one request at a time.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sealfs.attestation.canonical import canonical
from sealfs.attestation.levels import Level
from sealfs.broker.address import BrokerAddress, identity_of
from sealfs.broker.certificate import self_signed
from sealfs.broker.jose import encrypt_to
from sealfs.broker.protocol import AUTH_PATH, COOKIE, Attestation, Challenge
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.keyring import DatasetKeys

OWNER = "owner"


@contextmanager
def stand_in(folder: Path, dataset: Dataset, keys: DatasetKeys) -> Iterator[BrokerAddress]:
    """Serve one dataset's keys on loopback for the length of the block; yields where.

    Args:
        folder: For the TLS key.
        dataset: The dataset.
        keys: Its keys.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    identity = identity_of(key.public_key())
    pem = folder / "broker.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + self_signed(key, identity))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    released = {
        "owner": OWNER,
        "dataset": dataset.snapshot.dataset.hex(),
        "keys": keys.pack().hex(),
        "signer": str(dataset.snapshot.signer),
        "version": dataset.snapshot.version,
        "sha256": dataset.ref.sha256.hex(),
        "level": str(Level.L1),
        "demanded": str(Level.L1),
    }
    # HTTPServer looks up its own name, so what the C library needs for a broker's name is seen, too
    with HTTPServer(("127.0.0.1", 0), _handler(released)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, name="sealfs-rehearsal-broker")
        thread.start()
        try:
            yield BrokerAddress("127.0.0.1", server.server_port, identity=identity)
        finally:
            server.shutdown()
            thread.join()


def _handler(released: Mapping[str, Any]) -> type[BaseHTTPRequestHandler]:
    public: dict[str, Any] = {}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == AUTH_PATH:
                self._answer(Challenge("bm9uY2U=").to_json())
            else:
                public.update(Attestation.parse(body).runtime.tee_pubkey)
                self._answer({})

        def do_GET(self) -> None:
            self._answer(encrypt_to(public, canonical(dict(released))))

        def _answer(self, document: Mapping[str, Any]) -> None:
            body = json.dumps(document).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Set-Cookie", f"{COOKIE}=rehearsal")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler
