"""Typed, bounded access to JSON that came from somewhere else.

Every JSON document that sealfs reads from a store is taken apart here, so that what comes out is of the right
type and size or an error has been raised.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from sealfs.errors import FormatError, IntegrityError

FORMAT_VERSION = 1
_MAX_INTEGER = (1 << 63) - 1


class Fields:
    """One JSON object whose members are asked for by name and type.

    Args:
        value: The parsed JSON value.
        what: Names the document in errors.

    Raises:
        IntegrityError: From every method, when the member is absent, of another type or out of bounds.
    """

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise IntegrityError(f"{what} is not a JSON object")
        self._members: dict[str, Any] = value
        self._what = what

    @classmethod
    def parse(cls, data: bytes, what: str) -> Fields:
        """Parse a JSON document whose size the caller has bounded."""
        try:
            return cls(json.loads(data), what)
        except (ValueError, RecursionError):
            raise IntegrityError(f"{what} is not valid JSON") from None

    def _bad(self, name: str) -> IntegrityError:
        return IntegrityError(f"{self._what} has no valid '{name}'")

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

    def object(self, name: str) -> Fields:
        """Return a nested object."""
        return Fields(self._members.get(name), f"{self._what}.{name}")

    def objects(self, name: str, max_length: int) -> list[Fields]:
        """Return a list of nested objects."""
        return [Fields(member, f"{self._what}.{name}") for member in self.array(name, max_length)]


def canonical_json(document: object) -> bytes:
    """Return the one JSON text that sealfs writes for a document (sorted, no spaces, ASCII)."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
