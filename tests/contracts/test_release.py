"""Release by contract, at a broker: all but what everybody agreed to is refused, in words that say why."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contracts.world import ONLY_BY_CONTRACT, RUN, World, ask, client, three_brokers
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.attestation.sample import SampleProvider
from sealfs.broker.client import BrokerClient, Released
from sealfs.broker.exchange import exchange, fetch
from sealfs.contracts.shares import combine, split
from sealfs.contracts.task import State, Task
from sealfs.contracts.terms import Input, Party
from sealfs.errors import ContractError, KeyAccessError, KeyRefusedError, UsageError
from sealfs.keys import Identity
from sealfs.tasks.release import release


def test_what_everybody_signed_is_released(world: World) -> None:
    task = world.approved()
    keys = release(task.contract, Identity.generate(), RUN, SampleProvider())
    assert keys.level is Level.L1
    for owner, name in (("bank-a", "loans-a"), ("bank-b", "loans-b")):
        assert keys.keys[name].pack() == world[owner].keys[name].pack()
        last = world.log_of(owner)[-1]
        assert (last["event"], last["bound"], last["runs"]) == ("released", task.contract.digest, "1 of 2")
    assert len(keys.exhibits) == 2


@pytest.mark.parametrize("bound", [None, "00" * 32])
def test_without_the_contract_nothing_is_released(world: World, bound: str | None) -> None:
    world.approved()
    with pytest.raises(KeyRefusedError, match="contract"):
        ask(world, "bank-a", bound)
    assert world.log_of("bank-a")[-1]["event"] == "refused"


def test_one_approval_is_missing(world: World) -> None:
    for missing in ("bank-a", "bank-b", "model-co"):
        task = world.approved(but=(missing,))
        for owner in ("bank-a", "bank-b"):
            with pytest.raises(KeyRefusedError, match=f"not approved by {missing}"):
                ask(world, owner, task.contract)


def test_contract_changed_after_approval(world: World) -> None:
    task = world.approved()
    changed = replace(task.contract, runs=1000)
    with pytest.raises(KeyRefusedError, match="does not know the contract"):
        ask(world, "bank-a", changed)
    world.bring(Task(changed))  # the owner has it, but nobody has signed it
    with pytest.raises(KeyRefusedError, match="not approved by bank-a, bank-b, model-co"):
        ask(world, "bank-a", changed)


def test_withdrawn_and_replayed(world: World) -> None:
    task = world.approved()
    ask(world, "bank-a", task.contract)
    withdrawn = task.withdraw(world["bank-b"].identity, datetime.now(UTC))
    broker = world["bank-a"].broker
    assert broker is not None
    exchange(broker.address, withdrawn)  # by anybody: it speaks for itself
    exchange(broker.address, task)  # the approvals of before, replayed
    with pytest.raises(KeyRefusedError, match="'bank-b' withdrew"):
        ask(world, "bank-a", task.contract)


def test_withdrawn_however_much_others_have_said(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One party fills the list of statements, so that nobody can take anything back."""
    monkeypatch.setattr("sealfs.contracts.task.MAX_STATEMENTS", 10)
    task = world.approved()
    flooded, now = task, datetime.now(UTC)
    while len(flooded.statements) < 10:
        flooded = flooded.approve(world["model-co"].identity, now, f"word {len(flooded.statements)}")
    world.bring(flooded)
    withdrawn = task.withdraw(world["bank-b"].identity, now).withdraw(world["bank-b"].identity, now, "again")
    assert len(withdrawn.ends) == 1
    known = world.known_to("bank-a", withdrawn)
    assert list(known.withdrawals) == ["bank-b"]
    with pytest.raises(KeyRefusedError, match="'bank-b' withdrew"):
        ask(world, "bank-a", task.contract)
    world.bring(flooded, "bank-a")  # what is known already needs no room
    with pytest.raises(KeyRefusedError, match="too much was said"):
        world.bring(task.approve(world["bank-b"].identity, now, "one more"), "bank-a")


