"""What the verbs of `sealfs broker` share: which broker, which folder, what unwraps its master key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sealfs.broker.address import BrokerAddress
from sealfs.broker.home import address_file, default_home, default_key_file, wrapping_kind
from sealfs.broker.owner import BrokerMember
from sealfs.broker.wrapping import FileWrapper, KmsWrapper, PassphraseWrapper, Wrapper
from sealfs.cli.common import Command, open_identity, read_passphrase
from sealfs.errors import UsageError


class BrokerParameter(click.ParamType[BrokerAddress]):
    """The address of a broker."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> BrokerAddress:
        """See click."""
        del param, ctx
        return value if isinstance(value, BrokerAddress) else BrokerAddress.parse(value)


def broker_option(command: Command) -> Command:
    """Add `--broker`."""
    return click.option(
        "--broker",
        "address",
        type=BrokerParameter(),
        envvar="SEALFS_BROKER",
        metavar="URL",
        help="The broker, with its identity behind '#' [default: $SEALFS_BROKER, or the one started here].",
    )(command)


def home_option(command: Command) -> Command:
    """Add `--home`."""
    return click.option(
        "--home",
        type=click.Path(path_type=Path),
        default=default_home,
        show_default="$XDG_STATE_HOME/sealfs/broker",
        help="The broker's folder.",
    )(command)


def key_file_option(command: Command) -> Command:
    """Add `--key-file`."""
    return click.option(
        "--key-file",
        type=click.Path(path_type=Path),
        default=default_key_file,
        show_default="$XDG_CONFIG_HOME/sealfs/broker.key",
        help="The file with the key that opens the database, if that is what opens it. Keep a copy elsewhere.",
    )(command)


def member_of(address: BrokerAddress | None, identity_path: Path | None) -> BrokerMember:
    """Return the caller's dealings with a broker: the one named, or the one that was started on this machine.

    Raises:
        UsageError: None was named, and none was started here.
    """
    return BrokerMember(address or started_here(), open_identity(identity_path))


def started_here() -> BrokerAddress:
    """Return the address of the broker that this user started last on this machine."""
    try:
        return BrokerAddress.parse(address_file(default_home()).read_text().strip())
    except OSError:
        raise UsageError("no broker was named, and none was started here", "name it with --broker URL") from None


def wrapper_for(home: Path, key_file: Path) -> Wrapper:
    """Return what opens an existing broker's database, asking for its passphrase if that does.

    Raises:
        LocalIOError: There is no broker.
    """
    kind, key = wrapping_kind(home)
    if kind == "passphrase":
        return PassphraseWrapper(read_passphrase(f"Passphrase for the broker in {home}: "))
    return KmsWrapper(key) if kind == "kms" else FileWrapper(key_file)


def new_wrapper(key_file: Path, passphrase: bool, kms: str | None) -> Wrapper:
    """Return what will open a broker's database from now on; a key file is made if it is missing.

    Raises:
        UsageError: Two ways were asked for, or the passphrase is too short.
    """
    if passphrase and kms:
        raise UsageError("a passphrase and a KMS exclude each other", "leave out one")
    if kms:
        return KmsWrapper(kms)
    if not passphrase:
        return FileWrapper(key_file) if key_file.exists() else FileWrapper.create(key_file)
    return passphrase_wrapper(read_passphrase("New passphrase for the broker's database: "))


def passphrase_wrapper(phrase: str) -> Wrapper:
    """Return what a new passphrase protects.

    Raises:
        UsageError: It is too short.
    """
    if len(phrase) < 8:
        raise UsageError("a passphrase has at least 8 characters", "several random words are a good one")
    return PassphraseWrapper(phrase)
