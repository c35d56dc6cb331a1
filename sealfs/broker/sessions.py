"""Challenges that cost nothing until they are answered, are answered once, and the sessions that come of it.

A challenge authenticates itself: its nonce carries a MAC over the time and over the cookie, which names the kind
of evidence to come. So an unanswered request leaves no trace that somebody could fill a disk with, a restart
forgets no challenge, and only answers are written down, so that none counts twice (`spend`).

Sessions are in memory: after a restart an environment attests again, which its client does by itself.

Threading: safe.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sealfs.attestation.claims import Claims

LIFETIME = 300  # seconds in which a challenge is to be answered, and for which a session lasts from then on
_STEP_BACK = 60  # seconds by which clocks are set back now and then
_MAX_SESSIONS = 20_000
_RANDOM_SIZE = 16
_TIME_SIZE = 8
_MAC_SIZE = 32
_COOKIE = re.compile(r"[0-9a-f]{32}\.([a-z0-9-]{1,40})\.([0-9.]{1,20})")
_DOMAIN = b"sealfs 1 broker challenge\0"


@dataclass(frozen=True, slots=True)
class Challenged:
    """A challenge that was issued here and is in time.

    Attributes:
        name: Of the session that comes of it; public, while the cookie is not.
        tee: The kind of evidence that was announced.
        version: Of the protocol.
        expires: Unix time.
    """

    name: str
    tee: str
    version: str
    expires: int


@dataclass(frozen=True, slots=True)
class Session:
    """An environment that has answered its challenge.

    Attributes:
        name: See `Challenged`.
        tee_pubkey: The key that secrets are encrypted to.
        claims: What its evidence proves; None if it has offered none.
        bound: Hex digest of what the environment bound besides, such as a contract's.
        expires: Unix time.
    """

    name: str
    tee_pubkey: Mapping[str, Any] = field(repr=False)
    claims: Claims | None
    bound: str | None
    expires: int


class Challenges:
    """Issues challenges and knows its own.

    Args:
        key: 32 bytes; restarts keep it.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def issue(self, tee: str, version: str, now: int) -> tuple[str, str]:
        """Return cookie and nonce for a request of this kind and protocol version."""
        cookie = f"{os.urandom(_RANDOM_SIZE).hex()}.{tee}.{version}"
        head = now.to_bytes(_TIME_SIZE, "big") + os.urandom(_RANDOM_SIZE)
        return cookie, base64.b64encode(head + self._mac(head, cookie)).decode()

    def check(self, cookie: str, nonce: str, now: int) -> Challenged | None:
        """Return what was challenged; None if these two do not belong together, or are too old."""
        match = _COOKIE.fullmatch(cookie)
        try:
            raw = base64.b64decode(nonce, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if match is None or len(raw) != _TIME_SIZE + _RANDOM_SIZE + _MAC_SIZE:
            return None
        head, mac = raw[:-_MAC_SIZE], raw[-_MAC_SIZE:]
        if not hmac.compare_digest(mac, self._mac(head, cookie)):
            return None
        issued = int.from_bytes(head[:_TIME_SIZE], "big")
        if not issued - _STEP_BACK <= now < issued + LIFETIME:
            return None
        return Challenged(session_name(cookie), match[1], match[2], issued + LIFETIME)

    def _mac(self, head: bytes, cookie: str) -> bytes:
        return hmac.digest(self._key, _DOMAIN + head + cookie.encode(), "sha256")


def session_name(cookie: str) -> str:
    """Return the public name of the session that a cookie opens."""
    return hashlib.sha256(cookie.encode()).hexdigest()


def spend(transaction: sqlite3.Connection, challenged: Challenged, now: int) -> bool:
    """Take a challenge as answered; whether this was the first time. Durable when the transaction is.

    Answers that are too old to be taken anyway are forgotten on the way.
    """
    transaction.execute("DELETE FROM spent WHERE expires < ?", (now - LIFETIME,))
    row = (bytes.fromhex(challenged.name), challenged.expires)
    return transaction.execute("INSERT OR IGNORE INTO spent VALUES (?, ?)", row).rowcount == 1


class Sessions:
    """The sessions that are open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: Session) -> None:
        """Open a session; if there are too many the oldest ends."""
        with self._lock:
            self._sessions[session.name] = session
            while len(self._sessions) > _MAX_SESSIONS:
                self._sessions.popitem(last=False)

    def get(self, name: str, now: int) -> Session | None:
        """Return an open session; None if there is none by this name, or it has ended."""
        with self._lock:
            while self._sessions and next(iter(self._sessions.values())).expires <= now:
                self._sessions.popitem(last=False)
            found = self._sessions.get(name)
        return found if found is not None and found.expires > now else None
