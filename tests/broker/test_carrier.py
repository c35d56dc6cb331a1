"""Contracts carried by a broker: whatever anybody sends there, in whatever order, only signed words are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from contracts.world import World, three_brokers
from fuzz.mutations import mutated
from hypothesis import given, settings
from hypothesis import strategies as st

from sealfs.broker.carrier import CONTRACT_PATH
from sealfs.broker.exchange import bring, exchange, fetch
from sealfs.broker.transport import Connection, ProblemError
from sealfs.contracts.task import Task
from sealfs.errors import SealfsError

SIGNERS = ("bank-a", "bank-b", "model-co")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with three_brokers(tmp_path_factory.mktemp("carried")) as found:
        found.seal("bank-a", "loans-a", {"1": b"1\n"})
        found.seal("bank-b", "loans-b", {"1": b"2\n"})
        yield found


def said_about(world: World, task: Task) -> list[tuple[object, object]]:
    said = [record for record in world.log_of("bank-a") if record["event"] == "said"]
    return [(each["party"], each["action"]) for each in said if each["contract"] == task.contract.digest]


def is_forged(data: bytes) -> bool:
    """Whether it is no task; a mutation can hit what does not count, such as a key's name beside a signature."""
    try:
        Task.parse(data)
    except SealfsError:
        return True
    return False


@settings(max_examples=15)
@given(parts=st.lists(st.sets(st.sampled_from(SIGNERS)), max_size=6))
def test_statements_in_any_order_and_as_often_as_anybody_likes(world: World, parts: list[set[str]]) -> None:
    """What is known is the union of what came; each statement is in the log once."""
    contract = world.contract(id=os.urandom(16).hex())
    whole = Task(contract)
    for name in SIGNERS:
        whole = whole.approve(world[name].identity, datetime.now(UTC))
    broker = world["bank-a"].broker
    assert broker is not None
    bring(broker.member(), Task(contract))
    known: set[str] = set()
    for part in parts:
        some = [signed for signed in whole.statements if signed.statement.party in part]
        known |= part
        answer = exchange(broker.address, Task(contract).with_statements(some))
        assert set(answer.approvals) == known
    assert set(fetch(broker.address, contract.digest).approvals) == known
    assert sorted(said_about(world, whole)) == sorted((name, "approve") for name in known)


def test_whatever_is_sent_nothing_else_is_kept(world: World) -> None:
    """Mutations of a task, and bytes that are none, are the client's mistake, and the log stays as it is."""
    task = world.approved(but=("bank-b",))
    before = world.log_of("bank-a")
    whole = task.approve(world["bank-b"].identity, datetime.now(UTC)).to_bytes()
    broker = world["bank-a"].broker
    assert broker is not None
    sent = [data for data in mutated(whole, "carrier", 60) if is_forged(data)]
    assert len(sent) > 40
    for data in (*sent, b"", b"[" * 10_000, b"null", whole[:-1], whole + b"x"):
        with Connection(broker.address) as connection, pytest.raises(ProblemError) as refused:
            connection.ask("POST", f"{CONTRACT_PATH}/{task.contract.digest}", data)
        assert 400 <= refused.value.problem.status < 500, data
    assert world.known_to("bank-a", task).missing == ("bank-b",)
    assert world.log_of("bank-a") == before
