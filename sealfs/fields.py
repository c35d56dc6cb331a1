"""Typed, bounded access to JSON that came from somewhere else.

Every JSON document that sealfs did not write itself is taken apart here, so that what comes out is of the right
type and size or an error has been raised.

Threading: stateless.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any, ClassVar, Self

from sealfs.errors import FormatError, IntegrityError, SealfsError

FORMAT_VERSION = 1
_MAX_INTEGER = (1 << 63) - 1


class Fields:
    """One JSON object whose members are asked for by name and type.

    Args:
        value: The parsed JSON value.
        what: Names the document in errors.

    Raises:
        IntegrityError: From every method, when the member is absent, of another type or out of bounds. Documents
            that come from elsewhere than a store have a subclass with an `error` of their own.
    """

    error: ClassVar[type[SealfsError]] = IntegrityError

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise self.error(f"{what} is not a JSON object")
        self._members: dict[str, Any] = value
        self._what = what

    @classmethod
    def parse(cls, data: bytes, what: str) -> Self:
        """Parse a JSON document whose size the caller has bounded."""
        try:
            return cls(json.loads(data), what)
        except (ValueError, RecursionError):
            raise cls.error(f"{what} is not valid JSON") from None

    def _bad(self, name: str) -> SealfsError:
        return self.error(f"{self._what} has no valid '{name}'")

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def only(self, *names: str) -> Self:
        """Return itself if it has no members but these: nothing that its writer meant is passed over."""
        for name in self._members:
            if name not in names:
                raise self.error(f"{self._what} has an unknown member '{name[:80]}'")
        return self

    def check_version(self) -> None:
        """Refuse documents of another format version.

        Raises:
            FormatError: It was written by a newer sealfs.
        """
        if self.integer("format_version", 1) != FORMAT_VERSION:
            raise FormatError(
                f"{self._what} has format version {self.integer('format_version', 1)}, "
                f"this sealfs knows {FORMAT_VERSION}"
            )

    def integer(self, name: str, low: int = 0, high: int = _MAX_INTEGER) -> int:
        """Return an integer in [low, high]."""
        value = self._members.get(name)
        if type(value) is not int or not low <= value <= high:
            raise self._bad(name)
        return value

    def boolean(self, name: str) -> bool:
        """Return true or false."""
        value = self._members.get(name)
        if not isinstance(value, bool):
            raise self._bad(name)
        return value

    def text(self, name: str, pattern: str = r".{0,4096}") -> str:
        """Return a string that matches the whole `pattern`."""
        value = self._members.get(name)
        if not isinstance(value, str) or not re.fullmatch(pattern, value, re.DOTALL):
            raise self._bad(name)
        return value

    def hexadecimal(self, name: str, size: int) -> bytes:
        """Return `size` bytes written as lower-case hex."""
        return bytes.fromhex(self.text(name, f"[0-9a-f]{{{2 * size}}}"))

    def base64(self, name: str, max_size: int) -> bytes:
        """Return at most `max_size` bytes written as base64."""
        value = self._members.get(name)
        if not isinstance(value, str) or len(value) > 4 * (max_size // 3 + 1):
            raise self._bad(name)
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise self._bad(name) from None

    def array(self, name: str, max_length: int) -> list[Any]:
        """Return a list of at most `max_length` members, still untyped."""
        value = self._members.get(name)
        if not isinstance(value, list) or len(value) > max_length:
            raise self._bad(name)
        return value

    def texts(self, name: str, max_length: int, pattern: str = r".{0,4096}") -> list[str]:
        """Return a list of strings, each of which matches the whole `pattern`."""
        members = self.array(name, max_length)
        if not all(isinstance(member, str) and re.fullmatch(pattern, member, re.DOTALL) for member in members):
            raise self._bad(name)
        return members

    def value(self, name: str) -> Any:
        """Return a member as it is, for what has a parser of its own."""
        if name not in self._members:
            raise self._bad(name)
        return self._members[name]

    def object(self, name: str) -> Self:
        """Return a nested object."""
        return type(self)(self._members.get(name), f"{self._what}.{name}")

    def objects(self, name: str, max_length: int) -> list[Self]:
        """Return a list of nested objects."""
        return [type(self)(member, f"{self._what}.{name}") for member in self.array(name, max_length)]


def canonical_json(document: object) -> bytes:
    """Return the one JSON text that sealfs writes for a document (sorted, no spaces, ASCII)."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
