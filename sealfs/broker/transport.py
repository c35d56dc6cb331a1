"""HTTP to a broker, for its clients: TLS to exactly the one that is meant, bounded answers, refusals as errors.

No request is sent before the broker's key has been compared, on every connection. The standard library does the
rest, so that an enclave has little to load; it connects anew by itself when the other side has hung up.

Threading: a connection is for one thread.
"""

from __future__ import annotations

import hmac
import http.client
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cryptography.x509 import load_der_x509_certificate

from sealfs.broker.address import BrokerAddress, identity_of
from sealfs.broker.protocol import COOKIE, MAX_ANSWER_SIZE, Problem
from sealfs.errors import BrokerError

BUSY = (http.client.TOO_MANY_REQUESTS, http.client.SERVICE_UNAVAILABLE)
_TIMEOUT = 30.0  # seconds for each wait
_COOKIE = re.compile(rf"(?:^|[;,\s]){COOKIE}=([0-9A-Za-z._-]{{1,256}})")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        body: At most `MAX_ANSWER_SIZE` bytes.
        cookie: The session's, if one was set.
    """

    body: bytes
    cookie: str | None


class ProblemError(BrokerError):
    """The broker answered with a problem.

    Args:
        problem: Which.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail, problem.hint)
        self.problem = problem


def _problem(data: bytes, status: int) -> Problem:
    """Return what an HTTP error means; whoever is overloaded may have no time for a reason.

    Raises:
        BrokerError: It means nothing.
    """
    if status in BUSY and b"{" not in data:
        return Problem("HTTPFailed", status, "the broker is busy", "try again later")
    return Problem.parse(data, status)


class _PinnedConnection(http.client.HTTPSConnection):
    """Is never connected to anybody but the broker that is meant, however often it connects.

    Attributes:
        identity: Who is at the other end; None before it is connected.
    """

    identity: str | None = None

    def __init__(self, address: BrokerAddress) -> None:
        if address.identity is None:
            context = ssl.create_default_context()
        else:  # the key itself is compared, so names and authorities don't matter, and are not loaded
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        super().__init__(address.host, address.port, timeout=_TIMEOUT, context=context)
        self._address = address

    def connect(self) -> None:
        """See http.client.

        Raises:
            BrokerError: Another is there; nothing was sent.
        """
        try:
            super().connect()
            self.identity = self._checked()
        except BaseException:
            self.close()
            raise

    def _checked(self) -> str:
        """Return who is at the other end, if it is who it must be."""
        certificate = self.sock.getpeercert(binary_form=True)
        try:
            identity = identity_of(load_der_x509_certificate(certificate or b"").public_key())
        except ValueError:
            raise BrokerError(f"what answers at {self._address} shows no key") from None
        expected = self._address.identity
        if expected is not None and not hmac.compare_digest(identity, expected):
            raise BrokerError(
                f"what answers at {self._address.host}:{self._address.port} is {identity}, not {expected}",
                "somebody stands in for it, or it was made anew: ask its operator; nothing was sent",
            )
        return identity


class Connection:
    """A connection to a broker.

    Args:
        address: Which.

    Raises:
        BrokerError: It can't be reached, or another is there.
    """

    def __init__(self, address: BrokerAddress) -> None:
        self._address = address
        self._http: http.client.HTTPConnection
        if not address.tls:
            self._http = http.client.HTTPConnection(address.host, address.port, timeout=_TIMEOUT)
            return
        self._http = _PinnedConnection(address)
        try:
            self._http.connect()
        except OSError as error:
            raise self._unreachable(error) from None

    @property
    def identity(self) -> str | None:
        """Who is at the other end; None without TLS."""
        return self._http.identity if isinstance(self._http, _PinnedConnection) else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._http.close()

    def ask(self, method: str, path: str, body: bytes | None = None, cookie: str | None = None) -> Answer:
        """Send a request and return its answer.

        Raises:
            ProblemError: The broker says why not.
            BrokerError: It is not there, or says nothing that can be understood.
        """
        headers: Mapping[str, str] = {
            "Accept": "application/json",
            **({"Content-Type": "application/json"} if body is not None else {}),
            **({"Cookie": f"{COOKIE}={cookie}"} if cookie is not None else {}),
        }
        try:
            self._http.request(method, self._address.path + path, body, headers)
            response = self._http.getresponse()
            data = response.read(MAX_ANSWER_SIZE + 1)
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            raise self._unreachable(error) from None
        if len(data) > MAX_ANSWER_SIZE:
            self._http.close()
            raise BrokerError(f"the broker at {self._address} answers with more than {MAX_ANSWER_SIZE} bytes")
        if response.status != http.client.OK:
            raise ProblemError(_problem(data, response.status))
        match = _COOKIE.search(response.headers.get("set-cookie", ""))
        return Answer(data, match[1] if match else None)

    def _unreachable(self, error: Exception) -> BrokerError:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return BrokerError(f"the broker at {self._address.host}:{self._address.port} does not answer: {words}")
