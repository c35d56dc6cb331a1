"""Statements: whose signature counts, on what, and what no replay can bring back."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.parties import LATER, NOW, approved, contract, identity
from sealfs.contracts import approval
from sealfs.contracts.approval import Action, Signed, Statement
from sealfs.contracts.contract import Contract
from sealfs.contracts.task import State, Task
from sealfs.contracts.terms import Output
from sealfs.dataset.snapshot import PAYLOAD_TYPE as SNAPSHOT_TYPE
from sealfs.dsse import Envelope
from sealfs.errors import ContractError, DocumentError, TrustError
from sealfs.keys import Identity

RUN = "ab" * 16


def envelope(payload: bytes, payload_type: str, *who: Identity) -> dict[str, Any]:
    made = Envelope(payload, payload_type, {})
    for signer in who:
        made.sign(signer.signing_key())
    return dict(made.to_dict())


def approval_of(name: str, agreed: Contract | None = None) -> Signed:
    return approval.sign(agreed or contract(), Action.APPROVE, identity(name), NOW)


def test_a_statement_is_believed_by_everybody_who_has_the_contract() -> None:
    signed = approval_of("bank-b")
    carried = json.loads(json.dumps(signed.envelope))
    assert approval.verify(contract(), carried).statement == signed.statement
    assert signed.statement.party == "bank-b"


def test_a_contract_that_was_changed_after_approval_is_approved_by_nobody() -> None:
    task = approved()
    edited = contract(runs=3)
    for signed in task.statements:
        with pytest.raises(ContractError, match="another contract"):
            approval.verify(edited, signed.envelope)
    document = json.loads(task.to_bytes())
    document["contract"]["runs"] = 3
    with pytest.raises(ContractError, match="another contract"):
        Task.parse(json.dumps(document).encode())
    assert task.edited(edited).statements == ()


def test_an_approval_replayed_on_another_contract_is_refused() -> None:
    again = contract(id="f" * 32)  # the same words under another id: agreed on once is not agreed on twice
    with pytest.raises(ContractError, match="another contract"):
        approval.verify(again, approval_of("bank-a").envelope)


def test_an_approval_replayed_after_withdrawal_changes_nothing() -> None:
    task = approved()
    withdrawn = task.withdraw(identity("bank-b"), NOW + timedelta(hours=1))
    replayed = withdrawn.with_statement(approval_of("bank-b"))
    later = approval.sign(contract(), Action.APPROVE, identity("bank-b"), NOW + timedelta(hours=2))
    for now in (
        withdrawn,
        replayed,
        replayed.with_statement(later),
        task.merged(withdrawn),
        withdrawn.merged(task),
    ):
        assert "bank-b" not in now.approvals
        assert now.state(NOW + timedelta(hours=3)) is State.CANCELED
        with pytest.raises(ContractError, match="'bank-b' withdrew"):
            now.check_approved(NOW + timedelta(hours=3))
    with pytest.raises(ContractError, match="final"):
        withdrawn.approve(identity("bank-b"), NOW + timedelta(hours=2))


def test_an_approval_by_a_key_that_is_not_the_partys() -> None:
    statement = approval_of("bank-b").statement
    payload = approval.canonical(statement.to_json())
    for forger in (identity("bank-a"), identity("cloud"), Identity.generate()):
        with pytest.raises(TrustError, match="not signed by the key"):
            approval.verify(contract(), envelope(payload, Action.APPROVE.payload_type, forger))
    with pytest.raises(ContractError, match="none of the contract's parties"):
        approval.sign(contract(), Action.APPROVE, Identity.generate(), NOW)
    unsigned = envelope(payload, Action.APPROVE.payload_type)
    with pytest.raises(TrustError):
        approval.verify(contract(), unsigned)


def test_a_party_with_another_key_is_another_contract() -> None:
    forger = Identity.generate()
    parties = {**contract().parties, "bank-b": replace(contract().parties["bank-b"], signer=forger.signer)}
    forged = contract(parties=parties)
    assert forged.digest != contract().digest  # so nobody else's approval is good for it
    task = Task(forged).approve(forger, NOW)
    assert "bank-b" in task.approvals  # the forger's own contract; brokers compare the owner's key with theirs
    with pytest.raises(ContractError):
        task.with_statement(approval.verify(forged, approval_of("bank-a").envelope))


@pytest.mark.parametrize("payload_type", [SNAPSHOT_TYPE, "application/vnd.in-toto+json", "text/plain", ""])
def test_a_signature_of_another_kind_is_no_approval(payload_type: str) -> None:
    payload = approval.canonical(approval_of("bank-b").statement.to_json())
    made = envelope(payload, payload_type or "x", identity("bank-b"))
    with pytest.raises(DocumentError, match="no statement"):
        approval.verify(contract(), made)
    with pytest.raises(TrustError):
        approval.verify(contract(), {**made, "payloadType": Action.APPROVE.payload_type})


def test_a_withdrawal_is_no_approval_under_another_label() -> None:
    signed = approval.sign(contract(), Action.WITHDRAW, identity("bank-b"), NOW)
    relabelled = {**signed.envelope, "payloadType": Action.APPROVE.payload_type}
    with pytest.raises((TrustError, DocumentError)):
        approval.verify(contract(), relabelled)


@pytest.mark.parametrize(
    ("action", "who"),
    [
        (Action.APPROVE, "cloud"),
        (Action.WITHDRAW, "cloud"),
        (Action.CANCEL, "bank-b"),
        (Action.CANCEL, "cloud"),
        *((action, "bank-a") for action in sorted(approval.RUN_ACTIONS)),
        (Action.VOTE, "bank-a"),
    ],
)
def test_who_has_no_say(action: Action, who: str) -> None:
    members: dict[str, Any] = {"run": RUN} if action in approval.RUN_ACTIONS else {}
    if action is Action.VOTE:
        members = {"run": RUN, "output": "model", "shares": {"bank-a": b"x"}}
    with pytest.raises(ContractError, match="no say"):
        approval.sign(contract(), action, identity(who), NOW, **members)
    statement = Statement(action, contract().id, contract().digest, who, NOW, **members)
    made = envelope(approval.canonical(statement.to_json()), action.payload_type, identity(who))
    with pytest.raises(ContractError, match="no say"):
        approval.verify(contract(), made)


def test_a_vote_is_for_exactly_the_recipients_of_that_output() -> None:
    outputs = {
        "model": Output(("bank-a",), "/out", 1, 1, ("bank-b",)),
        "report": Output(("bank-a", "bank-b"), "/report", 1, 1, ("model-co",)),
    }
    agreed = contract(outputs=outputs)
    for who, output, shares in (
        ("bank-b", "report", {"bank-a": b"x", "bank-b": b"x"}),
        ("model-co", "report", {"bank-a": b"x"}),
        ("bank-b", "model", {"bank-a": b"x", "cloud": b"x"}),
        ("bank-b", "nothing", {"bank-a": b"x"}),
    ):
        with pytest.raises(ContractError):
            approval.sign(agreed, Action.VOTE, identity(who), NOW, run=RUN, output=output, shares=shares)
    signed = approval.sign(
        agreed, Action.VOTE, identity("bank-b"), NOW, run=RUN, output="model", shares={"bank-a": b"x"}
    )
    assert Task(agreed).with_statement(signed).votes(RUN, "model").keys() == {"bank-b"}


def test_a_party_cannot_deny_what_it_signed() -> None:
    task = Task.parse(approved().to_bytes())
    said = {signed.statement.party: signed for signed in task.statements}
    # what a judge needs: the contract, the envelope, and any implementation of DSSE
    shown = Envelope.from_dict(dict(said["bank-b"].envelope))
    shown.verify([identity("bank-b").signer.verification_key()], 1)
    assert json.loads(shown.payload)["contract"] == contract().digest


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_statement_is_never_believed(place: int, bit: int) -> None:
    signed = approval_of("bank-b")
    for member in ("payload", "sig"):
        forged = json.loads(json.dumps(signed.envelope))
        holder = forged if member == "payload" else forged["signatures"][0]
        raw = bytearray(base64.b64decode(holder[member]))
        raw[place % len(raw)] ^= 1 << bit
        holder[member] = base64.b64encode(raw).decode()
        with pytest.raises((ContractError, DocumentError, TrustError)):
            approval.verify(contract(), forged)


def test_times_of_approvals_are_the_signers_word_and_bind_nothing() -> None:
    late = Task(contract()).with_statement(
        approval.sign(contract(), Action.APPROVE, identity("bank-a"), LATER + timedelta(days=1))
    )
    assert "bank-a" in late.approvals
    with pytest.raises(ContractError, match="not approved by bank-b, model-co"):
        late.check_approved(NOW)
