"""Contracts, tasks and provenance that anybody may have written: huge, deep, malformed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from contracts.parties import approved, contract, identity
from contracts.test_provenance import made
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutations import mutated
from sealfs.contracts import approval, plain
from sealfs.contracts.contract import MAX_SIZE, Contract
from sealfs.contracts.provenance import Exhibit, Provenance
from sealfs.contracts.task import Task
from sealfs.dsse import Envelope
from sealfs.errors import ContractError, DocumentError, TrustError

REFUSALS = (DocumentError, ContractError, TrustError)


def statement(data: bytes) -> object:
    return approval.verify(contract(), json.loads(data))


def signed_provenance(payload: bytes) -> object:
    envelope = Envelope(payload, "application/vnd.in-toto+json", {})
    envelope.sign(identity("run").signing_key())
    return Provenance.parse(json.dumps(envelope.to_dict()).encode())


PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "contract": (Contract.parse, contract().to_bytes()),
    "task": (Task.parse, approved().to_bytes()),
    "envelope": (Provenance.parse, made().sign(identity("run"))),
    "provenance": (signed_provenance, json.dumps(made().to_json()).encode()),
    "exhibit": (Exhibit.parse, json.dumps(made().exhibits[0].to_json()).encode()),
}
EVERY = pytest.mark.parametrize("document", sorted(PARSERS))
NUMBERS = st.integers() | st.floats() | st.sampled_from([-1, 0, 1 << 31, 1 << 53, 1 << 63, 10**400, True, False])
VALUES = st.recursive(
    st.none() | NUMBERS | st.text(max_size=20) | st.sampled_from(["", "0" * 64, "/data", "bank-a", "\u202e", "\0"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at] if at else []
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return found + [place for key in keys for place in places(value[key], (*at, key))]


def replaced(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return copy


def test_what_is_valid_is_read() -> None:
    for parse, data in PARSERS.values():
        parse(data)


@EVERY
@settings(max_examples=40)
@given(data=st.binary(max_size=200) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_arbitrary_bytes_and_json(document: str, data: bytes) -> None:
    with pytest.raises(REFUSALS):
        PARSERS[document][0](data)


@EVERY
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_one_member_replaced_or_gone(document: str, data: st.DataObject) -> None:
    parse, valid = PARSERS[document]
    value = json.loads(valid)
    place = data.draw(st.sampled_from(places(value)))
    forged = json.dumps(replaced(value, place, data.draw(VALUES | st.just(...)))).encode()
    with contextlib.suppress(*REFUSALS):
        found = parse(forged)
        if isinstance(found, Contract):  # whatever can be signed can be read, and is one line a line
            assert Contract.parse(found.to_bytes()) == found
            text = plain.text(plain.describe(found, "bank-a"))
            assert found.digest in text
            assert all(c.isprintable() for c in text.replace("\n", ""))
            assert all(c.isprintable() for line in plain.changes(contract(), found) for c in line)


@EVERY
def test_mutated_bytes(document: str) -> None:
    parse, valid = PARSERS[document]
    for data in mutated(valid, document):
        with contextlib.suppress(*REFUSALS):
            parse(data)


@EVERY
@pytest.mark.parametrize(
    "hostile",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"contract":' * 20 + b"0" + b"}" * 20,
        b'{"format":"sealfs-contract-1","format":"sealfs-contract-1"}',
        b'{"runs":' + b"9" * 100_000 + b"}",
        b'{"runs":1e400}',
        b'{"runs":NaN}',
        b'{"title":"\\ud800"}',
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b"",
        b"null",
        b" " * (33 << 20),
        b'"' + b"x" * (33 << 20) + b'"',
    ],
    ids=range(14),
)
def test_hostile_json(document: str, hostile: bytes) -> None:
    if document == "provenance" and len(hostile) > 1 << 20:
        hostile = hostile[: 3 << 20]
    started = time.process_time()
    with pytest.raises(REFUSALS):
        PARSERS[document][0](hostile)
    assert time.process_time() - started < 5


def test_a_member_twice_is_no_contract_whatever_a_lenient_reader_would_make_of_it() -> None:
    data = contract().to_bytes()
    with pytest.raises(DocumentError, match="twice"):
        Contract.parse(data[:-1] + b',"runs":1000}')


def test_a_huge_contract_is_refused_before_it_is_read() -> None:
    with pytest.raises(DocumentError, match="bytes"):
        Contract.parse(contract().to_bytes() + b" " * MAX_SIZE)
    task = json.loads(approved().to_bytes())
    task["contract"]["function"]["arguments"] = ["x" * 4096] * 256
    with pytest.raises(DocumentError, match="too big"):
        Task.parse(json.dumps(task).encode())


def test_a_task_with_more_statements_than_anybody_makes() -> None:
    task = json.loads(approved().to_bytes())
    task["statements"] = [{}] * 10_065
    with pytest.raises(DocumentError, match="statements"):
        Task.parse(json.dumps(task).encode())


@settings(max_examples=60)
@given(data=st.data())
def test_a_rightly_signed_statement_of_any_content(data: st.DataObject) -> None:
    signed = approved().statements[0]
    payload = signed.statement.to_json()
    place = data.draw(st.sampled_from(places(payload)))
    forged = replaced(payload, place, data.draw(VALUES | st.just(...)))
    envelope = Envelope(json.dumps(forged).encode(), signed.statement.action.payload_type, {})
    envelope.sign(identity(signed.statement.party).signing_key())
    with contextlib.suppress(*REFUSALS):
        assert approval.verify(contract(), dict(envelope.to_dict())).statement.party == signed.statement.party
