"""`sealfs trust`."""

from __future__ import annotations

import click

from sealfs.cli.common import SignerParameter, json_option, print_json
from sealfs.dataset.trust import TrustStore
from sealfs.errors import TrustError, UsageError
from sealfs.keys import Signer
from sealfs.store.address import normalize


@click.command()
@click.argument("uri")
@click.option("--signer", type=SignerParameter(), help="Believe this signer from now on.")
@click.option("--forget", is_flag=True, help="Forget the address: its next use counts as the first.")
@json_option
def command(uri: str, signer: Signer | None, forget: bool, as_json: bool) -> None:
    """Show what is pinned for URI: the signer that is believed and the newest version seen.

    Change it only after you have asked the provider by another way than the store.
    """
    trust, address = TrustStore(), normalize(uri)
    if forget and signer is not None:
        raise UsageError("--forget and --signer contradict each other")
    if forget:
        click.echo("forgotten" if trust.forget(address) else "nothing was pinned")
        return
    if signer is not None:
        trust.repin(address, signer)
    pin = trust.get(address)
    if pin is None:
        raise TrustError(f"nothing is pinned for {address}", "it is pinned at first use, or with --signer there")
    shown = {
        "uri": pin.uri,
        "dataset": pin.dataset.hex(),
        "signer": str(pin.signer),
        "version": pin.version,
        "sha256": pin.sha256.hex(),
    }
    if as_json:
        print_json(shown)
        return
    for name, value in shown.items():
        click.echo(f"{name + ':':<10}{value}")
