"""JSON that is signed or hashed: the one text of a value (RFC 8785), and a reader that takes nothing ambiguous.

Two readers of the same bytes must never see different documents, so what RFC 8259 leaves open is refused here:
duplicate names, numbers that are no safe integers, lone surrogates.

Threading: stateless.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, NoReturn, Self

import rfc8785

from sealfs.errors import DocumentError, SealfsError
from sealfs.fields import Fields

MAX_SIZE = 1 << 20  # bytes: a quote with its certificates has 5 KiB, collateral 16 KiB
MAX_DEPTH = 32
_MAX_DIGITS = 16  # of 2^53 - 1, the largest integer that every reader of JSON has exactly (RFC 7493)
_MAX_INTEGER = (1 << 53) - 1


def canonical(value: Any) -> bytes:
    """Return the RFC 8785 text of a JSON value: the same bytes wherever the same value is written.

    Raises:
        DocumentError: It has no such text: NaN, an integer above 2^53 - 1, a lone surrogate, or no JSON at all.
    """
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise DocumentError(f"this has no canonical JSON: {error}") from None


def digest(value: Any) -> str:
    """Return the SHA-256 of a value's canonical text in hex: its name wherever one is needed.

    Raises:
        DocumentError: See `canonical`.
    """
    return hashlib.sha256(canonical(value)).hexdigest()


def parse_json(data: bytes, what: str, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH) -> Any:
    """Read a JSON document that anybody may have written.

    Args:
        data: UTF-8.
        what: Names the document in errors.
        max_size: In bytes.
        max_depth: Of nested arrays and objects.

    Raises:
        DocumentError: It is none, too big, too deep, or two readers could differ about it.
    """
    if len(data) > max_size:
        raise DocumentError(f"{what} has {len(data)} bytes, more than {max_size}")

    def refuse(words: str) -> NoReturn:
        raise DocumentError(f"{what} {words}")

    def unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(members)
        if len(document) != len(members):
            refuse("names a member twice")
        return document

    def integer(digits: str) -> int:
        if len(digits.lstrip("-")) > _MAX_DIGITS or abs(value := int(digits)) > _MAX_INTEGER:
            refuse("has an integer above 2^53 - 1")
        return value

    def number(digits: str) -> NoReturn:
        del digits
        refuse("has a number that is no integer")

    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=unique,
            parse_int=integer,
            parse_float=number,
            parse_constant=number,
        )
    except (ValueError, RecursionError):
        raise DocumentError(f"{what} is not valid JSON") from None
    _check(value, what, max_depth)
    return value


def _check(value: Any, what: str, depth: int) -> None:
    """Refuse what is too deep, and strings that have no UTF-8."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DocumentError(f"{what} has a lone surrogate") from None
    elif isinstance(value, dict | list):
        if depth == 0:
            raise DocumentError(f"{what} is nested too deeply")
        for name in value:
            _check(name, what, depth - 1)
            if isinstance(value, dict):
                _check(value[name], what, depth - 1)


class Members(Fields):
    """One JSON object of a document that was handed in, whose members are asked for by name and type.

    Raises:
        DocumentError: From every method, when the member is absent, of another type or out of bounds.
    """

    error: ClassVar[type[SealfsError]] = DocumentError

    @classmethod
    def parse(cls, data: bytes, what: str) -> Self:
        """Parse a document; see `parse_json` for what is refused."""
        return cls(parse_json(data, what), what)
