"""`sealfs broker`: the group of verbs about key brokers, and those that an operator needs on the machine."""

from __future__ import annotations

import logging
import re
import socket
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import click

from sealfs.broker.address import DEFAULT_PORT, BrokerAddress
from sealfs.broker.home import address_file, backup, create, exists, open_home, rewrap
from sealfs.broker.wrapping import FileWrapper, KmsWrapper, Wrapper
from sealfs.cli import broker_log, broker_member
from sealfs.cli.broker_common import (
    home_option,
    key_file_option,
    new_wrapper,
    passphrase_wrapper,
    wrapper_for,
)
from sealfs.cli.common import SignerParameter, collateral_option, note
from sealfs.errors import KeyAccessError, UsageError
from sealfs.keys import Signer, default_identity_path

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared, not listened at


@click.group()
def command() -> None:
    """Run a key broker, and tell it what to do.

    A broker holds datasets' keys and releases each only to an environment that proves what it runs and how well it
    is protected, as the dataset's policy demands. Every decision goes to a signed log. docs/broker.md shows how to
    operate one in five minutes.
    """


for verb in (*broker_log.commands, *broker_member.commands):
    command.add_command(verb)


@command.command("serve")
@home_option
@key_file_option
@click.option("--listen", default=f"127.0.0.1:{DEFAULT_PORT}", show_default=True, metavar="HOST:PORT",
              help="Where to listen; 0.0.0.0 is every address of this machine.")  # fmt: skip
@click.option("--admin", type=SignerParameter(), metavar="SIGNER",
              help="At the first start: who may do everything [default: your identity].")  # fmt: skip
@click.option("--name", default="owner", show_default=True,
              help="At the first start: what that member, and so the datasets' owner, is called.")  # fmt: skip
@click.option("--passphrase", is_flag=True, help="At the first start: protect the database by a passphrase.")
@click.option("--kms", metavar="KEY", help="At the first start: protect the database by this key of AWS KMS.")
@click.option("--pccs", metavar="URL",
              help="Where to fetch Intel's statements about SGX and TDX platforms [default: nowhere].")  # fmt: skip
@collateral_option
@click.option("--accept-unbound", is_flag=True,
              help="Also accept evidence that names no broker: the confidential containers' clients'.")  # fmt: skip
@click.pass_context
def serve_command(
    context: click.Context,
    home: Path,
    key_file: Path,
    listen: str,
    admin: Signer | None,
    name: str,
    passphrase: bool,
    kms: str | None,
    pccs: str | None,
    collateral: Path | None,
    accept_unbound: bool,
) -> None:
    """Start a broker, and make it first if there is none: its folder, its keys, and you as its admin.

    Prints its address, which clients need: the part behind '#' is how they know it. Logs JSON lines to standard
    error. SIGTERM or Ctrl-C ends it.
    """
    from sealfs.attestation.collateral import CollateralFolder, default_folder  # noqa: PLC0415 - verifies quotes
    from sealfs.attestation.revocation import RevocationFolder  # noqa: PLC0415
    from sealfs.broker import serve  # noqa: PLC0415 - loads a web server

    host, port = _host_and_port(listen)
    if not exists(home):
        signer = admin or _local_signer()
        create(home, new_wrapper(key_file, passphrase, kms), signer, name)
        note(f"made a broker in {home}; '{name}' may do everything")
        note("what opens its database must not lie with copies of it, and not be lost: docs/broker.md")
    verbose = context.find_root().params.get("verbose")
    serve.log_as_json(logging.INFO if verbose else logging.WARNING)

    def ready(address: BrokerAddress) -> None:
        address_file(home).write_text(f"{address}\n")
        if address.host in _EVERYWHERE:
            address = replace(address, host=socket.gethostname())
        click.echo(str(address))

    with closing(open_home(home, wrapper_for(home, key_file))) as opened:
        options = serve.Options(host, port, accept_unbound=accept_unbound)
        said = collateral or default_folder()
        verifier = serve.verifiers(CollateralFolder(said, pccs), revocations=RevocationFolder(said))
        serve.Service(serve.application(opened, verifier, options), opened, options).run(ready)


@command.command("backup")
@click.argument("target", type=click.Path(path_type=Path))
@home_option
def backup_command(target: Path, home: Path) -> None:
    """Copy the broker's database to the new file TARGET, also while it runs.

    The copy opens only with what opens the original: back up that, too, and elsewhere.
    """
    backup(home, target)
    click.echo(f"copied the broker's database to {target}")


@command.command("rewrap")
@home_option
@key_file_option
@click.option("--new-key-file", type=click.Path(path_type=Path), help="Protect it by a new key in this new file.")
@click.option("--passphrase-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Protect it by the passphrase in this file.")  # fmt: skip
@click.option("--kms", metavar="KEY", help="Protect it by this key of AWS KMS.")
def rewrap_command(
    home: Path, key_file: Path, new_key_file: Path | None, passphrase_file: Path | None, kms: str | None
) -> None:
    """Seal everything in a broker's database anew, under a new master key that is protected in a new way.

    The broker must not be running. Copies of the database made before still open as they did.
    """
    if sum(option is not None for option in (new_key_file, passphrase_file, kms)) != 1:
        raise UsageError("how is it to be protected?", "--new-key-file, --passphrase-file or --kms")
    new: Wrapper
    if new_key_file is not None:
        new = FileWrapper.create(new_key_file)
    elif passphrase_file is not None:
        new = passphrase_wrapper(passphrase_file.read_text().rstrip("\n"))
    else:
        new = KmsWrapper(str(kms))
    count = rewrap(home, wrapper_for(home, key_file), new)
    click.echo(f"sealed {count} secrets anew; what opened the database before opens only older copies of it")


def _host_and_port(listen: str) -> tuple[str, int]:
    match = re.fullmatch(r"\[?([^\[\]]+?)\]?:(\d{1,5})", listen)
    if match is None or int(match[2]) > 65535:
        raise UsageError(f"'{listen}' is not HOST:PORT", f"such as 0.0.0.0:{DEFAULT_PORT}")
    return match[1], int(match[2])


def _local_signer() -> Signer:
    """Return this user's signer: the public half is enough."""
    path = default_identity_path()
    try:
        return SignerParameter().convert(f"{path}.pub", None, None)
    except UsageError:
        raise KeyAccessError(
            f"there is no identity at {path} to be the broker's admin",
            "make one with 'sealfs keygen', or name who it is with --admin",
        ) from None
