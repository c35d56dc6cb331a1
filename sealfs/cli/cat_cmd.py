"""`sealfs cat`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from sealfs.cli.common import dataset_at, identity_option, open_identity, signer_option
from sealfs.errors import NotADatasetError
from sealfs.keys import Signer
from sealfs.opening import open_view

_STEP = 4 << 20


@click.command()
@click.argument("uri")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@signer_option
@identity_option
def command(uri: str, paths: tuple[str, ...], signer: Signer | None, identity_path: Path | None) -> None:
    """Write files of the dataset at URI[@VERSION] to standard output.

    Only authenticated bytes are written; if something does not authenticate, the command ends with exit code 5
    and what was written before is right but not the whole.
    """
    identity = open_identity(identity_path)
    buffer = memoryview(bytearray(_STEP))
    with dataset_at(uri, signer) as dataset:
        view, _ = open_view(dataset, dataset.keys(identity))
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
