"""`sealfs ls`."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from sealfs.cli.common import (
    describe_entry,
    json_option,
    print_json,
    shown_path,
)
from sealfs.cli.evidence import opened_at, reading_options
from sealfs.dataset.index import ROOT, Index
from sealfs.keys import Signer


@click.command()
@click.argument("uri")
@click.argument("path", default="")
@click.option("-R", "--recursive", is_flag=True, help="Everything below, too.")
@click.option("-l", "--long", "details", is_flag=True, help="Mode, size and time of each.")
@reading_options
@json_option
def command(
    uri: str,
    path: str,
    recursive: bool,
    details: bool,
    broker: str | None,
    signer: Signer | None,
    identity_path: Path | None,
    as_json: bool,
) -> None:
    """List PATH in the dataset at URI[@VERSION], in the order in which the provider's folder listed it.

    If your identity is no recipient, and the keys are at a broker, it is asked as by 'sealfs mount'.
    """
    with opened_at(uri, signer, identity_path, broker) as (dataset, keys):
        index = dataset.index(keys)
    top = index.resolve(os.fsencode(path))
    numbers = list(_listed(index, top, recursive))
    if as_json:
        print_json([describe_entry(index, number) for number in numbers])
        return
    for number in numbers:
        name = shown_path(index.path(number) if recursive or number == top else index.name(number))
        click.echo(_long(index, number, name) if details else name)


def _listed(index: Index, top: int, recursive: bool) -> Iterator[int]:
    if not index.entry(top).is_directory:
        yield top
    elif recursive:
        yield from (number for number in index.walk(top) if number != ROOT)
    else:
        yield from index.children(top)


def _long(index: Index, number: int, name: str) -> str:
    entry = index.entry(number)
    when = datetime.fromtimestamp(entry.mtime_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M")
    target = f" -> {shown_path(index.symlink_target(number))}" if entry.is_symlink else ""
    return f"{stat.filemode(entry.mode)} {entry.size:>14,} {when} {name}{target}"
