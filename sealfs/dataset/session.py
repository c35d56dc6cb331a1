"""A push in progress, as others see it: the marker object that keeps `gc` away from what it has sent.

The marker `pushes/PUSH` exists from before the first object of the push is written until after the head has
moved. Its time is renewed while the push goes on; one that has not been renewed for `ABANDONED_AFTER` belongs to
a push that died and was never run again.

Threading: one thread at a time.
"""

from __future__ import annotations

import time

from sealfs.dataset.objects import PUSHES, new_push_id
from sealfs.errors import ConflictError, ObjectNotFoundError
from sealfs.store.base import ObjectStore

RENEW_EVERY = 600.0  # seconds
ABANDONED_AFTER = 7 * 24 * 3600.0  # seconds: a push that died on Friday can be resumed on Monday


class PushSession:
    """The marker of one push.

    Args:
        store: Where the dataset lies.
        push: The id of a push to go on with; None begins a new one.
    """

    def __init__(self, store: ObjectStore, push: bytes | None = None) -> None:
        self.push = push or new_push_id()
        self._store = store
        self._key = PUSHES + self.push.hex()
        self._renewed = 0.0

    def exists(self) -> bool:
        """Whether the marker is still there."""
        try:
            self._store.stat(self._key)
        except ObjectNotFoundError:
            return False
        return True

    def renew(self) -> None:
        """Write the marker, unless that was done a short while ago.

        Raises:
            ConflictError: A `gc` has removed it meanwhile, and perhaps objects of the push.
        """
        now = time.monotonic()
        if not self._renewed or now - self._renewed > RENEW_EVERY:
            if self._renewed:
                self.check()
            self._store.put(self._key, b"sealfs push in progress\n")
            self._renewed = now

    def check(self) -> None:
        """Make sure that no `gc` has given this push up, above all before the head moves.

        Raises:
            ConflictError: The marker is gone, and objects of the push may be, too.
        """
        if not self.exists():
            raise ConflictError("a 'sealfs gc' took this push for abandoned", "run the push again")

    def end(self) -> None:
        """Remove the marker: the push is visible, or given up."""
        self._store.delete([self._key])
