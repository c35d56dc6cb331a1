"""Runs a broker: puts its parts together, and serves them over TLS until it is told to end.

Threading: one event loop in the calling thread; worker threads as in server.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import uvicorn
from cryptography.hazmat.primitives import serialization
from uvicorn.protocols.http.h11_impl import H11Protocol

from sealfs.attestation.collateral import CollateralSource
from sealfs.attestation.revocation import RevocationFolder
from sealfs.attestation.tpm_quote import load_key
from sealfs.attestation.verify import Verifier
from sealfs.broker import jose, members
from sealfs.broker.address import BrokerAddress
from sealfs.broker.admin import ENROLLED_KINDS, Admin
from sealfs.broker.carrier import Carrier
from sealfs.broker.home import Home
from sealfs.broker.members import Enrolled
from sealfs.broker.release import Releases
from sealfs.broker.server import Limits, Server
from sealfs.broker.sessions import Challenges
from sealfs.errors import LocalIOError
from sealfs.keys import Signer

_HANDSHAKE = 10.0  # seconds for a TLS handshake
_HEAD = 10.0  # seconds for a request's head
_WHOLE = 60.0  # seconds from a request's head to the end of its answer
_IDLE = 15  # seconds that an unused connection is kept
_MAX_HEAD = 16 << 10  # bytes
_MAX_CONNECTIONS = 2000
_BACKLOG = 2048
_GRACE = 10  # seconds for requests under way when the broker is told to end

MakeVerifier = Callable[[list[Enrolled]], Verifier]


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose servers do not wait long for a TLS handshake; uvicorn has no setting for it."""

    async def create_server(self, *arguments: Any, **options: Any) -> asyncio.Server:
        """See asyncio."""
        return await super().create_server(*arguments, **options, ssl_handshake_timeout=_HANDSHAKE)


class _Impatient(H11Protocol):
    """Drops a connection that is slow to ask or slow to take the answer; uvicorn only knows idle ones."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        self.access_log = False  # server.py logs requests, without what is in their paths
        self._answered: object = None
        self._late = self.loop.call_later(_HEAD, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        super().data_received(data)
        if self.cycle is not self._answered and not self.transport.is_closing():
            self._answered = self.cycle
            self._wait(_WHOLE)

    def on_response_complete(self) -> None:
        """See uvicorn."""
        super().on_response_complete()
        self._wait(_IDLE + _HEAD)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._late.cancel()
        super().connection_lost(exc)

    def _wait(self, seconds: float) -> None:
        self._late.cancel()
        self._late = self.loop.call_later(seconds, self.transport.abort)


@dataclass(frozen=True, slots=True)
class Options:
    """How to serve.

    Attributes:
        host: Address to listen at.
        port: TCP port; 0 takes a free one.
        limits: See `Limits`.
        accept_unbound: See `Releases`.
    """

    host: str = "127.0.0.1"
    port: int = 8600
    limits: Limits = field(default_factory=Limits)
    accept_unbound: bool = False


def application(
    home: Home, make_verifier: MakeVerifier, options: Options, clock: Callable[[], datetime] | None = None
) -> Server:
    """Return the application on an open broker.

    Args:
        home: Open; closed by the caller.
        make_verifier: Makes what verifies evidence from what is enrolled; called again when that changes.
        options: See `Options`.
        clock: Returns the time, with a zone; None for this machine's.
    """
    clock = clock or _now
    verifier: list[Verifier] = []

    def renew() -> None:
        verifier[:] = [make_verifier(home.database.read(members.all_enrolled))]

    def is_healthy() -> None:
        home.database.write(lambda transaction: home.log.check_clock(transaction, clock()))

    renew()
    releases = Releases(
        home.identity,
        home.database,
        home.vault,
        home.log,
        jose.TokenIssuer(home.log_key, home.identity),
        Challenges(home.challenge_key),
        lambda: verifier[0],
        clock,
        accept_unbound=options.accept_unbound,
    )
    carrier = Carrier(home.database, home.log, clock)
    admin = Admin(home.identity, home.database, home.vault, home.log, clock, renew, carrier)
    return Server(releases, admin, carrier, is_healthy, options.limits)


class Service:
    """A broker that is served.

    Args:
        server: The application.
        home: Whose identity it shows; closed by the caller.
        options: See `Options`.

    Raises:
        LocalIOError: The port can't be listened at.
    """

    def __init__(self, server: Server, home: Home, options: Options) -> None:
        self._listener = _listen(options)
        host, port = self._listener.getsockname()[:2]
        self.address = BrokerAddress(host, port, identity=home.identity)
        config = uvicorn.Config(
            server.app,
            http=_Impatient,
            ws="none",
            lifespan="off",
            access_log=False,
            log_config=None,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            limit_concurrency=_MAX_CONNECTIONS,
            backlog=_BACKLOG,
            timeout_keep_alive=_IDLE,
            timeout_graceful_shutdown=_GRACE,
            h11_max_incomplete_event_size=_MAX_HEAD,
        )
        config.load()
        config.ssl = tls_context(home)
        self._server = _Telling(config)

    def run(self, ready: Callable[[BrokerAddress], None]) -> None:
        """Serve until `stop`, or, in the main thread, until SIGINT or SIGTERM.

        Args:
            ready: Told the address once requests are answered.
        """
        self._server.ready = lambda: ready(self.address)
        with closing(self._listener), _tidy_end(), asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(self._server.serve(sockets=[self._listener]))

    def stop(self) -> None:
        """End when the requests under way are answered; from any thread."""
        self._server.should_exit = True


@contextmanager
def _tidy_end() -> Iterator[None]:
    """Let SIGTERM end the block, not the process: uvicorn raises it again when it has ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Telling(uvicorn.Server):
    """Says when it is there."""

    ready: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self.started:
            self.ready()


