"""`sealfs grant`."""

from __future__ import annotations

from pathlib import Path

import click

from sealfs.cli.common import RecipientParameter, identity_option, open_identity, single_writer_option, store_at
from sealfs.cli.publishing import broker_told
from sealfs.dataset.access import AccessChange
from sealfs.dataset.trust import TrustStore
from sealfs.keys import Recipient


@click.command()
@click.argument("uri")
@click.argument("recipients", nargs=-1, required=True, type=RecipientParameter(), metavar="RECIPIENT...")
@single_writer_option
@identity_option
def command(uri: str, recipients: tuple[Recipient, ...], single_writer: bool, identity_path: Path | None) -> None:
    """Let each RECIPIENT (a string or a .pub file) open the dataset at URI, all versions of it.

    This makes a new version with the same content.
    """
    identity = open_identity(identity_path)
    with store_at(uri) as store, broker_told(store, identity):
        change = AccessChange(store, identity, TrustStore(), single_writer=single_writer)
        snapshot = change.grant(recipients)
    if snapshot is None:
        click.echo("they all can open it already")
    else:
        names = ", ".join(recipient.fingerprint for recipient in recipients)
        click.echo(f"version {snapshot.version}: {names} can open the dataset now")
