"""What verbs share: options, opening an address, printing.

Colours and progress bars appear on terminals only; `--json` output goes to standard output, everything about the
work itself to standard error.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress

from sealfs.attestation.levels import Level
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.index import Index
from sealfs.dataset.trust import TrustStore
from sealfs.dataset.version import Version, shown_version, split_version
from sealfs.errors import KeyAccessError, UsageError
from sealfs.keys import (
    RECIPIENT_PREFIX,
    SIGNER_PREFIX,
    Identity,
    Recipient,
    Signer,
    default_identity_path,
    is_locked,
    load_identity,
)
from sealfs.store.address import open_store
from sealfs.store.base import ObjectStore
from sealfs.terminal import escaped

Command = TypeVar("Command", bound=Callable[..., Any])

_UNPROTECTED = ("L1", "L2")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def identity_option(command: Command) -> Command:
    """Add `--identity`."""
    return click.option(
        "-i",
        "--identity",
        "identity_path",
        type=click.Path(path_type=Path),
        envvar="SEALFS_IDENTITY",
        help="Identity file [default: $XDG_CONFIG_HOME/sealfs/identity, or $SEALFS_IDENTITY].",
    )(command)


def signer_option(command: Command) -> Command:
    """Add `--signer`."""
    return click.option(
        "--signer",
        type=SignerParameter(),
        help="The provider's signer string or .pub file: whom to believe at first use.",
    )(command)


def json_option(command: Command) -> Command:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")(command)


def collateral_option(command: Command) -> Command:
    """Add `--collateral`."""
    return click.option(
        "--collateral",
        type=click.Path(path_type=Path),
        help="What Intel says about platforms, and AMD's revocation lists: a file, or a folder of them "
        "[default: $XDG_STATE_HOME/sealfs/collateral].",
    )(command)


def single_writer_option(command: Command) -> Command:
    """Add `--single-writer`."""
    return click.option(
        "--single-writer",
        is_flag=True,
        help="Promise that nobody else pushes, for stores that ignore conditional writes.",
    )(command)


def _public_line(value: str, prefix: str) -> str:
    """Return a public string given as itself or as the name of a file that has it."""
    if value.startswith(prefix):
        return value
    try:
        lines = Path(value).read_text(errors="replace").splitlines()
    except OSError as error:
        raise UsageError(
            f"'{value}' is neither a string that starts with '{prefix}' nor a readable file ({error.strerror})"
        ) from None
    for line in lines:
        if line.startswith(prefix):
            return line
    raise UsageError(f"'{value}' has no line that starts with '{prefix}'", "name the .pub file of an identity")


class RecipientParameter(click.ParamType[Recipient]):
    """A recipient string, or a file that has one."""

    name = "recipient"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Recipient:
        """See click."""
        del param, ctx
        return value if isinstance(value, Recipient) else Recipient.parse(_public_line(value, RECIPIENT_PREFIX))


class SignerParameter(click.ParamType[Signer]):
    """A signer string, or a file that has one."""

    name = "signer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Signer:
        """See click."""
        del param, ctx
        return value if isinstance(value, Signer) else Signer.parse(_public_line(value, SIGNER_PREFIX))


class SizeParameter(click.ParamType[int]):
    """A number of bytes, such as 512M or 10G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """See click."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d+)([KMGT]?)(i?B)?", value.strip(), re.IGNORECASE)
        if match is None:
            self.fail(f"'{value}' is not a size such as 512M or 10G", param, ctx)
        return int(match[1]) * _UNITS[match[2].upper()]


def open_identity(path: Path | None) -> Identity:
    """Read the identity, asking for its passphrase if it has one.

    Raises:
        KeyAccessError: It is missing or can't be unlocked.
    """
    path = path or default_identity_path()
    return load_identity(path, read_passphrase(f"Passphrase for {path}: ") if is_locked(path) else None)


def read_passphrase(prompt: str) -> str:
    """Return a passphrase from the file in SEALFS_PASSPHRASE_FILE, or from the terminal."""
    named = os.environ.get("SEALFS_PASSPHRASE_FILE")
    if named:
        try:
            return Path(named).read_text().rstrip("\n")
        except OSError as error:
            raise KeyAccessError(f"cannot read the passphrase in {named}: {error.strerror}") from None
    if not sys.stdin.isatty():
        raise KeyAccessError(
            "the identity is locked and there is no terminal to ask at",
            "name a file that holds the passphrase with SEALFS_PASSPHRASE_FILE",
        )
    return getpass.getpass(prompt)


def reject_version(uri: str) -> str:
    """Return the address, which must not name a version."""
    address, version = split_version(uri)
    if version is not None:
        raise UsageError("only the newest version can be changed", f"leave out '@{shown_version(version)}'")
    return address


@contextmanager
def store_at(uri: str) -> Iterator[ObjectStore]:
    """Open the store at an address that names no version, and close it afterwards."""
    store = open_store(reject_version(uri))
    try:
        yield store
    finally:
        store.close()


@contextmanager
def dataset_at(uri: str, signer: Signer | None) -> Iterator[Dataset]:
    """Open and verify the dataset at URI[@VERSION], and close its store afterwards."""
    address, version = split_version(uri)
    store = open_store(address)
    try:
        yield open_dataset(store, version, signer)
    finally:
        store.close()


def open_dataset(store: ObjectStore, version: Version | None, signer: Signer | None) -> Dataset:
    """Open a dataset and tell the user when its signer is taken on trust."""
    dataset = Dataset.open(store, TrustStore(), version=version, signer=signer)
    if dataset.first_use and signer is None:
        note(f"first use of {store.uri}: from now on only snapshots signed by {dataset.newest.signer} are believed")
    if dataset.snapshot.level in _UNPROTECTED:
        level = Level.parse(dataset.snapshot.level)
        note(f"{store.uri} was made at {level}: {level.meaning}", fg="yellow", bold=True)
    return dataset


def note(message: str, **style: Any) -> None:
    """Tell the user something that is not output, in a `click.style`."""
    click.secho(f"sealfs: {escaped(message)}", err=True, **style)


def print_json(value: object) -> None:
    """Print a value for scripts."""
    click.echo(json.dumps(value, indent=2))


def shown_path(path: bytes) -> str:
    """Return a path for a terminal: control characters and undecodable bytes escaped."""
    return escaped(path.decode("utf-8", "backslashreplace"))


def shown_size(size: int) -> str:
    """Return a size for people."""
    return decimal(size)


def _kind(mode: int) -> str:
    return "directory" if stat.S_ISDIR(mode) else "symlink" if stat.S_ISLNK(mode) else "file"


def describe_entry(index: Index, number: int) -> dict[str, object]:
    """Return an entry's metadata for `--json`."""
    entry = index.entry(number)
    described: dict[str, object] = {
        "path": shown_path(index.path(number)),
        "type": _kind(entry.mode),
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "size": entry.size,
        "mtime_ns": entry.mtime_ns,
    }
    if entry.is_file:
        described["sha256"] = index.sha256(number).hex()
    if entry.is_symlink:
        described["target"] = shown_path(index.symlink_target(number))
    return described


class Bars:
    """Progress bars with rate and time left, on terminals only.

    Args:
        console: Where they are drawn.
    """

    def __init__(self, console: Console) -> None:
        self._bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._lock = threading.Lock()

    def begin(self, what: str, total: int) -> None:
        """See `sealfs.progress.Progress`."""
        with self._lock:
            if self._task is not None:
                self._bars.remove_task(self._task)
            self._task = self._bars.add_task(what, total=total or None)

    def advance(self, count: int) -> None:
        """See `sealfs.progress.Progress`."""
        if self._task is not None:
            self._bars.advance(self._task, count)

    @classmethod
    @contextmanager
    def shown(cls) -> Iterator[Bars]:
        """Yield bars that are drawn on standard error while the block runs, if that is a terminal."""
        bars = cls(Console(stderr=True))
        if not sys.stderr.isatty():
            yield bars
            return
        with bars._bars:
            yield bars
