"""JSON that is signed or hashed: one text a value, and nothing ambiguous is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealfs.attestation.canonical import MAX_DEPTH, MAX_SIZE, Members, canonical, digest, parse_json
from sealfs.errors import DocumentError

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read_back_and_written_the_same(value: Any) -> None:
    text = canonical(value)
    assert parse_json(text, "it") == value
    assert canonical(parse_json(json.dumps(value, indent=1).encode(), "it")) == text


def test_the_rfcs_order_of_names() -> None:
    # RFC 8785, section 3.2.3: by UTF-16 code units, so that the emoji (a surrogate pair) precedes U+FB33
    names = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\u0080": 6, "\u00f6": 7}
    assert list(json.loads(canonical(names)).values()) == [2, 4, 6, 7, 1, 5, 3]


@pytest.mark.parametrize("value", [2**53, float("nan"), "\ud800", {1: 2}, b"x", {"a": {"b": object()}}])
def test_what_has_no_canonical_text(value: Any) -> None:
    with pytest.raises(DocumentError):
        canonical(value)
    with pytest.raises(DocumentError):
        digest(value)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"a":1,"a":1}', "twice"),
        (b'{"a":{"b":1,"\\u0062":2}}', "twice"),
        (b"1.0", "no integer"),
        (b"1e3", "no integer"),
        (b"[NaN]", "no integer"),
        (b"-Infinity", "no integer"),
        (b"9007199254740992", "above"),
        (b"-9007199254740992", "above"),
        (b"9" * 5000, "above"),
        (b'"\\ud800"', "surrogate"),
        (b'{"\\udfff":1}', "surrogate"),
        (b'"\xff"', "valid JSON"),
        (b"\xff\xfe1\0", "valid JSON"),
        (b"\xef\xbb\xbf1", "valid JSON"),
        (b"", "valid JSON"),
        (b"{} {}", "valid JSON"),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "deeply"),
        (b"[" * 100_000, "valid JSON"),
        (b'{"a":' * 100_000, "valid JSON"),
        (b" " * (MAX_SIZE + 1), "bytes"),
    ],
)
def test_what_is_not_read(data: bytes, words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        parse_json(data, "it")


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        value = parse_json(data, "it")
    except DocumentError:
        return
    assert parse_json(canonical(value), "it") == value


def test_unknown_members_are_refused_where_a_document_has_only_some() -> None:
    members = Members.parse(b'{"a":{"c":1},"b":2}', "it")
    assert members.only("a", "b").object("a").only("c").integer("c") == 1
    with pytest.raises(DocumentError, match="'b'"):
        members.only("a")
    with pytest.raises(DocumentError, match=r"it\.a has an unknown member 'c'"):
        members.object("a").only()
