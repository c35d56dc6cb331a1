"""What fuzz tests of documents do to bytes and to JSON, and what they hand every parser."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

HOSTILE = (  # to any parser of documents
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\xff\xfe{\0}\0",
    b"\xef\xbb\xbf{}",
    b"",
    b"null",
)
NUMBERS = st.integers() | st.floats() | st.sampled_from([-1, 0, 1 << 31, 1 << 53, 1 << 63, 10**400, True, False])


def values(*texts: str) -> st.SearchStrategy[Any]:
    """JSON of any kind, now and then with one of these texts in it."""
    return st.recursive(
        st.none() | NUMBERS | st.text(max_size=20) | st.sampled_from(["", "0" * 64, *texts]),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=10,
    )


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All members of a JSON value, however deep: the keys and numbers that lead there."""
    found = [at] if at else []
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return found + [place for key in keys for place in places(value[key], (*at, key))]


def replaced(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """A copy with another value at one place, or with none if that is `...`."""
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return copy


@st.composite
def one_changed(draw: st.DrawFn, document: Any, others: st.SearchStrategy[Any]) -> Any:
    """A JSON value with one member, however deep, replaced by one of `others` or gone."""
    return replaced(document, draw(st.sampled_from(places(document))), draw(others | st.just(...)))


def mutated(valid: bytes, seed: str, count: int = 300) -> Iterator[bytes]:
    """Yield a document with one to three places changed, cut or filled: the same ones for the same seed."""
    dice = random.Random(seed)
    for _ in range(count):
        data = bytearray(valid)
        for _ in range(dice.randint(1, 3)):
            place = dice.randrange(len(data))
            data[place : place + dice.choice((0, 1, 1, 1, 20))] = dice.randbytes(dice.choice((0, 1, 1, 3)))
        yield bytes(data)


def parse_mutated(
    parse: Callable[[bytes], object], valid: bytes, seed: str, refusals: tuple[type[Exception], ...]
) -> None:
    """Have mutations of a document parsed: some are harmless, but nothing but a refusal may come out."""
    for data in mutated(valid, seed):
        with contextlib.suppress(*refusals):
            parse(data)
