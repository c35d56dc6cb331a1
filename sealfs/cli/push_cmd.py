"""`sealfs push`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from sealfs.cli.common import (
    Bars,
    RecipientParameter,
    SizeParameter,
    identity_option,
    json_option,
    note,
    open_identity,
    print_json,
    shown_path,
    shown_size,
    signer_option,
    single_writer_option,
    store_at,
)
from sealfs.cli.publishing import existing, publishing_at, read_policy, tell_broker
from sealfs.dataset.compare import Plan
from sealfs.dataset.packer import DEFAULT_JOBS
from sealfs.dataset.push import DEFAULT_SEGMENT_LENGTH, Push, PushOptions, PushResult
from sealfs.dataset.trust import TrustStore
from sealfs.errors import UsageError
from sealfs.keys import Recipient, Signer


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("uri")
@click.option(
    "-r",
    "--recipient",
    "recipients",
    multiple=True,
    type=RecipientParameter(),
    help="Who else may open it: a recipient string or a .pub file. You always can. Repeatable.",
)
@click.option("-x", "--exclude", "excludes", multiple=True, help="Glob of names or paths to leave out. Repeatable.")
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be pushed.")
@click.option("-m", "--message", default="", help="A note for 'sealfs log'; sealed like the data.")
@click.option("-c", "--checksum", is_flag=True, help="Compare contents, not only sizes and times.")
@click.option("-j", "--jobs", type=click.IntRange(1, 64), default=DEFAULT_JOBS, show_default=True,
              help="How many packs are sealed and sent at once (each takes 64 MiB of memory).")  # fmt: skip
@click.option("--segment-length", type=SizeParameter(), default=DEFAULT_SEGMENT_LENGTH,
              help="Cipher segment of a new dataset [default: 64K].")  # fmt: skip
@click.option("--broker", "broker_url", metavar="URL",
              help="The key broker that is to have the keys: what it prints when it starts.")  # fmt: skip
@click.option("--policy", "policy_path", type=click.Path(path_type=Path), metavar="FILE",
              help="What the broker is to demand for them, in TOML or JSON.")  # fmt: skip
@single_writer_option
@signer_option
@identity_option
@json_option
def command(
    source: Path,
    uri: str,
    recipients: tuple[Recipient, ...],
    excludes: tuple[str, ...],
    dry_run: bool,
    message: str,
    checksum: bool,
    jobs: int,
    segment_length: int,
    broker_url: str | None,
    policy_path: Path | None,
    single_writer: bool,
    signer: Signer | None,
    identity_path: Path | None,
    as_json: bool,
) -> None:
    """Seal the folder SOURCE as a new version of the dataset at URI.

    Only what changed since the last push is read and sent. A push that was killed goes on where it was when it is
    run again, and nothing of it is visible before it is complete. Symlinks are stored as symlinks; sockets,
    devices and pipes are refused by name.

    With --broker the dataset's keys go to a key broker, which releases them to whatever proves what POLICY demands;
    the snapshot says which broker, and later pushes keep it up to date. Your own identity keeps access without it.
    """
    identity = open_identity(identity_path)
    policy = read_policy(policy_path) if policy_path is not None else None
    options = PushOptions(
        recipients=recipients,
        excludes=excludes,
        message=message,
        checksum=checksum,
        single_writer=single_writer,
        jobs=jobs,
        segment_length=segment_length,
        signer=signer,
    )
    with store_at(uri) as store, Bars.shown() as bars:
        before = existing(store, signer)
        url = broker_url or (before.newest.broker.url if before and before.newest.broker else None)
        if url is None and policy is not None:
            raise UsageError("a policy is for a broker", "name it: --broker URL")
        publishing = publishing_at(url, identity) if url is not None and not dry_run else None
        if publishing is not None:
            options = replace(options, broker=publishing.greet())
            publishing.check_policy(before.newest.dataset if before else None, policy)
        push = Push(source, store, identity, TrustStore(), options, bars)
        if dry_run:
            changes: list[tuple[str, bytes]] = []
            plan = push.plan(lambda kind, path: changes.append((kind, path)))
        else:
            result = push.run()
            if publishing is not None:
                tell_broker(publishing, store, policy)
                if before and before.newest.broker not in (None, options.broker):
                    note(
                        f"the broker at {before.newest.broker.url} still has the keys that it was given: "
                        f"sealfs broker withdraw {before.newest.dataset.hex()} --broker URL"
                    )
    if dry_run:
        _print_plan(plan, changes, as_json)
    else:
        _print_result(result, uri, as_json)


def _print_plan(plan: Plan, changes: list[tuple[str, bytes]], as_json: bool) -> None:
    if as_json:
        listed = [{"change": kind, "path": shown_path(path)} for kind, path in changes]
        print_json({**_counts(plan), "changes": listed})
        return
    for kind, path in changes:
        click.echo(f"{kind} {shown_path(path)}")
    note(f"would push {_in_words(plan)}")


def _print_result(result: PushResult, uri: str, as_json: bool) -> None:
    snapshot = result.snapshot
    if as_json:
        version = snapshot.version if snapshot else None
        print_json({"version": version, "sent": result.sent, "resumed": result.resumed, **_counts(result.plan)})
    elif snapshot is None:
        click.echo("nothing has changed since the last push")
    else:
        resumed = f", {shown_size(result.resumed)} had been sent before" if result.resumed else ""
        click.echo(f"pushed version {snapshot.version} to {uri}: {_in_words(result.plan)}")
        click.echo(f"sent {shown_size(result.sent)} of ciphertext{resumed}")


def _counts(plan: Plan) -> dict[str, int]:
    return {
        "files": plan.files,
        "size": plan.size,
        "added": plan.added,
        "changed": plan.changed,
        "removed": plan.removed,
        "pending_size": plan.pending_size,
    }


def _in_words(plan: Plan) -> str:
    return (
        f"{plan.files} files, {shown_size(plan.size)} "
        f"({plan.added} added, {plan.changed} changed, {plan.removed} removed)"
    )
