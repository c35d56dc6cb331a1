"""`sealfs keygen`."""

from __future__ import annotations

from pathlib import Path

import click

from sealfs.cli.common import json_option, note, print_json, read_passphrase
from sealfs.errors import UsageError
from sealfs.keys import Identity, default_identity_path


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write it [default: $XDG_CONFIG_HOME/sealfs/identity].",
)
@click.option("-p", "--passphrase", is_flag=True, help="Lock the identity with a passphrase.")
@json_option
def command(output: Path | None, passphrase: bool, as_json: bool) -> None:
    """Make an identity: a secret file that opens what is sealed for you and signs what you push.

    The file is readable by you only; the public recipient string goes to standard output, and with your signer
    string to a .pub file beside it. Give those to whoever shares data with you. Keep a backup: without the
    identity nothing that was sealed for it alone can be opened again.
    """
    path = output or default_identity_path()
    identity = Identity.generate()
    secret = None
    if passphrase:
        secret = read_passphrase("New passphrase: ")
        if len(secret) < 8:
            raise UsageError("a passphrase has at least 8 characters", "several random words are a good one")
    identity.save(path, secret)
    if as_json:
        print_json(
            {
                "path": str(path),
                "recipient": str(identity.recipient),
                "signer": str(identity.signer),
                "fingerprint": identity.recipient.fingerprint,
            }
        )
        return
    note(f"identity {identity.recipient.fingerprint} written to {path}, its public half to {path}.pub")
    click.echo(str(identity.recipient))
