"""What a party says about a contract, signed: approval, withdrawal, cancellation, vote, and how a run went.

A statement is a DSSE envelope around canonical JSON with the contract's digest in it. Its payload type has the
action in it and is part of what is signed, so that no signature of one kind, and none of anything else that sealfs
signs, can be taken for another. Anybody who has a contract and its statements can check them: no server's word is
needed, and nobody can later deny what they signed.

Statements are only ever added. A withdrawal is therefore final for its contract: whoever held back or replays the
approval of before changes nothing.

Threading: immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sealfs.attestation.canonical import Members, canonical, parse_json
from sealfs.contracts import terms
from sealfs.contracts.contract import ID_SIZE, Contract, parse_time, shown_time
from sealfs.dsse import DsseError, Envelope, read_envelope
from sealfs.errors import ContractError, DocumentError, TrustError
from sealfs.keys import Identity

FORMAT: Final = "sealfs-statement-1"
MAX_SIZE: Final = 256 << 10  # bytes: a vote has a wrapped share, of 2.4 KiB in hex, for each recipient
RUN_ID_SIZE: Final = 16
_MAX_WRAPPED: Final = 4096


class Action(StrEnum):
    """What a statement says."""

    APPROVE = "approve"
    WITHDRAW = "withdraw"
    CANCEL = "cancel"
    VOTE = "vote"
    STAGE = "stage"
    START = "start"
    FINISH = "finish"
    FAIL = "fail"

    @property
    def payload_type(self) -> str:
        """What separates its signatures from all others."""
        return f"application/vnd.sealfs.contract.{self}+json"


FINAL: Final = frozenset({Action.WITHDRAW, Action.CANCEL})
"""What ends something for good: saying it once is enough, and nobody else's words may leave no room for it."""

RUN_ACTIONS: Final = frozenset({Action.STAGE, Action.START, Action.FINISH, Action.FAIL})
_ACTION_OF_TYPE: Final = {action.payload_type: action for action in Action}


@dataclass(frozen=True)
class ResultAt:
    """Where sealed results lie.

    Attributes:
        address: Of the dataset that they are.
        provenance: SHA-256 of the provenance beside it, in hex.
    """

    address: str
    provenance: str


@dataclass(frozen=True)
class Statement:
    """One thing that one party said.

    Attributes:
        action: What.
        task: Id of the contract.
        contract: Digest of the contract.
        party: Who.
        time: When, by their own clock.
        note: In their words.
        run: Which run, 32 hex digits; None for what is said of no run.
        output: Which output a vote is about.
        shares: A vote's: the voter's share of the lock, wrapped for each recipient, by party.
        results: A finished run's: for each output where its sealed results lie, and the SHA-256 of its provenance.
    """

    action: Action
    task: str
    contract: str
    party: str
    time: datetime
    note: str = ""
    run: str | None = None
    output: str | None = None
    shares: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    results: Mapping[str, ResultAt] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return what is signed, as a JSON object."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "action": str(self.action),
            "task": self.task,
            "contract": self.contract,
            "party": self.party,
            "time": shown_time(self.time),
            "note": self.note,
        }
        if self.run is not None:
            document["run"] = self.run
        if self.action is Action.VOTE:
            document["output"] = self.output
            document["shares"] = {party: share.hex() for party, share in self.shares.items()}
        if self.action is Action.FINISH:
            document["results"] = {
                output: {"address": at.address, "provenance": at.provenance} for output, at in self.results.items()
            }
        return document

    @classmethod
    def _read(cls, data: bytes, action: Action) -> Statement:
        what = f"the statement '{action}'"
        document = parse_json(data, what, MAX_SIZE)
        members = Members(document, what)
        if members.text("format", r"[ -~]{1,80}") != FORMAT:
            raise DocumentError(f"{what} is of a kind that this sealfs does not know", "upgrade sealfs")
        if canonical(document) != data:
            raise DocumentError(f"{what} is not in its canonical form")
        members.only(
            *("format", "action", "task", "contract", "party", "time", "note"),
            *(("run",) if action in RUN_ACTIONS else ()),
            *(("run", "output", "shares") if action is Action.VOTE else ()),
            *(("results",) if action is Action.FINISH else ()),
        )
        members.text("action", str(action))
        of_run = action in RUN_ACTIONS or action is Action.VOTE
        shares = members.object("shares") if action is Action.VOTE else None
        results = members.object("results") if action is Action.FINISH else None
        return cls(
            action,
            members.hexadecimal("task", ID_SIZE).hex(),
            members.hexadecimal("contract", 32).hex(),
            members.text("party", terms.NAME),
            parse_time(members, "time"),
            members.text("note", f"{terms.WORDS}|"),
            members.hexadecimal("run", RUN_ID_SIZE).hex() if of_run else None,
            members.text("output", terms.NAME) if action is Action.VOTE else None,
            {party: bytes.fromhex(shares.text(party, f"(?:[0-9a-f]{{2}}){{1,{_MAX_WRAPPED}}}")) for party in shares}
            if shares
            else {},
            {
                output: ResultAt(
                    results.object(output).only("address", "provenance").text("address", terms.URL),
                    results.object(output).hexadecimal("provenance", 32).hex(),
                )
                for output in results
            }
            if results
            else {},
        )


