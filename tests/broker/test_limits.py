"""Requests that are malformed, huge, deep, slow or too many: refused, with a reason, and the broker goes on."""

from __future__ import annotations

import http.client
import json
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.tools import DEVELOPMENT, STRICT, Broker, running
from sealfs.broker import serve
from sealfs.broker.calls import CALL_PATH
from sealfs.broker.client import BrokerClient
from sealfs.broker.limits import RateLimiter
from sealfs.broker.protocol import ATTEST_PATH, AUTH_PATH, MAX_ATTESTATION_SIZE, RESOURCE_PATH
from sealfs.broker.serve import Options
from sealfs.broker.server import Limits
from sealfs.errors import KeyRefusedError
from sealfs.keys import Identity

POSTS = [AUTH_PATH, ATTEST_PATH, CALL_PATH]


def tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def ask(broker: Broker, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPSConnection(broker.address.host, broker.address.port, timeout=30, context=tls())
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        text = answer.read()
        is_json = text and "json" in answer.headers.get("content-type", "")
        return answer.status, json.loads(text) if is_json else text
    finally:
        connection.close()


def raw(broker: Broker, timeout: float = 30) -> ssl.SSLSocket:
    plain = socket.create_connection((broker.address.host, broker.address.port), timeout=timeout)
    return tls().wrap_socket(plain)


def is_well(broker: Broker) -> None:
    assert ask(broker, "GET", "/healthz") == (200, {"status": "ok"})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, owner: Identity) -> Iterator[Broker]:
    with running(tmp_path_factory.mktemp("limits"), owner) as broker:
        yield broker


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 1000,
        b'{"version":"0.1.1","version":"0.1.1"}',
        b'{"version": 1e400}',
        b'{"a": ' + b"9" * 10_000 + b"}",
    ],
)
def test_malformed(shared: Broker, path: str, body: bytes) -> None:
    cookie = "kbs-session-id=" + "0" * 32 + ".sgx.0.1.1"
    status, problem = ask(shared, "POST", path, body, Cookie=cookie)
    assert status in (400, 401, 413)
    assert problem["type"].startswith("https://github.com/confidential-containers/kbs/errors/")
    assert problem["detail"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(min_size=1, max_size=400))
def test_what_is_no_http(shared: Broker, data: bytes) -> None:
    with raw(shared) as connection:
        connection.sendall(data + b"\r\n\r\n")
        answer = connection.recv(100)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(("path", "size"), [(AUTH_PATH, 20_000), (ATTEST_PATH, MAX_ATTESTATION_SIZE + 1)])
@pytest.mark.parametrize("announced", [True, False])
def test_huge(shared: Broker, path: str, size: int, announced: bool) -> None:
    with raw(shared) as connection:
        length = f"Content-Length: {size}" if announced else "Transfer-Encoding: chunked"
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nCookie: x=y\r\n{length}\r\n\r\n".encode())
        if not announced:
            try:
                connection.sendall(f"{size:x}\r\n".encode() + bytes(size) + b"\r\n")
            except OSError:  # it has hung up already
                return
        assert connection.recv(100).startswith(b"HTTP/1.1 413")
    is_well(shared)


def test_a_head_without_end(shared: Broker) -> None:
    with raw(shared) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\n")
        with suppress(OSError):  # it may have hung up
            for _ in range(1000):
                connection.sendall(b"X-More: " + b"x" * 1000 + b"\r\n")
        assert closed_after(connection, 30)[:10] in (b"", b"HTTP/1.1 4")
    is_well(shared)


@pytest.fixture
def impatient(tmp_path: Path, owner: Identity, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """A broker that waits for a second, not for ten."""
    for name in ("_HANDSHAKE", "_HEAD"):
        monkeypatch.setattr(serve, name, 1.0)
    monkeypatch.setattr(serve, "_WHOLE", 2.0)
    monkeypatch.setattr(serve, "_IDLE", 1)
    with running(tmp_path, owner, Options(port=0, limits=Limits(1e6, 1_000_000, body_deadline=1.0))) as broker:
        yield broker


def closed_after(connection: socket.socket, most: float) -> bytes:
    """What comes until the other end hangs up, which it must do in time."""
    start = time.monotonic()
    received = b""
    try:
        while piece := connection.recv(1000):
            received += piece
    except (ConnectionResetError, ssl.SSLError):
        pass
    assert time.monotonic() - start < most
    return received


@pytest.mark.slow
@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /kbs", b"POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\n", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"],
)
def test_who_says_nothing_more_is_hung_up_on(impatient: Broker, sent: bytes) -> None:
    with raw(impatient) as connection:
        connection.sendall(sent)
        received = closed_after(connection, 30)
    assert received.startswith(b"HTTP/1.1 200") == sent.endswith(b"\r\n\r\n")


