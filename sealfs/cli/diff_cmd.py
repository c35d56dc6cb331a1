"""`sealfs diff`."""

from __future__ import annotations

from pathlib import Path

import click

from sealfs.cli.common import (
    dataset_at,
    identity_option,
    json_option,
    open_identity,
    print_json,
    shown_path,
    signer_option,
)
from sealfs.dataset.diff import diff
from sealfs.dataset.version import split_version
from sealfs.errors import UsageError
from sealfs.keys import Signer


@click.command()
@click.argument("uri")
@click.argument("other", type=int, required=False)
@signer_option
@identity_option
@json_option
def command(uri: str, other: int | None, signer: Signer | None, identity_path: Path | None, as_json: bool) -> None:
    """Show what changed from version OTHER to the one that URI[@VERSION] names.

    OTHER is by default the version before. Lines start with A (added), M (modified) or D (deleted).
    """
    identity = open_identity(identity_path)
    address, _ = split_version(uri)
    with dataset_at(uri, signer) as new:
        other = other if other is not None else new.snapshot.version - 1
        if other < 1:
            raise UsageError("there is no version before the first", "name two versions: URI@NEW OLD")
        with dataset_at(f"{address}@{other}", signer) as old:
            changes = list(diff(old.index(old.keys(identity)), new.index(new.keys(identity))))
    if as_json:
        print_json([{"change": kind, "path": shown_path(path)} for kind, path in changes])
        return
    for kind, path in changes:
        click.echo(f"{kind} {shown_path(path)}")
