"""Contracts at a broker: what its members and other parties have brought, and when a contract lets a key go.

A broker carries contracts and signatures for everybody and is believed by nobody: whoever fetches a task verifies
it whole, and a broker that releases goes by signatures it has checked itself, against the owner's key that it knows
as a member's, never against a key that only the contract names.

What is said is only ever added. Runs are counted per contract and per dataset: taken in the transaction of the
release, so that two that ask for the last one at the same time are not both served, and a run that asks again, with
the key pair that it has already, uses up nothing.

Threading: stateless functions within transactions (database.py); values.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import datetime

from sealfs.attestation.canonical import canonical
from sealfs.broker.holdings import Publication
from sealfs.broker.protocol import Problem, Resource
from sealfs.contracts import approval
from sealfs.contracts.contract import Contract
from sealfs.contracts.task import Task
from sealfs.contracts.terms import Input
from sealfs.errors import ConflictError, ContractError
from sealfs.keys import Signer

MAX_TASKS = 10_000


@dataclass(frozen=True)
class Agreement:
    """A contract that evidence is bound to, as this broker knows it.

    Attributes:
        task: With all that was said.
        owner: The signing key of whom the resource belongs to, as a member of this broker.
        runs_taken: How many runs have had this dataset's key.
        is_known_run: Whether this very run is one of them.
    """

    task: Task
    owner: Signer | None
    runs_taken: int
    is_known_run: bool


def get_task(transaction: sqlite3.Connection, digest: str) -> Task | None:
    """Return a task as far as this broker knows it; verified when it was stored."""
    row = transaction.execute("SELECT contract FROM contracts WHERE digest = ?", (digest,)).fetchone()
    if row is None:
        return None
    contract = Contract.parse(row[0])
    said = transaction.execute("SELECT envelope FROM statements WHERE contract = ?", (digest,)).fetchall()
    return Task(contract).with_statements([approval.verify(contract, json.loads(envelope)) for (envelope,) in said])


def add_task(
    transaction: sqlite3.Connection, task: Task, *, may_be_new: bool
) -> tuple[Task, list[approval.Statement]]:
    """Keep a contract and what was said about it; return all that is known of it, and what was not known yet.

    However much others have said, there is room for each party's withdrawal and for the cancellation.

    Raises:
        ContractError: It is not known here, and none of this broker's members brings it; or too much was said.
        ConflictError: There are too many.
    """
    contract = task.contract
    known = get_task(transaction, contract.digest)
    if known is None:
        if not may_be_new:
            raise ContractError(
                "this broker does not know that contract", "its owner brings it first: sealfs task sync TASK"
            )
        if transaction.execute("SELECT COUNT(*) FROM contracts").fetchone()[0] >= MAX_TASKS:
            raise ConflictError("this broker has too many contracts", "ask its operator")
        transaction.execute("INSERT INTO contracts VALUES (?, ?)", (contract.digest, contract.to_bytes()))
        known = Task(contract)
    merged = _with_room_for_ends(known, task)
    said = {signed.key for signed in known.statements}
    new = [signed for signed in merged.statements if signed.key not in said]
    for signed in new:
        row = (contract.digest, signed.key, canonical(dict(signed.envelope)))
        transaction.execute("INSERT OR IGNORE INTO statements VALUES (?, ?, ?)", row)
    return merged, [signed.statement for signed in new]


def _with_room_for_ends(known: Task, task: Task) -> Task:
    ended = {(end.statement.action, end.statement.party) for end in known.ends}
    ends = [end for end in task.ends if (end.statement.action, end.statement.party) not in ended]
    others = [signed for signed in task.statements if signed.statement.action not in approval.FINAL]
    try:
        return known.with_statements([*others, *ends])
    except ContractError:
        if not ends:
            raise ContractError("too much was said about that contract", "agree on a new one") from None
        return known.with_statements(ends)


def agreement_on(
    transaction: sqlite3.Connection, digest: str, resource: Resource, owner: Signer | None, run: str
) -> Agreement | None:
    """Return what is known of a contract for a decision about a resource; None if nothing is.

    Args:
        transaction: The decision's own.
        digest: What the evidence is bound to.
        resource: What is asked for.
        owner: The key of the member whose it is.
        run: What tells a run apart: the digest of its public key.
    """
    task = get_task(transaction, digest)
    if task is None:
        return None
    rows = transaction.execute(
        "SELECT run FROM runs WHERE contract = ? AND owner = ? AND dataset = ?",
        (digest, resource.owner, resource.dataset),
    ).fetchall()
    return Agreement(task, owner, len(rows), (run,) in rows)


def take_run(transaction: sqlite3.Connection, digest: str, resource: Resource, run: str) -> None:
    """Count a run that is about to get a dataset's key."""
    transaction.execute(
        "INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?)", (digest, resource.owner, resource.dataset, run)
    )


def inputs_of(contract: Contract, owner: Signer | None, resource: Resource) -> list[Input]:
    """Return the inputs that are this dataset, and belong to this very owner: by name and by key."""
    party = contract.parties.get(resource.owner)
    if party is None or owner is None or party.signer != owner:
        return []
    return [
        entry
        for entry in contract.inputs.values()
        if entry.data is not None and entry.data.dataset == resource.dataset and resource.owner in entry.owners
    ]


def problem_with(
    agreement: Agreement | None, resource: Resource, publication: Publication | None, at: datetime
) -> Problem | None:
    """Say why a contract does not let a dataset's key go; None if it does. The level is the verdict's matter."""
    if agreement is None:
        return _denied(
            "this broker does not know the contract that the evidence is bound to",
            "its owner brings it: sealfs task sync TASK",
        )
    contract = agreement.task.contract
    inputs = inputs_of(contract, agreement.owner, resource)
    if not inputs:
        return _denied(
            f"the contract gives no right to {resource.dataset}: no input is that dataset and belongs to "
            f"'{resource.owner}' with the key that this broker knows"
        )
    try:
        agreement.task.check_approved(at)
    except ContractError as error:
        return _denied(f"the contract does not allow it: {error.message}", error.hint)
    if publication is None:
        return _denied("the owner has not published that version here", "push it with --broker")
    agreed = {(entry.data.version, entry.data.snapshot) for entry in inputs if entry.data is not None}
    if (publication.version, publication.sha256) not in agreed:
        versions = ", ".join(str(version) for version, _ in sorted(agreed))
        published = publication.version
        return _denied(f"agreed is version {versions} with its digest, not version {published} as published")
    if not agreement.is_known_run and agreement.runs_taken >= contract.runs:
        return _denied(f"all {contract.runs} agreed runs are used up", "agree on a new contract: sealfs task new")
    return None


def _denied(detail: str, hint: str = "") -> Problem:
    return Problem("PolicyDeny", 403, detail, hint)
