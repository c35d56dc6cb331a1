"""Release by contract, at a broker: the attacks, each of which has to be refused in words that say why."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attestation.hardware import MRENCLAVE, SyntheticProvider
from broker.tools import MACHINE

from contracts.test_provenance import made
from contracts.world import ONLY_BY_CONTRACT, World, three_brokers
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.attestation.runner import RunnerProvider
from sealfs.attestation.sample import SampleProvider
from sealfs.attestation.verdict import RegisteredManifest
from sealfs.attestation.verify import Verifier
from sealfs.broker.client import BrokerClient, Released
from sealfs.broker.exchange import bring, exchange, fetch
from sealfs.broker.transport import Answer, Connection
from sealfs.cli.task_run import sync
from sealfs.contracts.contract import Contract
from sealfs.contracts.files import save_new_task
from sealfs.contracts.provenance import Exhibit
from sealfs.contracts.shares import combine, split
from sealfs.contracts.task import State, Task
from sealfs.contracts.terms import Input, Party
from sealfs.contracts.vouching import vouch
from sealfs.errors import BrokerError, ContractError, KeyAccessError, KeyRefusedError, TrustError, UsageError
from sealfs.keys import Identity
from sealfs.tasks.release import release

FILES_A, FILES_B = {"1": b"1\n2\n"}, {"1": b"10\n20\n"}
RUN = "ab" * 16


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with three_brokers(tmp_path) as found:
        found.seal("bank-a", "loans-a", FILES_A)
        found.seal("bank-b", "loans-b", FILES_B)
        yield found


def client(world: World, owner: str, bound: str | None) -> BrokerClient:
    broker = world[owner].broker
    assert broker is not None
    return BrokerClient(broker.address, None, bound=bound)


def ask(world: World, owner: str, bound: Contract | str | None, name: str | None = None) -> Released:
    """Ask an owner's broker for their data, as an enclave that is bound to a contract would."""
    data = world[owner].data[name or f"loans-{owner[-1]}"]
    digest = bound.digest if isinstance(bound, Contract) else bound
    return client(world, owner, digest).resource(owner, bytes.fromhex(data.dataset), data.version)


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


def test_a_contract_that_is_not_known_gets_nothing_also_where_none_is_demanded(world: World) -> None:
    """What carries out contracts does what it was handed: its measurement says nothing of that."""
    runner = Identity.generate()
    policy = world.rehearse(runner.signer, "ab" * 32)
    world.seal("bank-a", "loans-a", {"2": b"7\n"}, policy=policy)
    data, broker = world["bank-a"].data["loans-a"], world["bank-a"].broker
    assert broker is not None
    assert not policy.contract

    def ask_bound_to(bound: str | None) -> Released:
        enclave = BrokerClient(broker.address, RunnerProvider(runner, "ab" * 32), bound=bound)
        return enclave.resource("bank-a", bytes.fromhex(data.dataset), data.version)

    with pytest.raises(KeyRefusedError, match="does not know the contract"):
        ask_bound_to(world.contract().digest)
    assert ask_bound_to(None).level is Level.L2


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
        world.seal("bank-a", "loans-a", FILES_A)
        world.seal("bank-b", "loans-b", FILES_B)
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


def test_data_of_the_owner_that_is_not_in_the_contract(world: World) -> None:
    task = world.approved()
    world.seal("bank-a", "secrets", {"x": b"1\n"})
    with pytest.raises(KeyRefusedError, match="gives no right"):
        ask(world, "bank-a", task.contract, "secrets")


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


def test_a_party_that_denies_its_approval_is_in_everybodys_log(world: World) -> None:
    task = world.approved()
    for owner in ("bank-a", "bank-b", "model-co"):
        said = [record for record in world.log_of(owner) if record["event"] == "said"]
        assert {record["party"] for record in said} == set(task.contract.approvers)
        assert {record["contract"] for record in said} == {task.contract.digest}
    # the log says when; the statement itself shows that it was them
    kept = {signed.statement.party: signed for signed in world.known_to("bank-a", Task(task.contract)).statements}
    assert kept["bank-b"].statement.contract == task.contract.digest


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


def test_a_policy_says_whether_a_contract_is_demanded() -> None:
    assert Policy.parse(b'level = "L5"\ncontract = true\n').contract
    assert Policy.from_json(ONLY_BY_CONTRACT.to_json()) == ONLY_BY_CONTRACT
    assert "contract" not in Policy(Level.L5).to_json()  # the digests of policies that there were stay


