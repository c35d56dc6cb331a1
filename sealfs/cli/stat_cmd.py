"""`sealfs stat`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from sealfs.attestation.levels import Level
from sealfs.cli.common import (
    dataset_at,
    describe_entry,
    json_option,
    print_json,
    shown_size,
)
from sealfs.cli.evidence import keys_here, own_keys, reading_options
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.version import shown_version
from sealfs.keys import Signer


@click.command()
@click.argument("uri")
@click.argument("path", required=False)
@reading_options
@json_option
def command(
    uri: str,
    path: str | None,
    broker: str | None,
    signer: Signer | None,
    identity_path: Path | None,
    as_json: bool,
) -> None:
    """Describe the dataset at URI[@VERSION], or PATH in it.

    Without a PATH no key is needed: what is shown is what anybody who can list the store can see.
    With one, and keys at a broker, the broker is asked as by 'sealfs mount' if your identity is no recipient.
    The snapshot's digest names this one version for good: URI@sha256:DIGEST means it wherever URI@VERSION does.
    """
    with dataset_at(uri, signer) as dataset:
        if path is None:
            described = _describe_dataset(dataset)
        else:
            index = dataset.index(keys_here([dataset], own_keys(identity_path), broker).keys(dataset))
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
        **({"broker": snapshot.broker.url, "owner": snapshot.broker.owner} if snapshot.broker else {}),
        **({"level": f"{snapshot.level}: {Level.parse(snapshot.level).meaning}"} if snapshot.level else {}),
        "recipient": [recipient.fingerprint for recipient in dataset.keyring().recipients],
    }
