"""`sealfs fetch`."""

from __future__ import annotations

import click

from sealfs.ciphertext import fetch
from sealfs.cli.common import Bars, dataset_at, json_option, print_json, shown_size, signer_option, store_at
from sealfs.keys import Signer


@click.command()
@click.argument("uri")
@click.argument("target")
@signer_option
@json_option
def command(uri: str, target: str, signer: Signer | None, as_json: bool) -> None:
    """Copy the objects of URI[@VERSION] to TARGET, a folder or another store, without any key.

    Each object is checked against what the provider signed; those that are there already stay. TARGET is then an
    address that holds this one version, still sealed: for an enclave's host, or as a backup.
    """
    with dataset_at(uri, signer) as dataset, store_at(target) as copy, Bars.shown() as bars:
        count, size = fetch(dataset, copy, bars)
        version = dataset.snapshot.version
    if as_json:
        print_json({"version": version, "objects": count, "size": size})
    else:
        click.echo(f"version {version}: copied {count} objects, {shown_size(size)}, to {target}")
