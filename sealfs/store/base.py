"""The one protocol every object store speaks.

Stores are dumb on purpose: named byte strings, ranged reads, conditional writes, a listing. They know nothing
of datasets, keys or files, and nothing they return is believed before it has been authenticated above.

Threading: every method may be called from many threads at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

ReadableBuffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store says of an object.

    Attributes:
        key: Name below the store's root, parts joined by "/".
        size: Length in bytes.
        etag: Opaque state token for conditional writes.
        modified: Time of last change by the store's clock, Unix seconds.
    """

    key: str
    size: int
    etag: str
    modified: float


class ObjectStore(Protocol):
    """A folder of objects.

    All methods raise `StoreError` when the store stays unreachable past its retries.
    """

    @property
    def uri(self) -> str:
        """The normalized address, the same for the same place; names the store in messages and trust pins."""

    def get(self, key: str, *, max_size: int) -> tuple[bytes, str]:
        """Return an object's bytes and its etag.

        Raises:
            ObjectNotFoundError: There is no such object.
            ObjectSizeError: It is larger than `max_size` bytes (checked before anything is allocated).
        """

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        """Fill the whole of `buffer` with the object's bytes from `offset` on.

        Raises:
            ObjectNotFoundError: There is no such object.
            ObjectSizeError: The object ends before the buffer is full. Never a short read.
        """

    def put(self, key: str, data: ReadableBuffer, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write an object atomically and return its etag.

        Args:
            key: Name of the object.
            data: All of its bytes; not kept after the call.
            if_absent: Only create; an object that exists stays.
            if_match: Only replace, and only an object that still has this etag.

        Raises:
            PreconditionFailedError: The condition did not hold; nothing was written.
        """

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object, without its bytes.

        Raises:
            ObjectNotFoundError: There is no such object.
        """

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yield all objects whose key starts with `prefix`, in no promised order."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those already gone are no error."""

    def has_conditional_writes(self) -> bool:
        """Whether conditional writes really hold here, found out by trying (then remembered)."""

    def close(self) -> None:
        """Release connections and threads. The store is not used afterwards."""
