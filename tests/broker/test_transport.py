"""HTTP to a broker: nothing is said to anybody but the one that is meant, however often it hangs up."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sealfs.broker.address import BrokerAddress, identity_of
from sealfs.broker.certificate import self_signed
from sealfs.broker.transport import Connection
from sealfs.errors import BrokerError

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


class Party:
    """Somebody with a TLS key."""

    def __init__(self, folder: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        self.identity = identity_of(key.public_key())
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = folder / f"{self.identity[7:]}.pem"
        file.write_bytes(self_signed(key, self.identity) + private)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(file)


class OneAfterTheOther:
    """Listens at one port, where each connection is another party's, who hangs up after one answer.

    Attributes:
        heard: What each of them was sent.
    """

    def __init__(self, parties: list[Party]) -> None:
        self._parties = parties
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(60)  # a test that fails must end, too
        self.port = self._listener.getsockname()[1]
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, name="sealfs-test-parties")

    def _serve(self) -> None:
        for party in self._parties:
            with self._listener.accept()[0] as raw, contextlib.suppress(OSError):
                raw.settimeout(60)
                with party.context.wrap_socket(raw, server_side=True) as connection:
                    self.heard.append(b"")
                    while b"\r\n\r\n" not in self.heard[-1]:
                        piece = connection.recv(4096)
                        if not piece:
                            break
                        self.heard[-1] += piece
                    else:
                        connection.sendall(ANSWER)

    @contextlib.contextmanager
    def serving(self) -> Iterator[OneAfterTheOther]:
        self._thread.start()
        try:
            yield self
        finally:
            self._thread.join(120)
            self._listener.close()
        assert not self._thread.is_alive()


def test_whoever_stands_in_when_the_broker_hangs_up_hears_nothing(tmp_path: Path) -> None:
    broker, other = Party(tmp_path), Party(tmp_path)
    with (
        OneAfterTheOther([broker, other]).serving() as place,
        Connection(BrokerAddress("127.0.0.1", place.port, identity=broker.identity)) as connection,
    ):
        assert connection.ask("GET", "/first").body == b"{}"
        with pytest.raises(BrokerError, match=f"is {other.identity}, not {broker.identity}"):
            connection.ask("GET", "/second", cookie="the-session")
    assert place.heard[0].startswith(b"GET /first")
    assert place.heard[1:] == [b""]


def test_a_broker_that_hangs_up_is_asked_again(tmp_path: Path) -> None:
    broker = Party(tmp_path)
    with (
        OneAfterTheOther([broker, broker]).serving() as place,
        Connection(BrokerAddress("127.0.0.1", place.port, identity=broker.identity)) as connection,
    ):
        for path in ("/first", "/second"):
            assert connection.ask("GET", path).body == b"{}"
        assert connection.identity == broker.identity
    assert [heard[:10] for heard in place.heard] == [b"GET /first", b"GET /secon"]
