"""`sealfs verify`."""

from __future__ import annotations

from pathlib import Path

import click

from sealfs.cli.common import (
    Bars,
    dataset_at,
    identity_option,
    json_option,
    note,
    open_identity,
    print_json,
    shown_path,
    shown_size,
    signer_option,
)
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.verify import Verdict, verify
from sealfs.errors import IntegrityError, KeyAccessError
from sealfs.keys import Signer
from sealfs.terminal import escaped


@click.command()
@click.argument("uri")
@click.option("--no-keys", is_flag=True, help="Only hold objects against the signed list, as an operator would.")
@signer_option
@identity_option
@json_option
def command(uri: str, no_keys: bool, signer: Signer | None, identity_path: Path | None, as_json: bool) -> None:
    """Check that the store still holds what was signed for URI[@VERSION].

    With an identity that can open the dataset every byte is authenticated and damaged files are named; without,
    every object is held against its signed size and SHA-256. Ends with exit code 5 if anything is wrong.
    """
    with dataset_at(uri, signer) as dataset:
        keys = None if no_keys else _keys(dataset, identity_path)
        with Bars.shown() as bars:
            verdict = verify(dataset, keys, bars)
        version = dataset.snapshot.version
    _print(verdict, version, as_json)
    if not verdict.is_good:
        raise IntegrityError(
            f"version {version} is damaged: bad objects: {len(verdict.bad_objects)}, "
            f"bad files: {len(verdict.bad_files)}",
            "restore the objects from a copy of the store, or push the folder again to a new address",
        )


def _keys(dataset: Dataset, identity_path: Path | None) -> DatasetKeys | None:
    try:
        return dataset.keys(open_identity(identity_path))
    except KeyAccessError as error:
        note(f"{error.message}: checking objects against the signed list only")
        return None
    except IntegrityError:
        return None  # the keyring itself is bad: `verify` names it


def _print(verdict: Verdict, version: int, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "version": version,
                "good": verdict.is_good,
                "authenticated": verdict.authenticated,
                "objects": verdict.objects,
                "size": verdict.size,
                "bad_objects": verdict.bad_objects,
                "bad_files": [shown_path(path) for path in verdict.bad_files],
            }
        )
        return
    for name, reason in verdict.bad_objects.items():
        click.echo(f"BAD object {name}: {escaped(reason)}")
    for path in verdict.bad_files:
        click.echo(f"BAD file {shown_path(path)}")
    if verdict.is_good:
        how = "every byte authenticated" if verdict.authenticated else "held against the signed list"
        click.echo(f"version {version} is good: {verdict.objects} objects, {shown_size(verdict.size)}, {how}")