@pytest.mark.slow
def test_a_body_that_does_not_come(impatient: Broker) -> None:
    with raw(impatient) as connection:
        connection.sendall(b"POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert b"408" in connection.recv(1000)


@pytest.mark.slow
def test_a_body_that_comes_byte_by_byte(impatient: Broker) -> None:
    with raw(impatient) as connection:
        connection.sendall(b"POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        start = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - start < 40:
                connection.sendall(b" ")
                time.sleep(0.05)
        assert time.monotonic() - start < 30


@pytest.mark.slow
def test_a_handshake_that_does_not_come(impatient: Broker) -> None:
    with socket.create_connection((impatient.address.host, impatient.address.port), timeout=30) as connection:
        assert closed_after(connection, 30) == b""


@pytest.mark.slow
def test_who_does_not_take_the_answer(impatient: Broker) -> None:
    """Its requests are answered into a pipe that nobody empties: it is dropped, and nobody else waits."""
    with socket.create_connection((impatient.address.host, impatient.address.port), timeout=30) as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with tls().wrap_socket(plain) as connection:
            start = time.monotonic()
            with suppress(OSError):
                while time.monotonic() - start < 60:
                    connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
            assert time.monotonic() - start < 60
    is_well(impatient)


@pytest.mark.slow
def test_many_slow_ones_hold_up_nobody(broker: Broker) -> None:
    keys = broker.publish(DEVELOPMENT)
    slow = [raw(broker) for _ in range(100)]
    try:
        for connection in slow:
            connection.sendall(b"POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert broker.client().resource("owner", keys.dataset).keys.pack() == keys.pack()
    finally:
        for connection in slow:
            connection.close()


def test_too_many(tmp_path: Path, owner: Identity) -> None:
    with running(tmp_path, owner, Options(port=0, limits=Limits(rate=0.1, burst=5))) as broker:
        statuses = [ask(broker, "GET", "/healthz")[0] for _ in range(8)]
    assert statuses == [200] * 5 + [429] * 3


def test_a_busy_broker_is_asked_again(tmp_path: Path, owner: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealfs.broker.client._PAUSES", (0.01, 0.3, 0.6))
    with running(tmp_path, owner, Options(port=0, limits=Limits(rate=10, burst=5))) as broker:
        keys = broker.publish(DEVELOPMENT)
        for _ in range(4):
            assert broker.client().resource("owner", keys.dataset).keys.pack() == keys.pack()


def test_refusals_are_expensive(tmp_path: Path, owner: Identity) -> None:
    """Each is in the log for good: nobody may fill a disk with them."""
    with running(tmp_path, owner, Options(port=0, limits=Limits(rate=0.1, burst=120))) as broker:
        keys, client = broker.publish(STRICT), broker.client()
        for _ in range(3):
            with pytest.raises(KeyRefusedError):
                client.resource("owner", keys.dataset)
        assert ask(broker, "GET", "/healthz")[0] == 429


def test_the_rate_limiter() -> None:
    now = 0.0
    limiter = RateLimiter(2.0, 3, lambda: now)
    assert [limiter.admit("a") for _ in range(5)] == [True] * 3 + [False] * 2
    assert limiter.admit("b")
    now = 1.0
    assert [limiter.admit("a") for _ in range(3)] == [True, True, False]
    limiter.charge("b", 1000)
    assert not limiter.admit("b")
    for number in range(20_000):
        limiter.admit(str(number))
    assert len(limiter._buckets) <= 10_000


@pytest.mark.slow
def test_hundreds_at_once(broker: Broker) -> None:
    """Enclaves that start together, each with a key of its own, all get theirs, and the log is whole."""
    keys = broker.publish(DEVELOPMENT)
    failed: list[Exception] = []

    def start() -> None:
        time.sleep(random.random() / 10)
        try:
            assert BrokerClient(broker.address, None).resource("owner", keys.dataset).keys.pack() == keys.pack()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=start) for _ in range(300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    log = list(broker.member().log())
    assert sum(record["event"] == "released" for record in log) == 300
    assert len({record["session"] for record in log if record["event"] == "released"}) == 300


def test_metrics_name_nobody(broker: Broker) -> None:
    keys = broker.publish(DEVELOPMENT)
    broker.client().resource("owner", keys.dataset)
    status, text = ask(broker, "GET", "/metrics")
    assert status == 200
    assert b'route="/kbs/v0/resource/{owner}/{dataset}/{version}",status="200"} 1.0' in text
    assert b"sealfs_broker_sessions 1.0" in text
    assert keys.dataset.hex().encode() not in text


def test_logs_have_no_secrets(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys = broker.publish(DEVELOPMENT)
    broker.client().resource("owner", keys.dataset)
    lines = [serve.JsonFormatter().format(record) for record in caplog.records]
    assert any(json.loads(line).get("route", "").startswith(RESOURCE_PATH) for line in lines)
    for secret in (keys.pack().hex()[8:], keys.dataset.hex(), "kbs-session-id"):
        assert [line for line in lines if secret in line] == []