def test_canceled(world: World) -> None:
    task = world.approved()
    world.bring(task.cancel(world["bank-a"].identity, datetime.now(UTC)))
    with pytest.raises(KeyRefusedError, match="'bank-a' canceled it"):
        ask(world, "bank-b", task.contract)


def test_not_yet_valid_and_expired(world: World) -> None:
    begin = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    early = world.approved(world.contract(not_before=begin, expires=begin + timedelta(days=1)))
    with pytest.raises(KeyRefusedError, match="holds from"):
        ask(world, "bank-b", early.contract)
    task = world.approved()
    broker = world["bank-a"].broker
    assert broker is not None
    broker.clock.offset = timedelta(days=2).total_seconds()  # the broker's own clock decides
    with pytest.raises(KeyRefusedError, match="expired"):
        ask(world, "bank-a", task.contract)


def test_the_last_run_is_taken_once_by_however_many_at_the_same_time(world: World) -> None:
    task = world.approved(world.contract(runs=1))
    released: list[Released] = []
    refused: list[str] = []

    def run() -> None:
        try:
            released.append(ask(world, "bank-a", task.contract))
        except KeyRefusedError as error:
            refused.append(error.message)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(released) == 1
    assert len(refused) == 7
    assert all("all 1 agreed runs are used up" in words for words in refused)


def test_a_run_that_asks_again_uses_up_nothing(world: World) -> None:
    task = world.approved(world.contract(runs=1))
    same = client(world, "bank-a", task.contract.digest)
    data = world["bank-a"].data["loans-a"]
    for _ in range(3):
        same.resource("bank-a", bytes.fromhex(data.dataset), data.version)
    with pytest.raises(KeyRefusedError, match="used up"):
        ask(world, "bank-a", task.contract)
    ask(world, "bank-b", task.contract)  # counts for itself


def test_runs_stay_taken_when_a_broker_is_started_again(tmp_path: Path) -> None:
    import contextlib

    from broker.tools import serving, wrapper

    from sealfs.broker.home import open_home

    with three_brokers(tmp_path) as world:
        world.seal_loans()
        task = world.approved(world.contract(runs=1))
        ask(world, "bank-a", task.contract)
    home = tmp_path / "broker-bank-a"
    data = world["bank-a"].data["loans-a"]
    with contextlib.closing(open_home(home / "home", wrapper(home))) as opened, serving(opened) as (address, *_):
        again = BrokerClient(address, None, bound=task.contract.digest)
        with pytest.raises(KeyRefusedError, match="used up"):
            again.resource("bank-a", bytes.fromhex(data.dataset), data.version)


def test_another_version_than_agreed(world: World) -> None:
    task = world.approved()
    old = world["bank-a"].data["loans-a"]
    new = world.seal("bank-a", "loans-a", {"2": b"3\n"})
    assert new.version == old.version + 1
    with pytest.raises(KeyRefusedError, match="agreed is version 1"):
        ask(world, "bank-a", task.contract)  # asks for version 2
    found = client(world, "bank-a", task.contract.digest).resource(
        "bank-a", bytes.fromhex(old.dataset), old.version
    )
    assert found.sha256.hex() == old.snapshot  # the agreed one, although a newer was published


def test_another_snapshot_under_the_agreed_number(world: World) -> None:
    data = world["bank-a"].data["loans-a"]
    inputs = dict(world.contract().inputs)
    inputs["loans-a"] = replace(inputs["loans-a"], data=replace(data, snapshot="ee" * 32))
    task = world.approved(world.contract(inputs=inputs))
    with pytest.raises(KeyRefusedError, match="agreed is version 1 with its digest"):
        ask(world, "bank-a", task.contract)


