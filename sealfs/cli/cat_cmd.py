"""`sealfs cat`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from sealfs.cli.evidence import opened_at, reading_options
from sealfs.errors import NotADatasetError
from sealfs.keys import Signer
from sealfs.opening import open_view

_STEP = 4 << 20


@click.command()
@click.argument("uri")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@reading_options
def command(
    uri: str, paths: tuple[str, ...], broker: str | None, signer: Signer | None, identity_path: Path | None
) -> None:
    """Write files of the dataset at URI[@VERSION] to standard output.

    Only authenticated bytes are written; if something does not authenticate, the command ends with exit code 5
    and what was written before is right but not the whole.

    If your identity is no recipient, and the keys are at a broker, it is asked as by 'sealfs mount'.
    """
    buffer = memoryview(bytearray(_STEP))
    with opened_at(uri, signer, identity_path, broker) as (dataset, keys):
        view, _ = open_view(dataset, keys)
        try:
            numbers = [view.lookup(os.fsencode(path)) for path in paths]
            for path, number in zip(paths, numbers, strict=True):
                if not view.entry(number).is_file:
                    raise NotADatasetError(f"'{path}' is not a file", "'sealfs ls' lists folders")
            for number in numbers:
                offset = 0
                while count := view.read_into(number, offset, buffer):
                    sys.stdout.buffer.write(buffer[:count])
                    offset += count
        finally:
            view.close()
