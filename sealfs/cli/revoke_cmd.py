"""`sealfs revoke`."""

from __future__ import annotations

from pathlib import Path

import click

from sealfs.cli.common import Bars, identity_option, note, open_identity, single_writer_option, store_at
from sealfs.cli.publishing import broker_told
from sealfs.dataset.access import AccessChange
from sealfs.dataset.trust import TrustStore


@click.command()
@click.argument("uri")
@click.argument("fingerprints", nargs=-1, required=True, metavar="FINGERPRINT...")
@click.option("--reencrypt", is_flag=True, help="Also seal everything that is there anew.")
@single_writer_option
@identity_option
def command(
    uri: str,
    fingerprints: tuple[str, ...],
    reencrypt: bool,
    single_writer: bool,
    identity_path: Path | None,
) -> None:
    """Keep recipients from opening what is pushed to URI from now on ('sealfs stat URI' lists fingerprints).

    What was pushed before stays readable to whoever had its key and can get at the objects, because they may have
    kept both. --reencrypt seals the newest version anew under a key they never had; then delete the old objects
    with 'sealfs gc --keep 1 URI'. Nothing takes back a copy somebody has made.
    """
    identity = open_identity(identity_path)
    with store_at(uri) as store, Bars.shown() as bars, broker_told(store, identity):
        change = AccessChange(store, identity, TrustStore(), single_writer=single_writer)
        snapshot = change.revoke(fingerprints, reencrypt, bars)
    click.echo(f"version {snapshot.version}, epoch {snapshot.epoch}: they cannot open what is pushed from now on")
    if reencrypt:
        note(f"now delete what they could still open: sealfs gc --keep 1 {uri}")
    else:
        note("what was pushed before stays readable to them: --reencrypt seals it anew")
