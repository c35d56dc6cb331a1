"""A cache of byte strings that never holds more than its limit.

Threading: safe from many threads; the lock is held for dictionary work only, never while bytes are copied.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")


class ByteCache(Generic[Key]):
    """Least recently used byte strings, up to `limit` bytes in all.

    Args:
        limit: Bytes; 0 keeps nothing.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[Key, bytes | bytearray | memoryview] = OrderedDict()
        self._lock = threading.Lock()
        self.size = 0

    def __contains__(self, key: Key) -> bool:
        return key in self._items

    def get(self, key: Key) -> bytes | bytearray | memoryview | None:
        """Return what is kept under `key`, now the most recently used, or None."""
        with self._lock:
            found = self._items.get(key)
            if found is not None:
                self._items.move_to_end(key)
            return found

    def put(self, key: Key, value: bytes | bytearray | memoryview) -> None:
        """Keep `value`, which must not change any more, and drop what is over the limit."""
        if len(value) > self._limit:
            self.discard(key)
            return
        with self._lock:
            old = self._items.pop(key, None)
            self._items[key] = value
            self.size += len(value) - (len(old) if old is not None else 0)
            while self.size > self._limit:
                _, dropped = self._items.popitem(last=False)
                self.size -= len(dropped)

    def discard(self, key: Key) -> bool:
        """Drop `key`; say whether it was there."""
        with self._lock:
            old = self._items.pop(key, None)
            if old is not None:
                self.size -= len(old)
            return old is not None

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._items.clear()
            self.size = 0
