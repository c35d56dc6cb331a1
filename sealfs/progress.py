"""How long work tells whoever watches how far it is.

Threading: `advance` may be called from many threads.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Somebody who wants to know."""

    def begin(self, what: str, total: int) -> None:
        """A phase begins that will handle `total` bytes."""

    def advance(self, count: int) -> None:
        """`count` more bytes are done."""


class Silent:
    """Nobody wants to know."""

    def begin(self, what: str, total: int) -> None:
        """See `Progress`."""

    def advance(self, count: int) -> None:
        """See `Progress`."""