@dataclass(frozen=True)
class Signed:
    """A statement whose signature was checked against the contract, and the envelope that shows it to others."""

    statement: Statement
    envelope: Mapping[str, Any] = field(repr=False, hash=False)

    @property
    def key(self) -> bytes:
        """What tells it apart; the same statement signed twice is one."""
        return canonical(self.statement.to_json())


def may_say(contract: Contract, action: Action, party: str) -> bool:
    """Whether a contract gives a party the right to a kind of statement."""
    if action in RUN_ACTIONS:
        return party == contract.operator
    match action:
        case Action.CANCEL:
            return party == contract.creator
        case Action.VOTE:
            return any(party in output.voters for output in contract.outputs.values())
    return party in contract.approvers


def sign(contract: Contract, action: Action, identity: Identity, at: datetime, **members: Any) -> Signed:
    """Make a statement.

    Args:
        contract: What it is about.
        action: What is said.
        identity: Whose.
        at: The time.
        members: `note`, `run`, `output`, `shares`, where the action has them.

    Raises:
        ContractError: This party can't say that.
    """
    party = contract.party_of(identity.signer)
    if party is None:
        raise ContractError(
            "this identity is none of the contract's parties",
            "name yours with --identity; 'task show' has the keys",
        )
    if not may_say(contract, action, party):
        raise ContractError(f"'{party}' has no say in that: {_who(contract, action)}")
    statement = Statement(action, contract.id, contract.digest, party, at.replace(microsecond=0), **members)
    envelope = Envelope(canonical(statement.to_json()), action.payload_type, {})
    envelope.sign(identity.signing_key())
    return verify(contract, envelope.to_dict())


def _who(contract: Contract, action: Action) -> str:
    if action in RUN_ACTIONS:
        return f"only the operator, '{contract.operator}', reports runs"
    if action is Action.CANCEL:
        return f"only the creator, '{contract.creator}', cancels; an approver can withdraw: sealfs task withdraw"
    if action is Action.VOTE:
        return "only the voters of an output vote"
    return f"the approvers are {', '.join(contract.approvers)}"


def verify(contract: Contract, document: Any) -> Signed:
    """Check a statement that came from somewhere against the contract that it is to be about.

    Args:
        contract: Which one.
        document: The parsed JSON of the envelope.

    Raises:
        DocumentError: It is no statement.
        ContractError: It is about another contract, or by somebody who has no say in that.
        TrustError: It is not signed by the party's own key.
    """
    members = Members(document, "the statement's envelope").only("payload", "payloadType", "signatures")
    action = _ACTION_OF_TYPE.get(members.text("payloadType", r"[ -~]{1,200}"))
    if action is None:
        raise DocumentError("that is no statement about a contract")
    envelope = read_envelope(members, action.payload_type, f"statement '{action}'")
    statement = Statement._read(envelope.payload, action)
    if statement.contract != contract.digest or statement.task != contract.id:
        raise ContractError(
            f"'{statement.party}' said '{action}' of another contract ({statement.contract[:16]}…), "
            f"not of this one ({contract.digest[:16]}…)",
            "whoever edits a contract has made a new one, which everybody has to approve anew",
        )
    if statement.party not in contract.parties or not may_say(contract, action, statement.party):
        raise ContractError(f"'{statement.party}' has no say in that: {_who(contract, action)}")
    if action is Action.VOTE:
        _check_vote(contract, statement)
    if not set(statement.results) <= set(contract.outputs):
        raise ContractError(f"'{statement.party}' reports results that the contract does not have")
    try:
        envelope.verify([contract.parties[statement.party].signer.verification_key()], 1)
    except (DsseError, ValueError):
        raise TrustError(
            f"'{action}' of '{statement.party}' is not signed by the key that the contract has for them",
            "somebody else made it: do not believe whoever sent it",
        ) from None
    return Signed(statement, envelope.to_dict())


def _check_vote(contract: Contract, statement: Statement) -> None:
    output = contract.outputs.get(statement.output or "")
    if output is None or statement.party not in output.voters:
        raise ContractError(f"'{statement.party}' is no voter of output '{statement.output}'")
    if set(statement.shares) != set(output.recipients):
        raise ContractError(f"the vote of '{statement.party}' is not for exactly the recipients")
