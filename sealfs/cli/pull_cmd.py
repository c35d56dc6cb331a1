"""`sealfs pull`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from sealfs.cli.common import (
    Bars,
    json_option,
    print_json,
    shown_size,
)
from sealfs.cli.evidence import opened_at, reading_options
from sealfs.keys import Signer
from sealfs.opening import open_view
from sealfs.pull import Pull


@click.command()
@click.argument("uri")
@click.argument("destination", type=click.Path(path_type=Path))
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@reading_options
@json_option
def command(
    uri: str,
    destination: Path,
    paths: tuple[str, ...],
    broker: str | None,
    signer: Signer | None,
    identity_path: Path | None,
    as_json: bool,
) -> None:
    """Write the dataset at URI[@VERSION], or only some PATHs of it, to the folder DESTINATION.

    Every file is checked against the SHA-256 that its provider recorded before it takes its place. Files that are
    there already with the same size and time stay; nothing is ever deleted. Run it again after an interruption.

    If your identity is no recipient, and the keys are at a broker, it is asked as by 'sealfs mount'.
    """
    with opened_at(uri, signer, identity_path, broker) as (dataset, keys):
        view, _ = open_view(dataset, keys)
        try:
            with Bars.shown() as bars:
                result = Pull(view, destination, bars).run([os.fsencode(path) for path in paths])
        finally:
            view.close()
    if as_json:
        print_json({"written": result.written, "kept": result.kept, "size": result.size})
    else:
        click.echo(f"wrote {result.written} files, {shown_size(result.size)}; {result.kept} were there already")