def test_a_rehearsal_with_evidence_and_what_vouches_for_its_results(world: World) -> None:
    """L2: an enrolled runner says what it runs, and signs contract and results' key along with it."""
    runner = Identity.generate()
    task = world.approved(world.contract(policy=world.rehearse(runner.signer, "ab" * 32)))
    with pytest.raises(KeyRefusedError, match="needs L2"):
        release(task.contract, Identity.generate(), RUN, SampleProvider())
    with pytest.raises(KeyRefusedError, match="measurement"):
        release(task.contract, Identity.generate(), RUN, RunnerProvider(runner, "cd" * 32))
    run_identity = Identity.generate()
    keys = release(task.contract, run_identity, RUN, RunnerProvider(runner, "ab" * 32))
    assert keys.level is Level.L2
    provenance = made(
        task.contract, run=RUN, signer=run_identity.signer, level=Level.L2, tee=keys.tee, exhibits=keys.exhibits,
        started=datetime.now(UTC), finished=datetime.now(UTC),
    )  # fmt: skip
    vouched = vouch(provenance, task.contract, Verifier(runners=[runner.signer], allow_sample=True))
    assert vouched.is_vouched
    with pytest.raises(TrustError, match="not enrolled"):
        vouch(provenance, task.contract, Verifier(allow_sample=True))
    with pytest.raises(TrustError, match="does not reach"):
        vouch(replace(provenance, level=Level.L5), task.contract, Verifier(runners=[runner.signer]))
    for level in (Level.L2, Level.L5):  # by anybody, who need not have asked a broker
        with pytest.raises(TrustError, match=f"nothing vouches for the result: agreed is L2, .* at {level}"):
            vouch(replace(provenance, level=level, exhibits=()), task.contract, Verifier())
    others = replace(provenance, exhibits=(Exhibit(keys.exhibits[0].runtime_data, keys.exhibits[1].evidence),))
    with pytest.raises(TrustError, match="does not verify"):
        vouch(others, task.contract, Verifier(runners=[runner.signer]))


def test_enclaves_made_of_paper_get_what_was_agreed_for_them_only(world: World) -> None:
    """L5 with synthetic hardware, under a root of the tests' own: as near as this gets without SGX."""
    measured = {"sgx": frozenset({MRENCLAVE})}
    for owner in ("bank-a", "bank-b"):
        world.seal(owner, f"loans-{owner[-1]}", {"2": b"7\n"}, policy=Policy(measurements=measured, contract=True))
        broker = world[owner].broker
        assert broker is not None
        broker.member().register(RegisteredManifest(MRENCLAVE, Level.L5))
    task = world.approved(world.contract(policy=Policy(measurements=measured)))
    run_identity = Identity.generate()
    keys = release(task.contract, run_identity, RUN, SyntheticProvider(MACHINE))
    assert keys.level is Level.L5
    for options in ({"debug": True}, {"mrenclave": "e2" * 32}):
        with pytest.raises(KeyRefusedError):
            release(task.contract, Identity.generate(), RUN, SyntheticProvider(MACHINE, **options))
    shown = world.approved(world.contract(policy=Policy(Level.L4, measurements=measured), stdout="host"))
    with pytest.raises(KeyRefusedError, match=r"needs L5.*L4"):  # the owners': at L5 the host reads nothing
        release(shown.contract, Identity.generate(), RUN, SyntheticProvider(MACHINE))
    other = world.approved(world.contract(policy=Policy(measurements={"sgx": frozenset({"e2" * 32})})))
    with pytest.raises(KeyRefusedError, match="measurement"):  # by the contract's, not the owners' policies
        release(other.contract, Identity.generate(), RUN, SyntheticProvider(MACHINE))
    now = datetime.now(UTC).replace(microsecond=0)
    provenance = made(
        task.contract, run=RUN, signer=run_identity.signer, level=Level.L5, tee=keys.tee, exhibits=keys.exhibits,
        started=now, finished=now,
    )  # fmt: skip
    broker = world["bank-a"].broker
    assert broker is not None
    vouched = vouch(provenance, task.contract, Verifier(collateral=broker.intel, intel_root=MACHINE.root_der))
    assert vouched.is_vouched
    assert any("reaches L5" in line for line in vouched.findings)
    with pytest.raises(TrustError, match="does not verify"):  # under Intel's own root it is worth nothing
        vouch(provenance, task.contract, Verifier(collateral=broker.intel))
