"""`sealfs stat`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from sealfs.cli.common import (
    dataset_at,
    describe_entry,
    identity_option,
    json_option,
    open_identity,
    print_json,
    shown_size,
    signer_option,
)
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.version import shown_version
from sealfs.keys import Signer


@click.command()
@click.argument("uri")
@click.argument("path", required=False)
@signer_option
@identity_option
@json_option
def command(uri: str, path: str | None, signer: Signer | None, identity_path: Path | None, as_json: bool) -> None:
    """Describe the dataset at URI[@VERSION], or PATH in it.

    Without a PATH no key is needed: what is shown is what anybody who can list the store can see.
    The snapshot's digest names this one version for good: URI@sha256:DIGEST means it wherever URI@VERSION does.
    """
    with dataset_at(uri, signer) as dataset:
        if path is None:
            described = _describe_dataset(dataset)
        else:
            index = dataset.index(dataset.keys(open_identity(identity_path)))
            described = describe_entry(index, index.resolve(os.fsencode(path)))
    if as_json:
        print_json(described)
        return
    for name, value in described.items():
        if isinstance(value, list):
            for member in value:
                click.echo(f"{name + ':':<16}{member}")
        else:
            shown = shown_size(value) if name in {"size", "ciphertext"} and isinstance(value, int) else value
            click.echo(f"{name + ':':<16}{shown}")


def _describe_dataset(dataset: Dataset) -> dict[str, object]:
    snapshot = dataset.snapshot
    return {
        "uri": dataset.store.uri,
        "dataset": snapshot.dataset.hex(),
        "version": snapshot.version,
        "newest": dataset.newest.version,
        "snapshot": shown_version(dataset.ref.sha256),
        "time": snapshot.time.isoformat(),
        "signer": str(snapshot.signer),
        "epoch": snapshot.epoch,
        "segment length": snapshot.segment_length,
        "packs": len(snapshot.packs),
        "ciphertext": sum(ref.size for ref in snapshot.packs) + snapshot.index.size,
        "recipient": [recipient.fingerprint for recipient in dataset.keyring().recipients],
    }
