"""A contract with what its parties have said about it so far, and the state that follows.

The states are Teaclave's task's (https://teaclave.apache.org), with what it lacks: an approval is a signature and
not a login, nobody's approval is taken for granted (a single participant signs, too), everything expires, and a
task may run as often as was agreed.

The state is not stored anywhere: it follows from the contract, the signed statements, and the time. A task is read
from a file that anybody may have written, and is verified whole before anything of it is used. Two copies merge by
putting their statements together, in any order.

Threading: immutable.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Final

from sealfs.attestation.canonical import Members, canonical, parse_json
from sealfs.contracts import approval, terms
from sealfs.contracts.approval import RUN_ID_SIZE, Action, Signed, Statement
from sealfs.contracts.contract import MAX_SIZE as MAX_CONTRACT_SIZE
from sealfs.contracts.contract import Contract, shown_time
from sealfs.contracts.lock import Lock
from sealfs.errors import ContractError, DocumentError
from sealfs.keys import Identity

FORMAT: Final = "sealfs-task-1"
MAX_SIZE: Final = 16 << 20  # bytes
MAX_STATEMENTS: Final = 10_000  # besides withdrawals and the cancellation
_MAX_DEPTH: Final = 12


class State(StrEnum):
    """How far a task has come."""

    CREATED = "Created"
    DATA_ASSIGNED = "DataAssigned"
    APPROVED = "Approved"
    STAGED = "Staged"
    RUNNING = "Running"
    FINISHED = "Finished"
    CANCELED = "Canceled"
    FAILED = "Failed"


@dataclass(frozen=True)
class Run:
    """What the operator has said of one run."""

    id: str
    statements: Mapping[Action, Statement]

    @property
    def state(self) -> State:
        """Staged, Running, Finished or Failed."""
        if Action.FAIL in self.statements:
            return State.FAILED
        if Action.FINISH in self.statements:
            return State.FINISHED
        return State.RUNNING if Action.START in self.statements else State.STAGED

    @property
    def counts(self) -> bool:
        """Whether one of the agreed runs was used up: keys may have been released."""
        return Action.START in self.statements or Action.FINISH in self.statements


@dataclass(frozen=True)
class Task:
    """A contract and the verified statements about it.

    Attributes:
        contract: What is agreed on.
        statements: In the order of their times.
    """

    contract: Contract
    statements: tuple[Signed, ...] = field(default=())

    # --- what follows from the statements ---

    def _said(self, action: Action) -> dict[str, Statement]:
        """Return who said something, with the first time they did."""
        said: dict[str, Statement] = {}
        for signed in self.statements:
            if signed.statement.action is action:
                said.setdefault(signed.statement.party, signed.statement)
        return said

    @cached_property
    def withdrawals(self) -> Mapping[str, Statement]:
        """Who will not have it any more; final."""
        return self._said(Action.WITHDRAW)

    @cached_property
    def approvals(self) -> Mapping[str, Statement]:
        """Whose approval stands."""
        return {name: said for name, said in self._said(Action.APPROVE).items() if name not in self.withdrawals}

    @property
    def ends(self) -> tuple[Signed, ...]:
        """The withdrawals and the cancellation, signed."""
        return tuple(signed for signed in self.statements if signed.statement.action in approval.FINAL)

    @property
    def missing(self) -> tuple[str, ...]:
        """Who has still to approve."""
        return tuple(name for name in self.contract.approvers if name not in self.approvals)

    @cached_property
    def cancellation(self) -> Statement | None:
        """The creator's cancellation, if there is one."""
        return next(iter(self._said(Action.CANCEL).values()), None)

    @cached_property
    def runs(self) -> Mapping[str, Run]:
        """What the operator has said of each run, by id, in the order in which they were first heard of."""
        found: dict[str, dict[Action, Statement]] = {}
        for signed in self.statements:
            statement = signed.statement
            if statement.action in approval.RUN_ACTIONS and statement.run is not None:
                found.setdefault(statement.run, {}).setdefault(statement.action, statement)
        return {run: Run(run, said) for run, said in found.items()}

    @property
    def runs_left(self) -> int:
        """How many runs are left by what the operator has said; each owner's broker counts for itself."""
        taken = sum(run.counts or run.state is State.STAGED for run in self.runs.values())
        return max(0, self.contract.runs - taken)

    def votes(self, run: str, output: str) -> Mapping[str, Statement]:
        """Return who voted for the release of an output of a run."""
        said: dict[str, Statement] = {}
        for signed in self.statements:
            statement = signed.statement
            if (statement.action, statement.run, statement.output) == (Action.VOTE, run, output):
                said.setdefault(statement.party, statement)
        return said

    def state(self, at: datetime) -> State:
        """Return how far it has come at a time."""
        states = [run.state for run in self.runs.values()]
        for active in (State.RUNNING, State.STAGED):
            if active in states:
                return active
        over = State.FINISHED if State.FINISHED in states else None
        if self.runs_left == 0:
            return over or State.FAILED
        if self.cancellation or self.withdrawals:
            return State.CANCELED
        if at >= self.contract.expires:
            return over or State.CANCELED
        if not self.contract.is_complete:
            return State.CREATED
        return State.DATA_ASSIGNED if self.missing else State.APPROVED

    def check_approved(self, at: datetime) -> None:
        """Refuse unless every approver has signed exactly this, nobody took it back, and it is its time.

        Raises:
            ContractError: Says what is missing.
        """
        if self.cancellation is not None:
            raise ContractError(f"'{self.cancellation.party}' canceled it at {shown_time(self.cancellation.time)}")
        for name, said in self.withdrawals.items():
            raise ContractError(
                f"'{name}' withdrew at {shown_time(said.time)}", "a new contract can be agreed on: sealfs task new"
            )
        if not self.contract.is_complete:
            raise ContractError("not every input has its data yet", "its owners name it: sealfs task assign")
        if self.missing:
            raise ContractError(
                f"not approved by {', '.join(self.missing)}",
                "each reads it ('task show') and signs: sealfs task approve",
            )
        self.contract.check_time(at)

    # --- what parties do ---

    def with_statement(self, signed: Signed) -> Task:
        """Return the task with one statement more; one that is there already changes nothing."""
        return self.with_statements([signed])

    def with_statements(self, more: Iterable[Signed]) -> Task:
        """Return the task with these statements, too."""
        found = {signed.key: signed for signed in (*more, *self.statements)}
        if sum(signed.statement.action not in approval.FINAL for signed in found.values()) > MAX_STATEMENTS:
            raise ContractError(f"a task has at most {MAX_STATEMENTS} statements")
        order = sorted(found, key=lambda key: (found[key].statement.time, key))
        return Task(self.contract, tuple(_each_end_once(found[key] for key in order)))

    def _say(self, action: Action, identity: Identity, at: datetime, **members: Any) -> Task:
        return self.with_statement(approval.sign(self.contract, action, identity, at, **members))

    def approve(self, identity: Identity, at: datetime, note: str = "") -> Task:
        """Sign it.

        Raises:
            ContractError: Not one of the approvers, withdrawn, canceled, expired, incomplete.
        """
        party = self.contract.party_of(identity.signer)
        if party in self.withdrawals:
            raise ContractError(
                f"'{party}' has withdrawn from this contract, which is final",
                "to agree all the same, make a new one of it: sealfs task new --from TASK",
            )
        if self.cancellation is not None:
            raise ContractError(f"'{self.cancellation.party}' has canceled it")
        if not self.contract.is_complete:
            raise ContractError("not every input has its data yet", "its owners name it: sealfs task assign")
        if at >= self.contract.expires:
            self.contract.check_time(at)
        return self._say(Action.APPROVE, identity, at, note=note)

    def withdraw(self, identity: Identity, at: datetime, note: str = "") -> Task:
        """Take an approval back, or refuse one for good. No new run starts; keys already released stay released."""
        return self._say(Action.WITHDRAW, identity, at, note=note)

    def cancel(self, identity: Identity, at: datetime, note: str = "") -> Task:
        """End it for everybody: the creator's right."""
        return self._say(Action.CANCEL, identity, at, note=note)

    def stage(self, identity: Identity, at: datetime, run: str | None = None) -> tuple[Task, str]:
        """Claim a run; return its id, too.

        Raises:
            ContractError: Not the operator, not approved, not its time, or no runs left.
        """
        self.check_approved(at)
        if self.runs_left == 0:
            raise ContractError(
                f"all {self.contract.runs} agreed runs are used up", "agree on a new contract: sealfs task new"
            )
        run = run or os.urandom(RUN_ID_SIZE).hex()
        if run in self.runs:
            raise ContractError("there is a run of that id already")
        return self._say(Action.STAGE, identity, at, run=run), run

    def report(self, action: Action, identity: Identity, at: datetime, run: str, **members: Any) -> Task:
        """Say that a run has started, finished (`results`) or failed (`note`).

        Raises:
            ContractError: Not the operator, or the run is not there or not so far.
        """
        known = self.runs.get(run)
        before = {
            Action.START: {State.STAGED},
            Action.FINISH: {State.RUNNING},
            Action.FAIL: {State.STAGED, State.RUNNING},
        }
        if known is None or known.state not in before.get(action, ()):
            raise ContractError(f"run {run[:8]} is {known.state if known else 'unknown'}: it cannot {action}")
        return self._say(action, identity, at, run=run, **members)

    def vote(self, lock: Lock, identity: Identity, at: datetime) -> Task:
        """Agree to the release of a result, by passing one's share of its lock on to the recipients.

        Raises:
            ContractError: Not one of the voters.
        """
        party = self.contract.party_of(identity.signer)
        if party is None or party not in lock.shares:
            raise ContractError(f"this identity is no voter of output '{lock.output}'")
        shares = lock.share_for_recipients(self.contract, party, identity)
        return self._say(Action.VOTE, identity, at, run=lock.run, output=lock.output, shares=shares)

    def edited(self, contract: Contract) -> Task:
        """Return the task with another contract in its place: the same id, nobody's approval."""
        if contract.digest == self.contract.digest:
            return self
        if self.runs:
            raise ContractError(
                "it has been run, so it can't be edited", "make a new one: sealfs task new --from TASK"
            )
        return Task(contract)

    # --- as a file ---

    def to_json(self) -> dict[str, Any]:
        """Return the file's content as a JSON object."""
        return {
            "format": FORMAT,
            "contract": self.contract.to_json(),
            "statements": [dict(signed.envelope) for signed in self.statements],
        }

    def to_bytes(self) -> bytes:
        """Return the file's content: canonical JSON."""
        return canonical(self.to_json())

    @classmethod
    def parse(cls, data: bytes) -> Task:
        """Read and verify a task that anybody may have written.

        Raises:
            DocumentError: It is none, or too big.
            ContractError: A statement is about another contract, or by somebody who has no say.
            TrustError: A statement is not signed by whom it names.
        """
        return cls.from_json(parse_json(data, "the task", MAX_SIZE, _MAX_DEPTH))

    @classmethod
    def from_json(cls, document: Any) -> Task:
        """Verify a parsed one; see `parse`."""
        what = "the task"
        members = Members(document, what).only("format", "contract", "statements")
        if members.text("format", r"[ -~]{1,80}") != FORMAT:
            raise DocumentError("that is no task of a kind that this sealfs knows", "upgrade sealfs")
        statements = members.array("statements", MAX_STATEMENTS + len(approval.FINAL) * terms.MAX_PARTIES)
        if len(canonical(members.value("contract"))) > MAX_CONTRACT_SIZE:
            raise DocumentError("the task's contract is too big")
        contract = Contract.from_json(members.value("contract"))
        return cls(contract).with_statements([approval.verify(contract, entry) for entry in statements])

    def merged(self, other: Task) -> Task:
        """Put two copies of a task together.

        Raises:
            ContractError: They are about different contracts.
        """
        if other.contract.digest != self.contract.digest:
            raise ContractError(
                f"that is about another contract ({other.contract.digest[:16]}…)",
                "somebody has edited it; 'task show' on both says what differs",
            )
        return self.with_statements(other.statements)


def _each_end_once(statements: Iterable[Signed]) -> Iterator[Signed]:
    """Leave out what repeats a party's own withdrawal or cancellation."""
    ended = set()
    for signed in statements:
        said = signed.statement
        if said.action in approval.FINAL:
            if (said.action, said.party) in ended:
                continue
            ended.add((said.action, said.party))
        yield signed
