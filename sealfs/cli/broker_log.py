"""`sealfs broker log` and `checkpoint`: the log, verified and printed, from the broker or from its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from sealfs.broker.address import BrokerAddress
from sealfs.broker.audit import Checkpoint, checkpoint_of, entries, verify
from sealfs.broker.checkpoints import CheckpointStore, read_checkpoint
from sealfs.broker.database import Database
from sealfs.broker.home import database_path, log_key_of
from sealfs.cli.broker_common import broker_option, home_option, member_of
from sealfs.cli.common import identity_option, json_option, note, shown_path
from sealfs.errors import UsageError

_QUIET = {"sequence", "previous", "time", "event"}


@click.command("log")
@broker_option
@home_option
@click.option("--local", is_flag=True, help="Read the database in the broker's folder; the broker may be running.")
@click.option("--checkpoint", "checkpoint_path", type=click.Path(path_type=Path), metavar="FILE",
              help="What the log was before [default: what this user saw last].")  # fmt: skip
@identity_option
@json_option
def log_command(
    address: BrokerAddress | None,
    home: Path,
    local: bool,
    checkpoint_path: Path | None,
    identity_path: Path | None,
    as_json: bool,
) -> None:
    """Verify a broker's whole log, and print it.

    Each record names the one before it and is signed; what this user saw before, or a checkpoint that was kept
    elsewhere, must still be in it. A log that was cut, edited or reordered ends the command with exit code 5. What
    is printed before that is verified. How far the log has come is remembered for the next time.
    """
    store = CheckpointStore()
    given = _read(checkpoint_path) if checkpoint_path is not None else None
    if local:
        broker, key = log_key_of(home)
        seen = given or store.get(broker)
        with closing(Database(database_path(home), readonly=True)) as database:
            log = list(database.read(lambda transaction: list(entries(transaction))))
        if seen is None:
            note(f"nothing was seen of this log before: its own key {key} is believed")
        _print(verify(log, seen.key if seen else key, seen), as_json)
        store.keep(checkpoint_of(broker, key, log[-1]))
        return
    member = member_of(address, identity_path)
    _print(member.log(given or store.get(member.hello().checkpoint.broker)), as_json)
    if member.verified is not None:  # what was printed, whatever else the broker says of its log
        store.keep(member.verified)


@click.command("checkpoint")
@broker_option
@identity_option
def checkpoint_command(address: BrokerAddress | None, identity_path: Path | None) -> None:
    """Print how far a broker's log has come, signed by it: to be kept where its operator can't get at it.

    'sealfs broker log --checkpoint FILE' later proves that all up to there is as it was.
    """
    checkpoint = member_of(address, identity_path).hello().checkpoint
    CheckpointStore().keep(checkpoint)
    click.echo(json.dumps(checkpoint.to_json(), indent=2))


commands = (log_command, checkpoint_command)


def _read(path: Path) -> Checkpoint:
    try:
        return read_checkpoint(path)
    except FileNotFoundError:
        raise UsageError(f"there is no checkpoint {path}", "'sealfs broker checkpoint' prints one") from None


def _print(records: Iterator[dict[str, Any]], as_json: bool) -> None:
    count = 0
    for record in records:
        count += 1
        click.echo(json.dumps(record) if as_json else _in_words(record))
    note(f"{count} records, verified")


def _in_words(record: dict[str, Any]) -> str:
    said = " ".join(f"{name}={_shown(value)}" for name, value in record.items() if name not in _QUIET)
    return f"{record['sequence']:>6} {record['time']} {record['event']}: {said}"


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return shown_path((f'"{text}"' if " " in text else text).encode())
