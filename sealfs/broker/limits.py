"""What keeps one client from being a burden on all: how fast requests may come, how big and how slow they may be.

Threading: the event loop's thread only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request

from sealfs.broker.protocol import Problem
from sealfs.broker.release import RefusedError

_MAX_PEERS = 10_000


class RateLimiter:
    """A bucket of tokens for each client address.

    Args:
        rate: Requests a second that one address may make in the long run.
        burst: How many it may make at once: hundreds of enclaves can start behind one address.
        clock: Returns seconds that never go back.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, peer: str) -> bool:
        """Take a token of this address; whether there was one."""
        tokens, now = self._tokens(peer)
        admitted = tokens >= 1
        self._set(peer, tokens - 1 if admitted else tokens, now)
        return admitted

    def charge(self, peer: str, cost: int) -> None:
        """Take tokens for what turned out to be expensive, as far as there are any."""
        tokens, now = self._tokens(peer)
        self._set(peer, max(0.0, tokens - cost), now)

    def _tokens(self, peer: str) -> tuple[float, float]:
        """Take a bucket out; return how much is in it now, and the time."""
        now = self._clock()
        tokens, last = self._buckets.pop(peer, (float(self._burst), now))
        return min(self._burst, tokens + (now - last) * self._rate), now

    def _set(self, peer: str, tokens: float, now: float) -> None:
        self._buckets[peer] = (tokens, now)
        while len(self._buckets) > _MAX_PEERS:
            self._buckets.popitem(last=False)


async def read_body(request: Request, max_size: int, deadline: float) -> bytes:
    """Return a request's body.

    Args:
        request: Whose.
        max_size: Bytes; nothing beyond is read.
        deadline: Seconds by which all of it must have come.

    Raises:
        RefusedError: It is bigger, slower, or broken off.
    """
    too_big = RefusedError(Problem("SerdeError", 413, f"the request has more than {max_size} bytes"))
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal() or len(announced) > 12 or int(announced) > max_size:
        raise too_big
    body = bytearray()
    try:
        async with asyncio.timeout(deadline):
            async for piece in request.stream():
                body += piece
                if len(body) > max_size:
                    raise too_big
    except TimeoutError:
        raise RefusedError(Problem("SerdeError", 408, f"the request did not come within {deadline:g} s")) from None
    except ClientDisconnect:
        raise RefusedError(Problem("SerdeError", 400, "the request was broken off")) from None
    return bytes(body)
