"""What verbs that read share: an identity's own keys, or those that a broker releases to this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from sealfs.attestation.levels import Level
from sealfs.cli.common import Command, dataset_at, identity_option, note, open_identity, signer_option
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.keyring import DatasetKeys
from sealfs.enclave.keysource import HandedKeys, IdentityKeys, PresharedKeys
from sealfs.errors import KeyAccessError
from sealfs.keys import Signer

Own = IdentityKeys | KeyAccessError
"""An identity's keys, or why there are none: a dataset with a broker may open all the same."""


def hint_option(command: Command) -> Command:
    """Add `--broker`, for readers."""
    return click.option(
        "--broker",
        metavar="OWNER@URL",
        help="The broker that has the keys, and the owner's name there [default: as the dataset says].",
    )(command)


def reading_options(command: Command) -> Command:
    """Add what `opened_at` takes: `--broker`, `--signer` and `--identity`."""
    return hint_option(signer_option(identity_option(command)))


def own_keys(identity_path: Path | None) -> Own:
    """Return the keys of this user's identity, or why it can't be used.

    Raises:
        KeyAccessError: It can't, although the user has named it.
    """
    try:
        return IdentityKeys(open_identity(identity_path))
    except KeyAccessError as error:
        if identity_path is not None:
            raise
        return error


def keys_here(datasets: Sequence[Dataset], own: Own, broker: str | None) -> HandedKeys:
    """Return what opens datasets on this very machine: own keys where there are some, else what brokers release.

    Raises:
        KeyAccessError: There are no keys, and no broker has them or it refuses.
    """
    if broker is None and all(dataset.newest.broker is None for dataset in datasets):
        if isinstance(own, KeyAccessError):
            raise own
        return own
    try:
        from sealfs.enclave.attested import OwnKeysFirst, keys_for_evidence  # noqa: PLC0415 - talks to brokers
    except ImportError:
        raise KeyAccessError(
            "to ask a broker for keys takes more packages", "pip install 'sealfs[broker]'"
        ) from None
    source = OwnKeysFirst(own, keys_for_evidence(None, broker))
    keys = [source.keys(dataset) for dataset in datasets]
    if source.proven is not None:
        level = Level.parse(source.proven)
        note(f"keys were released to this machine at {level}: {level.meaning}", fg="yellow", bold=True)
    return PresharedKeys(keys, source.proven)


@contextmanager
def opened_at(
    uri: str, signer: Signer | None, identity_path: Path | None, broker: str | None
) -> Iterator[tuple[Dataset, DatasetKeys]]:
    """Open the dataset at URI[@VERSION], with what `keys_here` has for it, and close its store afterwards."""
    own = own_keys(identity_path)
    with dataset_at(uri, signer) as dataset:
        yield dataset, keys_here([dataset], own, broker).keys(dataset)