def verifiers(
    collateral: CollateralSource, intel_root: bytes | None = None, revocations: RevocationFolder | None = None
) -> MakeVerifier:
    """Return what makes a verifier of what is enrolled, with the vendors' roots.

    Args:
        collateral: Where Intel's statements come from.
        revocations: AMD's revocation lists; None has none.
        intel_root: DER of another root than Intel's: for tests.
    """

    def make(enrolled: list[Enrolled]) -> Verifier:
        values = {kind: [key.value for key in enrolled if key.kind == kind] for kind in ENROLLED_KINDS}
        return Verifier(
            runners=[Signer.parse(value) for value in values["sealfs-runner"]],
            tpm_keys=[load_key(value.encode()) for value in values["tpm"]],
            collateral=collateral,
            intel_root=intel_root,
            amd_revocations=revocations,
            allow_sample=True,  # it reaches L1 only, and whether that will do policies decide
        )

    return make


def tls_context(home: Home) -> ssl.SSLContext:
    """Return how a broker speaks TLS: 1.3 only, with its own key, which touches no disk in the clear."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    password = home.challenge_key.hex()
    key = serialization.load_der_private_key(home.tls_key, None)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )
    with tempfile.NamedTemporaryFile(prefix="sealfs-broker-") as file:  # the ssl module reads files only
        file.write(home.certificate + pem)
        file.flush()
        context.load_cert_chain(file.name, password=password)
    return context


class JsonFormatter(logging.Formatter):
    """Log records as JSON, a line each: for machines to read, and safe to print."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        document |= getattr(record, "fields", {})
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document)


def log_as_json(level: int) -> None:
    """Let all that is logged go to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _listen(options: Options) -> socket.socket:
    try:
        infos = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, number, _, where = infos[0]
        listener = socket.socket(family, kind, number)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
    except OSError as error:
        raise LocalIOError(
            f"cannot listen at {options.host}:{options.port}: {error.strerror}", "choose another with --listen"
        ) from None
    return listener


def _now() -> datetime:
    return datetime.now(UTC)
