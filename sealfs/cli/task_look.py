"""`sealfs task show | status | audit`: what only looks at a task's file."""

from __future__ import annotations

from pathlib import Path

import click

from sealfs.cli.common import identity_option, json_option, note, print_json
from sealfs.cli.task_common import TASK, now, own_party, standing
from sealfs.contracts import plain
from sealfs.contracts.contract import shown_time
from sealfs.contracts.files import Seen, load_task


@click.command("show")
@TASK
@identity_option
@json_option
def show_command(path: Path, identity_path: Path | None, as_json: bool) -> None:
    """Print the contract in TASK in plain words: all that a signature covers, and what each party will learn.

    If you have looked at an earlier form of it, what changed comes first. With --json the contract itself.
    """
    task = load_task(path)
    contract = task.contract
    seen = Seen()
    before = seen.last(contract.id)
    if as_json:
        changes = plain.changes(before, contract) if before else []
        print_json({"contract": contract.to_json(), "digest": contract.digest, "changes": changes})
        return
    if before is not None and (changes := plain.changes(before, contract)):
        note("CHANGED since you looked at it last; every approval of before is void:")
        for line in changes:
            click.echo(f"  {line}")
        click.echo()
    click.echo(plain.text(plain.describe(contract, own_party(task, identity_path))))
    click.echo(f"\nHow it stands\n  {task.state(now())}: {standing(task, now())}")
    seen.remember(contract)


@click.command("status")
@TASK
@json_option
def status_command(path: Path, as_json: bool) -> None:
    """Say how far TASK has come: its state, who has signed, whose approval is missing, and its runs."""
    task, at = load_task(path), now()
    contract = task.contract
    if as_json:
        print_json(
            {
                "task": contract.id,
                "digest": contract.digest,
                "state": str(task.state(at)),
                "approved": {name: shown_time(said.time) for name, said in task.approvals.items()},
                "missing": list(task.missing),
                "withdrawn": {name: shown_time(said.time) for name, said in task.withdrawals.items()},
                "canceled": shown_time(task.cancellation.time) if task.cancellation else None,
                "not_before": shown_time(contract.not_before),
                "expires": shown_time(contract.expires),
                "runs": {run.id: str(run.state) for run in task.runs.values()},
                "runs_left": task.runs_left,
            }
        )
        return
    click.echo(f"{task.state(at)}: {standing(task, at)}")
    for name in contract.approvers:
        if name in task.withdrawals:
            click.echo(f"  {name}: withdrew at {shown_time(task.withdrawals[name].time)}")
        elif name in task.approvals:
            click.echo(f"  {name}: approved at {shown_time(task.approvals[name].time)}")
        else:
            click.echo(f"  {name}: has not approved")
    for run in task.runs.values():
        click.echo(f"  run {run.id}: {run.state}")
    click.echo(f"  digest {contract.digest}, expires {shown_time(contract.expires)}")


@click.command("audit")
@TASK
@json_option
def audit_command(path: Path, as_json: bool) -> None:
    """List what every party has said of TASK, in order. Each line's signature was checked when TASK was read.

    Nobody can deny a line of it: the signature is over the contract's digest, with the key that the contract has
    for that party. Times are by the clock of whoever signed.
    """
    task = load_task(path)
    lines = [signed.statement for signed in task.statements]
    if as_json:
        print_json(
            {
                "digest": task.contract.digest,
                "statements": [
                    {**said.to_json(), "signer": str(task.contract.parties[said.party].signer)} for said in lines
                ],
            }
        )
        return
    click.echo(f"contract {task.contract.digest}")
    for said in lines:
        run = f" run {said.run[:8]}" if said.run else ""
        output = f" output {said.output}" if said.output else ""
        words = f" {plain.quoted(said.note)}" if said.note else ""
        key = plain.fingerprint(task.contract.parties[said.party].signer)
        click.echo(f"{shown_time(said.time)}  {said.party}  {said.action}{run}{output}{words}  (signed by {key})")
