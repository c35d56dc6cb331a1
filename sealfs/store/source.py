"""Where a reader gets ciphertext from: ranges of write-once objects, with or without a cache in between.

Threading: every method may be called from many threads at once.
"""

from __future__ import annotations

from typing import Protocol

from sealfs.store.base import ObjectStore


class CiphertextSource(Protocol):
    """Ranges of objects that never change."""

    def read_into(self, name: str, size: int, offset: int, buffer: memoryview) -> None:
        """Fill the whole of `buffer` with an object's bytes from `offset` on.

        Args:
            name: The object's key.
            size: The object's length in bytes, known from authentic data.
            offset: Where to start, bytes.
            buffer: What to fill; the range lies within `size`.

        Raises:
            ObjectNotFoundError: The store has no such object.
            ObjectSizeError: The object is shorter than it was.
            StoreError: It could not be read in time.
        """

    def prefetch(self, name: str, size: int, offset: int, length: int) -> None:
        """Say that a range will probably be wanted soon; returns at once."""

    def discard(self, name: str, offset: int, length: int) -> bool:
        """Forget cached copies of a range; say whether what was read may have been one, so a retry may help."""

    def close(self) -> None:
        """Release threads and files."""


class DirectSource:
    """Reads straight from a store that is as near as a cache would be.

    Args:
        store: Where the objects lie; closed with this.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def read_into(self, name: str, size: int, offset: int, buffer: memoryview) -> None:
        """See `CiphertextSource`."""
        del size
        self._store.read_into(name, offset, buffer)

    def prefetch(self, name: str, size: int, offset: int, length: int) -> None:
        """See `CiphertextSource`; the kernel reads local files ahead by itself."""

    def discard(self, name: str, offset: int, length: int) -> bool:
        """See `CiphertextSource`; nothing is cached."""
        del name, offset, length
        return False

    def close(self) -> None:
        """See `CiphertextSource`."""
        self._store.close()
