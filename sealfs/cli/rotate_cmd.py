"""`sealfs rotate`."""

from __future__ import annotations

from pathlib import Path

import click

from sealfs.cli.common import Bars, identity_option, open_identity, single_writer_option, store_at
from sealfs.cli.publishing import broker_told
from sealfs.dataset.access import AccessChange
from sealfs.dataset.trust import TrustStore


@click.command()
@click.argument("uri")
@click.option("--reencrypt", is_flag=True, help="Also seal everything that is there anew.")
@single_writer_option
@identity_option
def command(uri: str, reencrypt: bool, single_writer: bool, identity_path: Path | None) -> None:
    """Start a new key epoch for the dataset at URI: what is pushed from now on is sealed under a new key."""
    identity = open_identity(identity_path)
    with store_at(uri) as store, Bars.shown() as bars, broker_told(store, identity):
        change = AccessChange(store, identity, TrustStore(), single_writer=single_writer)
        snapshot = change.rotate(reencrypt, bars)
    click.echo(f"version {snapshot.version}, epoch {snapshot.epoch}")
