"""The broker's HTTP surface: routes to what does the work, and every outcome to a status and a reason.

Threading: the event loop's; whatever waits for disk or computes runs on worker threads.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sealfs.broker import protocol
from sealfs.broker.admin import Admin
from sealfs.broker.calls import CALL_PATH, MAX_CALL_SIZE
from sealfs.broker.carrier import CONTRACT_PATH, Carrier
from sealfs.broker.limits import RateLimiter, read_body
from sealfs.broker.metrics import CONTENT_TYPE, Metrics
from sealfs.broker.protocol import Attestation, Problem, Resource
from sealfs.broker.release import RefusedError, Releases
from sealfs.errors import (
    ConflictError,
    ContractError,
    DocumentError,
    KeyAccessError,
    LocalIOError,
    SealfsError,
    TrustError,
    UsageError,
)

log = logging.getLogger("sealfs.broker")

_WORKERS = 64
_REFUSAL = 50  # requests that a refusal counts for
_MAX_TASK = protocol.MAX_ANSWER_SIZE
_COOKIE = re.compile(r"[0-9a-z.-]{1,128}")
_PROBLEM = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of one client is borne.

    Attributes:
        rate: Requests a second from one address in the long run.
        burst: Requests at once from one address.
        body_deadline: Seconds for a request's body.
    """

    rate: float = 200.0
    burst: int = 4000
    body_deadline: float = 10.0


Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """The application.

    Args:
        releases: The protocol's steps.
        admin: Members' calls.
        carrier: Keeps contracts.
        is_healthy: Raises a SealfsError if this broker could not release anything now.
        limits: See `Limits`.
    """

    def __init__(
        self,
        releases: Releases,
        admin: Admin,
        carrier: Carrier,
        is_healthy: Callable[[], None],
        limits: Limits | None = None,
    ) -> None:
        self._releases = releases
        self._admin = admin
        self._carrier = carrier
        self._is_healthy = is_healthy
        self._limits = limits or Limits()
        self._rate = RateLimiter(self._limits.rate, self._limits.burst, time.monotonic)
        self._metrics = Metrics(lambda: len(releases.sessions))
        self._workers = CapacityLimiter(_WORKERS)
        resource = f"{protocol.RESOURCE_PATH}/{{owner}}/{{dataset}}/{{version}}"
        self.app = Starlette(
            routes=[
                self._route(protocol.AUTH_PATH, POST=self._auth),
                self._route(protocol.ATTEST_PATH, POST=self._attest),
                self._route(resource, GET=self._resource),
                self._route(CALL_PATH, POST=self._call),
                self._route(f"{CONTRACT_PATH}/{{digest}}", GET=self._contract, POST=self._add_to_contract),
                self._route("/healthz", GET=self._healthz),
                self._route("/metrics", GET=self._exposition),
            ],
            exception_handlers={HTTPException: _not_here},
        )
        self.app.router.redirect_slashes = False  # to an address that the client's Host header made up

    def _route(self, path: str, **handlers: Handler) -> Route:
        """Return what answers at a path, by method."""

        async def endpoint(request: Request) -> Response:
            method = request.method
            start = time.perf_counter()
            response = await self._answered(request, handlers["GET" if method == "HEAD" else method])
            seconds = time.perf_counter() - start
            self._metrics.count(path, response.status_code, seconds)
            peer = request.client.host if request.client else ""
            fields = {"method": method, "route": path, "status": response.status_code, "peer": peer}
            log.info("request", extra={"fields": {**fields, "milliseconds": round(seconds * 1000, 1)}})
            return response

        return Route(path, endpoint, methods=list(handlers))

    async def _answered(self, request: Request, handler: Handler) -> Response:
        """Return the handler's response, or what its failure means to a client."""
        if request.client is not None and not self._rate.admit(request.client.host):
            self._metrics.count_limited()
            return _problem(Problem("HTTPFailed", 429, "too many requests from this address", "wait and try again"))
        try:
            return await handler(request)
        except RefusedError as error:
            if request.client is not None and error.logged:
                self._rate.charge(request.client.host, _REFUSAL)  # so that nobody fills the disk with them
            return _problem(error.problem)
        except ConflictError as error:
            return _problem(Problem("Conflict", 409, error.message, error.hint))
        except UsageError as error:
            status = 401 if request.url.path.startswith(protocol.PREFIX) else 400  # the protocol has 401 for it
            return _problem(Problem("SerdeError", status, error.message, error.hint))
        except (ContractError, TrustError) as error:
            return _problem(Problem("ContractDeny", 403, error.message, error.hint))
        except SealfsError as error:
            log.error("nothing can be released: %s", error.message)  # noqa: TRY400 - the message says all
            return _problem(Problem("PluginInternalError", 503, _cannot(error), error.hint))
        except Exception:
            log.exception("internal error")
            return _problem(Problem("PluginInternalError", 500, "the broker failed; its log says why"))

    async def _work(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await run_sync(partial(function, *arguments), limiter=self._workers)

    async def _body(self, request: Request, max_size: int) -> bytes:
        return await read_body(request, max_size, self._limits.body_deadline)

    async def _auth(self, request: Request) -> Response:
        asked = protocol.Request.parse(await self._body(request, protocol.MAX_REQUEST_SIZE))
        cookie, challenge = self._releases.challenge(asked)
        return _with_cookie(JSONResponse(challenge.to_json()), cookie)

    async def _attest(self, request: Request) -> Response:
        data = await self._body(request, protocol.MAX_ATTESTATION_SIZE)
        cookie = _cookie(request)
        if cookie is None:
            raise RefusedError(Problem("AttestationError", 401, "there is no session cookie", "start with 'auth'"))
        token = await self._work(lambda: self._releases.attest(cookie, Attestation.parse(data)))
        return _with_cookie(JSONResponse({"token": token}), cookie)

    async def _resource(self, request: Request) -> Response:
        names = request.path_params
        try:
            resource = Resource.parse(names["owner"], names["dataset"], names["version"])
        except DocumentError as error:
            raise RefusedError(Problem("InvalidRequestPath", 404, error.message)) from None
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        session = self._releases.session(_cookie(request), token if kind.lower() == "bearer" else None)
        if session is None:
            raise RefusedError(
                Problem(
                    "TokenNotFound", 401, "this session is not attested, or has ended", "attest, then ask again"
                )
            )
        return JSONResponse(await self._work(self._releases.release, session, resource))

    async def _call(self, request: Request) -> Response:
        data = await self._body(request, MAX_CALL_SIZE)
        return JSONResponse(await self._work(self._admin.call, data))

    async def _contract(self, request: Request) -> Response:
        task = await self._work(self._carrier.fetch, request.path_params["digest"])
        return Response(task, media_type="application/json")

    async def _add_to_contract(self, request: Request) -> Response:
        data = await self._body(request, _MAX_TASK)
        task = await self._work(self._carrier.add, request.path_params["digest"], data)
        return Response(task, media_type="application/json")

    async def _healthz(self, request: Request) -> Response:
        del request
        await self._work(self._is_healthy)
        return JSONResponse({"status": "ok"})

    async def _exposition(self, request: Request) -> Response:
        del request
        return Response(self._metrics.exposition(), media_type=CONTENT_TYPE)


def _cannot(error: SealfsError) -> str:
    """Return what a client is told of a failure inside: paths and systems' errors are the operator's."""
    if isinstance(error, LocalIOError | KeyAccessError):
        return "the broker cannot write its log or open its keys, so nothing is released"
    return error.message


def _cookie(request: Request) -> str | None:
    cookie = request.cookies.get(protocol.COOKIE)
    return cookie if cookie is not None and _COOKIE.fullmatch(cookie) else None


def _with_cookie(response: Response, cookie: str) -> Response:
    response.set_cookie(protocol.COOKIE, cookie, path="/kbs", secure=True, httponly=True, samesite="strict")
    return response


def _problem(problem: Problem) -> Response:
    headers = {"retry-after": "1"} if problem.status in {429, 503} else None
    return JSONResponse(problem.to_json(), problem.status, headers, _PROBLEM)


async def _not_here(request: Request, error: Exception) -> Response:
    """Answer what no route takes."""
    del request
    assert isinstance(error, HTTPException)  # noqa: S101 - for the type checker
    words = "there is nothing at this path" if error.status_code == 404 else str(error.detail).lower()
    response = _problem(Problem("InvalidRequestPath", error.status_code, words))
    response.headers.update(error.headers or {})  # which methods there are
    return response
