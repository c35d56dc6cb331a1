"""Release by contract where somebody lies, a broker, a party or a forger of contracts: each is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.world import RUN, World, ask, client
from sealfs.attestation.sample import SampleProvider
from sealfs.broker.client import BrokerClient, Released
from sealfs.broker.exchange import bring, exchange
from sealfs.broker.transport import Answer, Connection
from sealfs.cli.task_run import sync
from sealfs.contracts.files import save_new_task
from sealfs.contracts.task import Task
from sealfs.contracts.terms import Party
from sealfs.errors import BrokerError, ContractError, KeyRefusedError, TrustError
from sealfs.keys import Identity
from sealfs.tasks.release import release


@pytest.mark.parametrize("answer", [b"{}", b"\0", b"another contract"])
def test_a_broker_that_answers_nonsense_keeps_nobody_from_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: bytes
) -> None:
    task = world.approved()
    if answer == b"another contract":
        answer = Task(world.contract()).to_bytes()
    withdrawn = task.withdraw(world["bank-b"].identity, datetime.now(UTC))
    path, hostile = tmp_path / "task", world["bank-a"].broker
    save_new_task(path, withdrawn)
    assert hostile is not None
    genuine = Connection.ask

    def ask_hostile(connection: Connection, method: str, where: str, body: bytes | None = None) -> Answer:
        found = genuine(connection, method, where, body)
        return Answer(answer, None) if connection.identity == hostile.address.identity else found

    monkeypatch.setattr(Connection, "ask", ask_hostile)
    sync(path, world["bank-b"].identity)
    monkeypatch.undo()
    for name in ("bank-b", "model-co"):
        assert list(world.known_to(name, task).withdrawals) == ["bank-b"]


def test_a_contract_with_another_key_for_the_owner(world: World) -> None:
    """Somebody writes a contract in which 'bank-a' has a key of theirs, and signs for everybody."""
    forgers = {name: Identity.generate() for name in ("bank-a", "bank-b", "model-co", "cloud")}
    parties = {
        name: Party(forger.signer, forger.recipient, world[name].party.broker) for name, forger in forgers.items()
    }
    forged = Task(world.contract(parties=parties))
    for name in forged.contract.approvers:
        forged = forged.approve(forgers[name], datetime.now(UTC))
    forged.check_approved(datetime.now(UTC))  # by itself it is all in order
    broker = world["bank-a"].broker
    assert broker is not None
    with pytest.raises(KeyRefusedError, match="does not know that contract"):
        exchange(broker.address, forged)
    with pytest.raises(KeyRefusedError, match="no party of that contract"):
        bring(broker.member(), forged)
    # even where the real bank-a takes part under another name, and so may bring it
    parties["guest"] = world["bank-a"].party
    with_guest = Task(replace(forged.contract, parties=parties))
    for name in with_guest.contract.approvers:
        with_guest = with_guest.approve(forgers[name], datetime.now(UTC))
    bring(broker.member(), with_guest)
    with pytest.raises(KeyRefusedError, match="with the key that this broker knows"):
        ask(world, "bank-a", with_guest.contract)


def test_one_compromised_broker_gives_away_that_owners_data_only(world: World) -> None:
    """The broker of bank-a obeys an attacker: who needs bank-b's key still needs bank-b's broker."""
    unapproved = Task(world.contract()).approve(world["bank-a"].identity, datetime.now(UTC))
    world.bring(unapproved)
    # it could hand out what it holds, which is bank-a's; it holds nothing of others
    data = world["bank-b"].data["loans-b"]
    with pytest.raises(KeyRefusedError, match="no bank-b/"):
        client(world, "bank-a", None).resource("bank-b", bytes.fromhex(data.dataset), data.version)
    # and whatever it claims about approvals, others check the signatures themselves
    with pytest.raises(KeyRefusedError, match="not approved by bank-b, model-co"):
        ask(world, "bank-b", unapproved.contract)
    # its word in the task's file is worth nothing either: the file has no place for it but signatures
    with pytest.raises(ContractError, match="not approved by bank-b"):
        world.known_to("bank-a", unapproved).check_approved(datetime.now(UTC))


@pytest.mark.parametrize("lie", [{"version": 2}, {"sha256": bytes(32)}], ids=["version", "snapshot"])
def test_a_compromised_broker_that_releases_something_else_than_agreed(
    lie: dict[str, Any], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its word does not move a run to other data: inside, what is released is compared with the contract."""
    honest = BrokerClient.resource

    def resource(self: BrokerClient, owner: str, dataset: bytes, version: int | None = None) -> Released:
        answer = honest(self, owner, dataset, version)
        return replace(answer, **lie) if owner == "bank-a" else answer

    monkeypatch.setattr(BrokerClient, "resource", resource)
    task = world.approved()
    with pytest.raises(TrustError, match="broker of 'bank-a' releases another version of loans-a than agreed"):
        release(task.contract, Identity.generate(), RUN, SampleProvider())


def test_a_forged_approval_is_carried_by_no_broker(world: World) -> None:
    task = world.approved(but=("bank-b",))
    document = task.to_json()
    approval = next(iter(document["statements"]))
    broker = world["bank-a"].broker
    assert broker is not None
    signer = Identity.generate()
    from sealfs.attestation.canonical import canonical
    from sealfs.contracts.approval import Action, Statement
    from sealfs.dsse import Envelope

    said = Statement(Action.APPROVE, task.contract.id, task.contract.digest, "bank-b", datetime.now(UTC))
    envelope = Envelope(canonical(said.to_json()), Action.APPROVE.payload_type, {})
    envelope.sign(signer.signing_key())
    forged = {**document, "statements": [approval, envelope.to_dict()]}
    from sealfs.broker.carrier import CONTRACT_PATH
    from sealfs.broker.transport import Connection, ProblemError

    with Connection(broker.address) as connection, pytest.raises(ProblemError, match="not signed by the key"):
        connection.ask("POST", f"{CONTRACT_PATH}/{task.contract.digest}", canonical(forged))
    with pytest.raises(KeyRefusedError, match="not signed by the key"):  # nor if a member brings it
        broker.member(world["bank-a"].identity).call("contract", {"task": forged})
    with Connection(broker.address) as connection, pytest.raises(ProblemError, match="about another contract"):
        connection.ask("POST", f"{CONTRACT_PATH}/{'00' * 32}", task.to_bytes())
    assert world.known_to("bank-a", task).missing == ("bank-b",)


def test_a_party_that_denies_its_approval_is_in_everybodys_log(world: World) -> None:
    task = world.approved()
    for owner in ("bank-a", "bank-b", "model-co"):
        said = [record for record in world.log_of(owner) if record["event"] == "said"]
        assert {record["party"] for record in said} == set(task.contract.approvers)
        assert {record["contract"] for record in said} == {task.contract.digest}
    # the log says when; the statement itself shows that it was them
    kept = {signed.statement.party: signed for signed in world.known_to("bank-a", Task(task.contract)).statements}
    assert kept["bank-b"].statement.contract == task.contract.digest


def test_a_broker_that_stands_in_for_another(world: World) -> None:
    parties = dict(world.contract().parties)
    theirs, mine = parties["bank-a"].broker, parties["bank-b"].broker
    assert theirs is not None
    assert mine is not None
    moved = theirs.split("#")[0] + "#" + mine.split("#")[1]
    parties["bank-b"] = replace(parties["bank-b"], broker=moved)
    task = world.approved(world.contract(parties=parties))
    with pytest.raises(BrokerError, match=r"is sha256:.*, not sha256:"):
        release(task.contract, Identity.generate(), RUN, SampleProvider())
