"""Contracts, tasks and provenance that anybody may have written: huge, deep, malformed."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable

import pytest
from contracts.parties import approved, contract, identity
from contracts.test_provenance import made
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.mutations import HOSTILE, one_changed, parse_mutated, values
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
VALUES = values("/data", "bank-a", "\u202e", "\0")


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
    forged = json.dumps(data.draw(one_changed(json.loads(valid), VALUES))).encode()
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
    parse_mutated(*PARSERS[document], document, REFUSALS)


@EVERY
@pytest.mark.parametrize(
    "hostile",
    [
        *HOSTILE,
        b'{"contract":' * 20 + b"0" + b"}" * 20,
        b'{"format":"sealfs-contract-1","format":"sealfs-contract-1"}',
        b'{"runs":' + b"9" * 100_000 + b"}",
        b'{"runs":1e400}',
        b'{"runs":NaN}',
        b'{"title":"\\ud800"}',
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
    forged = data.draw(one_changed(signed.statement.to_json(), VALUES))
    envelope = Envelope(json.dumps(forged).encode(), signed.statement.action.payload_type, {})
    envelope.sign(identity(signed.statement.party).signing_key())
    with contextlib.suppress(*REFUSALS):
        assert approval.verify(contract(), dict(envelope.to_dict())).statement.party == signed.statement.party
