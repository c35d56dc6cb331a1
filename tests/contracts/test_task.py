"""A task's states: a model that knows the rules in other words, and what the rules are for."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from contracts.parties import LATER, NAMES, NOW, approved, contract, data, identity
from sealfs.contracts.approval import Action
from sealfs.contracts.draft import assigned
from sealfs.contracts.task import State, Task
from sealfs.contracts.terms import Input
from sealfs.errors import ContractError

PARTIES = st.sampled_from(NAMES)


def test_from_the_first_word_to_the_last_run() -> None:
    half = contract(
        inputs={"loans-a": contract().inputs["loans-a"], "loans-b": Input(("bank-b",), "/data", "b_")}, runs=2
    )
    task = Task(half)
    assert task.state(NOW) is State.CREATED
    with pytest.raises(ContractError, match="not every input"):
        task.approve(identity("bank-a"), NOW)
    task = task.edited(assigned(half, "loans-b", data(2)))
    assert task.state(NOW) is State.DATA_ASSIGNED
    for name in task.contract.approvers:
        assert task.state(NOW) is State.DATA_ASSIGNED
        task = task.approve(identity(name), NOW)
    assert task.state(NOW) is State.APPROVED
    for left in (1, 0):
        task, run = task.stage(identity("cloud"), NOW)
        assert task.state(NOW) is State.STAGED
        task = task.report(Action.START, identity("cloud"), NOW, run)
        assert task.state(NOW) is State.RUNNING
        task = task.report(Action.FINISH, identity("cloud"), NOW, run)
        assert task.runs_left == left
        assert task.state(NOW) is (State.APPROVED if left else State.FINISHED)
    with pytest.raises(ContractError, match="all 2 agreed runs are used up"):
        task.stage(identity("cloud"), NOW)
    assert Task.parse(task.to_bytes()) == task


def test_a_single_participant_has_to_sign_as_well() -> None:
    alone = contract(
        inputs={"loans-a": contract().inputs["loans-a"]},
        function=replace(contract().function, owner="bank-a"),
        operator="bank-a",
    )
    assert Task(alone).state(NOW) is State.DATA_ASSIGNED
    with pytest.raises(ContractError, match="not approved by bank-a"):
        Task(alone).stage(identity("bank-a"), NOW)


def test_everything_expires() -> None:
    task = approved()
    assert task.state(LATER - timedelta(seconds=1)) is State.APPROVED
    assert task.state(LATER) is State.CANCELED
    with pytest.raises(ContractError, match="expired"):
        task.stage(identity("cloud"), LATER)
    with pytest.raises(ContractError, match="expired"):
        Task(contract()).approve(identity("bank-a"), LATER)
    with pytest.raises(ContractError, match="holds from"):
        task.stage(identity("cloud"), NOW - timedelta(seconds=1))


def test_a_run_that_never_started_uses_up_nothing() -> None:
    task, run = approved(contract(runs=1)).stage(identity("cloud"), NOW)
    assert task.runs_left == 0  # claimed
    with pytest.raises(ContractError, match="used up"):
        task.stage(identity("cloud"), NOW)
    task = task.report(Action.FAIL, identity("cloud"), NOW, run)
    assert task.runs_left == 1
    assert task.state(NOW) is State.APPROVED


def test_a_run_that_failed_after_it_had_keys_is_used_up() -> None:
    task, run = approved(contract(runs=1)).stage(identity("cloud"), NOW)
    task = task.report(Action.START, identity("cloud"), NOW, run)
    task = task.report(Action.FAIL, identity("cloud"), NOW, run)
    assert task.runs_left == 0
    assert task.state(NOW) is State.FAILED


@pytest.mark.parametrize("action", [Action.START, Action.FINISH, Action.FAIL])
def test_a_run_goes_its_way_once(action: Action) -> None:
    task, run = approved().stage(identity("cloud"), NOW)
    if action is Action.FINISH:
        with pytest.raises(ContractError, match="Staged"):
            task.report(action, identity("cloud"), NOW, run)
    with pytest.raises(ContractError, match="unknown"):
        task.report(action, identity("cloud"), NOW, "00" * 16)
    task = task.report(Action.START, identity("cloud"), NOW, run)
    task = task.report(Action.FINISH, identity("cloud"), NOW, run)
    with pytest.raises(ContractError, match="Finished"):
        task.report(action, identity("cloud"), NOW, run)
    with pytest.raises(ContractError, match="id already"):
        task.stage(identity("cloud"), NOW, run)


def test_what_has_been_run_is_edited_no_more() -> None:
    task, _ = approved().stage(identity("cloud"), NOW)
    with pytest.raises(ContractError, match="has been run"):
        task.edited(contract(runs=5))


@given(order=st.permutations(range(5)), twice=st.booleans())
def test_copies_merge_in_any_order(order: list[int], twice: bool) -> None:
    task, run = approved().stage(identity("cloud"), NOW)
    task = task.report(Action.START, identity("cloud"), NOW + timedelta(seconds=1), run)
    assert len(task.statements) == 5
    merged = Task(contract())
    for number in [*order, *(order if twice else [])]:
        merged = merged.merged(Task(contract()).with_statement(task.statements[number]))
    assert merged == task
    assert merged.to_bytes() == task.to_bytes()


def test_copies_of_different_contracts_do_not_merge() -> None:
    with pytest.raises(ContractError, match="another contract"):
        approved().merged(approved(contract(runs=7)))


class Life(RuleBasedStateMachine):
    """A task whose parties do anything at all at any time, beside a model of who may do what."""

    @initialize(runs=st.integers(1, 3))
    def begin(self, runs: int) -> None:
        half = contract(
            inputs={"loans-a": contract().inputs["loans-a"], "loans-b": Input(("bank-b",), "/data", "b_")},
            runs=runs,
        )
        self.task, self.now = Task(half), NOW - timedelta(days=1)
        self.max_runs, self.numbers = runs, itertools.count(2)
        self._forget()
        self.runs: dict[str, str] = {}
        self.has_data = False

    def _forget(self) -> None:
        self.signed: set[str] = set()
        self.withdrew: set[str] = set()
        self.canceled = False

    def _try(self, allowed: bool, do: object) -> Task | None:
        assert callable(do)
        try:
            result = do()
        except ContractError:
            assert not allowed
            return None
        assert allowed
        self.task = result[0] if isinstance(result, tuple) else result
        return self.task

    @property
    def used(self) -> int:
        return sum(state in {"started", "finished", "crashed"} for state in self.runs.values())

    @property
    def claimed(self) -> int:
        return sum(state == "staged" for state in self.runs.values())

    @property
    def open(self) -> bool:
        return (
            self.has_data
            and not self.canceled
            and not self.withdrew
            and self.signed == {"bank-a", "bank-b", "model-co"}
        )

    @rule(days=st.sampled_from([0.0, 0.1, 1.0, 5.0, 25.0]))
    def time_passes(self, days: float) -> None:
        self.now += timedelta(days=days)

    @rule()
    def assign(self) -> None:
        edited = assigned(self.task.contract, "loans-b", data(next(self.numbers)))
        if self._try(not self.runs, lambda: self.task.edited(edited)):
            self._forget()
            self.has_data = True

    @rule(who=PARTIES)
    def approve(self, who: str) -> None:
        allowed = (
            self.has_data and who != "cloud" and who not in self.withdrew and not self.canceled and self.now < LATER
        )
        if self._try(allowed, lambda: self.task.approve(identity(who), self.now)):
            self.signed.add(who)

    @rule(who=st.sampled_from(["model-co", "cloud", "bank-b"]))
    def withdraw(self, who: str) -> None:
        if self._try(who != "cloud", lambda: self.task.withdraw(identity(who), self.now)):
            self.withdrew.add(who)

    @rule(who=PARTIES)
    def cancel(self, who: str) -> None:
        if self._try(who == "bank-a", lambda: self.task.cancel(identity(who), self.now)):
            self.canceled = True

    @rule(who=st.sampled_from(["cloud", "cloud", "bank-a"]))
    def stage(self, who: str) -> None:
        allowed = (
            who == "cloud" and self.open and NOW <= self.now < LATER and self.used + self.claimed < self.max_runs
        )
        if self._try(allowed, lambda: self.task.stage(identity(who), self.now)):
            (new,) = set(self.task.runs) - set(self.runs)
            self.runs[new] = "staged"

    @precondition(lambda self: self.runs)
    @rule(pick=st.integers(0, 5), action=st.sampled_from([Action.START, Action.FINISH, Action.FAIL]))
    def report(self, pick: int, action: Action) -> None:
        run = sorted(self.runs)[pick % len(self.runs)]
        becomes = {
            ("staged", Action.START): "started",
            ("started", Action.FINISH): "finished",
            ("started", Action.FAIL): "crashed",
            ("staged", Action.FAIL): "never",
        }.get((self.runs[run], action))
        if self._try(becomes is not None, lambda: self.task.report(action, identity("cloud"), self.now, run)):
            assert becomes is not None
            self.runs[run] = becomes

    @rule()
    def travel(self) -> None:
        self.task = Task.parse(self.task.to_bytes())

    @invariant()
    def the_state_is_what_the_model_says(self) -> None:
        if not hasattr(self, "task"):
            return
        states = set(self.runs.values())
        done = "finished" in states
        if "started" in states:
            expected = State.RUNNING
        elif "staged" in states:
            expected = State.STAGED
        elif self.used >= self.max_runs:
            expected = State.FINISHED if done else State.FAILED
        elif self.canceled or self.withdrew:
            expected = State.CANCELED
        elif self.now >= LATER:
            expected = State.FINISHED if done else State.CANCELED
        elif not self.has_data:
            expected = State.CREATED
        else:
            expected = State.APPROVED if self.open else State.DATA_ASSIGNED
        assert self.task.state(self.now) is expected
        assert self.task.runs_left == self.max_runs - self.used - self.claimed

    @invariant()
    def nothing_is_released_that_was_not_agreed(self) -> None:
        if not hasattr(self, "task"):
            return
        try:
            self.task.check_approved(self.now)
        except ContractError:
            assert not (self.open and NOW <= self.now < LATER)
        else:
            assert self.open
            assert NOW <= self.now < LATER


def _live(examples: int, steps: int) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        Life, settings=settings(settings.default, max_examples=examples, stateful_step_count=steps)
    )


def test_any_life() -> None:
    _live(30, 30)


@pytest.mark.slow
def test_many_lives() -> None:
    _live(300, 60)


@given(when=st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2030, 1, 1)))
def test_time_alone_never_approves_anything(when: datetime) -> None:
    at = when.replace(tzinfo=NOW.tzinfo)
    assert Task(contract()).state(at) in {State.DATA_ASSIGNED, State.CANCELED}
