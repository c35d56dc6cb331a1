"""`sealfs task new | assign | approve | withdraw | cancel | merge`: what changes a task's file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import click

from sealfs.cli.common import identity_option, json_option, note, open_identity, print_json
from sealfs.cli.task_common import NOTE, TASK, find_data, now, standing
from sealfs.contracts import plain
from sealfs.contracts.draft import assigned, new_id, read_draft
from sealfs.contracts.files import Seen, change_task, load_task, save_new_task
from sealfs.contracts.task import Task
from sealfs.errors import ContractError, UsageError
from sealfs.keys import Identity

_MIN_DIGEST = 16  # hex digits


def _tell(task: Task, as_json: bool) -> None:
    if as_json:
        print_json({"task": task.contract.id, "digest": task.contract.digest, "state": str(task.state(now()))})
    else:
        click.echo(f"{task.state(now())}: {standing(task, now())}")


@click.command("new")
@click.argument("draft", type=click.Path(path_type=Path))
@TASK
@click.option("--replace", "replacing", is_flag=True, help="Edit TASK: same id, new digest, all approvals gone.")
@json_option
def new_command(draft: Path, path: Path, replacing: bool, as_json: bool) -> None:
    """Write the contract that DRAFT describes to the file TASK.

    DRAFT is a TOML file that names the parties' .pub files, the datasets, the script, who gets the results, and how
    all of it is protected; docs/contracts.md has an example. Versions and digests are looked up now and fixed.
    DRAFT can also be a task that there is already: the same contract again, under a new id.

    An input without 'data' can be filled in by its owner: sealfs task assign.
    """
    before = load_task(path) if replacing else None
    task_id = before.contract.id if before else new_id()
    if draft.suffix == ".toml":
        contract = read_draft(draft, find_data, now(), task_id)
    else:
        contract = replace(load_task(draft).contract, id=task_id)
    if before is None:
        save_new_task(path, Task(contract))
        task = Task(contract)
    else:
        task = change_task(path, lambda task: task.edited(contract))
        for line in plain.changes(before.contract, contract) or ["nothing has changed"]:
            note(line)
    _tell(task, as_json)


@click.command("assign")
@TASK
@click.argument("name", metavar="INPUT")
@click.argument("uri")
@json_option
def assign_command(path: Path, name: str, uri: str, as_json: bool) -> None:
    """Say that INPUT is the dataset at URI[@VERSION], in exactly the state that it has now.

    That makes another contract of it: everybody who has signed has to sign anew.
    """
    data = find_data(uri)
    _tell(change_task(path, lambda task: task.edited(assigned(task.contract, name, data))), as_json)


@click.command("approve")
@TASK
@click.option("--digest", help="Sign only if this is the contract's digest (at least its first 16 digits).")
@NOTE
@identity_option
@json_option
def approve_command(path: Path, digest: str | None, note: str, identity_path: Path | None, as_json: bool) -> None:
    """Sign the contract in TASK with your identity.

    What is signed is what you have looked at: 'sealfs task show' remembers it, and a contract that has changed
    since is refused. Scripts say with --digest what they mean to sign.
    """
    identity = open_identity(identity_path)

    def approve(task: Task) -> Task:
        _check_seen(task, digest)
        return task.approve(identity, now(), note)

    _tell(change_task(path, approve), as_json)


def _check_seen(task: Task, digest: str | None) -> None:
    contract = task.contract
    if digest is not None:
        if len(digest) < _MIN_DIGEST:
            raise UsageError(f"a digest has at least {_MIN_DIGEST} digits here", "'sealfs task show' prints it")
        if not contract.digest.startswith(digest):
            raise ContractError(
                f"its digest is {contract.digest}, not {digest}", "it is not the contract that you mean: look at it"
            )
        return
    seen = Seen().last(contract.id)
    if seen is None or seen.digest != contract.digest:
        said = (
            "never looked at this contract" if seen is None else "not looked at this contract since it was changed"
        )
        raise ContractError(f"you have {said}", "read it first: sealfs task show TASK")


def _saying(name: str, words: str, say: Callable[[Task, Identity, str], Task]) -> click.Command:
    """Return a verb that adds one statement."""

    @click.command(name, help=words)
    @TASK
    @NOTE
    @identity_option
    @json_option
    def saying(path: Path, note: str, identity_path: Path | None, as_json: bool) -> None:
        identity = open_identity(identity_path)
        _tell(change_task(path, lambda task: say(task, identity, note)), as_json)

    return saying


withdraw_command = _saying(
    "withdraw",
    """Take your approval back, or refuse for good. Final: no new run starts, whatever else is signed.

    A run that has its keys goes on: a key that was released can't be called back.
    """,
    lambda task, identity, note: task.withdraw(identity, now(), note),
)

cancel_command = _saying(
    "cancel",
    "End the task for everybody, which is its creator's right. No new run starts; see 'withdraw' for running ones.",
    lambda task, identity, note: task.cancel(identity, now(), note),
)


@click.command("merge")
@TASK
@click.argument("others", nargs=-1, required=True, metavar="OTHER...", type=click.Path(path_type=Path))
@json_option
def merge_command(path: Path, others: tuple[Path, ...], as_json: bool) -> None:
    """Add to TASK what is signed in OTHER copies of it. All have to be about the very same contract."""
    copies = [load_task(other) for other in others]

    def merge(task: Task) -> Task:
        for copy in copies:
            task = task.merged(copy)
        return task

    _tell(change_task(path, merge), as_json)
