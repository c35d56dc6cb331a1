"""What the verbs of `sealfs task` share."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from sealfs.cli.common import open_dataset
from sealfs.contracts.task import State, Task
from sealfs.contracts.terms import SealedData
from sealfs.dataset.version import split_version
from sealfs.errors import SealfsError
from sealfs.keys import SIGNER_PREFIX, Signer, default_identity_path
from sealfs.store.address import open_store

TASK = click.argument("path", metavar="TASK", type=click.Path(path_type=Path))
NOTE = click.option("-m", "--note", default="", help="A word to the others; it is signed, too.")


def now() -> datetime:
    """Return the time, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def find_data(uri: str) -> SealedData:
    """Look up what a dataset is now, without any key."""
    address, version = split_version(uri)
    store = open_store(address)
    try:
        dataset = open_dataset(store, version, None)
        snapshot = dataset.snapshot
        return SealedData(snapshot.dataset.hex(), snapshot.version, dataset.ref.sha256.hex(), store.uri)
    finally:
        store.close()


def own_party(task: Task, identity_path: Path | None) -> str | None:
    """Return which party this user is, by the public half of their identity; None if none, or nobody can say."""
    path = identity_path or default_identity_path()
    try:
        lines = path.with_name(path.name + ".pub").read_text(errors="replace").splitlines()
        signers = [Signer.parse(line) for line in lines if line.startswith(SIGNER_PREFIX)]
    except (OSError, SealfsError):
        return None
    return task.contract.party_of(signers[0]) if signers else None


def standing(task: Task, at: datetime) -> str:
    """Say in one line how a task stands, and what comes next."""
    state = task.state(at)
    match state:
        case State.CREATED:
            names = [name for name, entry in task.contract.inputs.items() if entry.data is None]
            return f"the data of {', '.join(names)} is not said yet"
        case State.DATA_ASSIGNED:
            return f"waits for the approval of {', '.join(task.missing)}"
        case State.APPROVED:
            early = at < task.contract.not_before
            return f"everybody has signed; runs left: {task.runs_left}" + (
                " (it does not hold yet)" if early else ""
            )
        case State.CANCELED if task.cancellation is not None:
            return f"canceled by {task.cancellation.party}"
        case State.CANCELED if task.withdrawals:
            return f"withdrawn by {', '.join(task.withdrawals)}"
        case State.CANCELED:
            return "expired before it was run"
    finished = sum(run.state is State.FINISHED for run in task.runs.values())
    return f"runs finished: {finished}, left: {task.runs_left}"