def test_the_level_of_contract_and_owner_is_the_stricter_one(world: World) -> None:
    task = world.approved(world.contract(policy=Policy(Level.L5)))
    with pytest.raises(KeyRefusedError, match="needs L5; this process offered no evidence"):
        ask(world, "bank-a", task.contract)
    world.seal("bank-b", "loans-b", {"2": b"1\n"}, policy=Policy(Level.L5, contract=True))
    lax = world.approved()
    with pytest.raises(KeyRefusedError, match="needs L5"):
        ask(world, "bank-b", lax.contract)


def test_data_of_the_owner_that_is_not_in_the_contract(world: World) -> None:
    task = world.approved()
    world.seal("bank-a", "secrets", {"x": b"1\n"})
    with pytest.raises(KeyRefusedError, match="gives no right"):
        ask(world, "bank-a", task.contract, "secrets")


def test_approvals_meet_at_any_partys_broker(world: World) -> None:
    contract = world.contract()
    alone = {name: Task(contract).approve(world[name].identity, datetime.now(UTC)) for name in contract.approvers}
    world.bring(Task(contract), "bank-b")
    broker = world["bank-b"].broker
    assert broker is not None
    for task in alone.values():
        exchange(broker.address, task)  # nobody has an account there but bank-b
    found = fetch(broker.address, contract.digest)
    assert found.state(datetime.now(UTC)) is State.APPROVED
    with pytest.raises(KeyRefusedError, match="does not know"):
        fetch(broker.address, "00" * 32)


def test_of_several_owners_all_have_to_release(world: World) -> None:
    data = world.seal("bank-a", "joint", {"x": b"5\n"}, "bank-b", "model-co")
    owners = ("bank-a", "bank-b", "model-co")
    inputs = {"joint": Input(owners, world.data_path, "", data)}
    task = world.approved(world.contract(inputs=inputs))
    keys = release(task.contract, Identity.generate(), RUN, SampleProvider()).keys["joint"]
    assert keys.pack() == world["bank-a"].keys["joint"].pack()
    broker = world["model-co"].broker
    assert broker is not None
    member = broker.member()
    member.withdraw(bytes.fromhex(data.dataset), member.held(bytes.fromhex(data.dataset)).revision)
    with pytest.raises(KeyRefusedError, match="withdrawn"):
        release(task.contract, Identity.generate(), RUN, SampleProvider())


def test_all_shares_but_one_are_worth_nothing(world: World) -> None:
    keys = world["bank-a"].keys["loans-a"].with_new_epoch()
    owners = [Identity.generate().signer for _ in range(3)]
    shares = split(keys, owners)
    assert combine(shares).pack() == keys.pack()
    assert combine(shares[::-1]).pack() == keys.pack()
    for missing in range(3):
        rest = [share for number, share in enumerate(shares) if number != missing]
        assert combine(rest).pack() != keys.pack()
        assert all(share.pack() != keys.pack() for share in rest)
    assert [share.pack() for share in split(keys, owners)] == [share.pack() for share in shares]
    later = split(keys.with_new_epoch(), owners)
    assert all(new.includes(old) for new, old in zip(later, shares, strict=True))
    with pytest.raises(KeyAccessError, match="epochs"):
        combine([later[0], *shares[1:]])
    with pytest.raises(UsageError):
        split(keys, owners[:1])


def test_who_has_no_broker_can_release_nothing(world: World) -> None:
    parties = {**world.contract().parties, "bank-b": Party(world["bank-b"].identity.signer)}
    task = world.approved(world.contract(parties=parties))
    with pytest.raises(ContractError, match="'bank-b' has no broker"):
        release(task.contract, Identity.generate(), RUN, SampleProvider())


def test_a_policy_says_whether_a_contract_is_demanded() -> None:
    assert Policy.parse(b'level = "L5"\ncontract = true\n').contract
    assert Policy.from_json(ONLY_BY_CONTRACT.to_json()) == ONLY_BY_CONTRACT
    assert "contract" not in Policy(Level.L5).to_json()  # the digests of policies that there were stay
