"""`sealfs log`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from sealfs.cli.common import (
    dataset_at,
    identity_option,
    json_option,
    open_identity,
    print_json,
    shown_path,
    shown_size,
    signer_option,
)
from sealfs.dataset.dataset import Dataset, Summary
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.snapshot import Snapshot
from sealfs.errors import KeyAccessError, NotADatasetError
from sealfs.keys import Signer


@click.command()
@click.argument("uri")
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True, help="How many at most.")
@signer_option
@identity_option
@json_option
def command(uri: str, limit: int, signer: Signer | None, identity_path: Path | None, as_json: bool) -> None:
    """List the versions of the dataset at URI, newest first. Messages and counts need a key."""
    with dataset_at(uri, signer) as dataset:
        try:
            keys: DatasetKeys | None = dataset.keys(open_identity(identity_path))
        except KeyAccessError:
            keys = None
        versions = [_describe(snapshot, keys) for snapshot in _newest_first(dataset, limit)]
    if as_json:
        print_json(versions)
        return
    for version in versions:
        click.echo(_in_words(version))


def _newest_first(dataset: Dataset, limit: int) -> Iterator[Snapshot]:
    yield dataset.newest
    for ancestor in list(reversed(dataset.newest.history))[: limit - 1]:
        try:
            yield dataset.ancestor(ancestor.version)
        except NotADatasetError:
            return  # older ones have been deleted by `gc --keep`


def _describe(snapshot: Snapshot, keys: DatasetKeys | None) -> dict[str, object]:
    described: dict[str, object] = {
        "version": snapshot.version,
        "time": snapshot.time.isoformat(),
        "epoch": snapshot.epoch,
        "packs": len(snapshot.packs),
        "ciphertext": sum(ref.size for ref in snapshot.packs),
    }
    if keys is not None:
        try:
            summary = Summary.open(snapshot, keys)
        except KeyAccessError:
            return described
        described |= {
            "action": summary.action,
            "message": summary.message,
            "files": summary.files,
            "size": summary.size,
            "added": summary.added,
            "changed": summary.changed,
            "removed": summary.removed,
        }
    return described


def _in_words(version: dict[str, object]) -> str:
    line = f"version {version['version']}  {version['time']}  epoch {version['epoch']}"
    if "action" not in version:
        return f"{line}  {version['packs']} packs (no key: message and counts are sealed)"
    size = version["size"]
    assert isinstance(size, int)  # noqa: S101 - for the type checker
    line += f"  {version['action']}: {version['files']} files, {shown_size(size)}"
    line += f"  +{version['added']} ~{version['changed']} -{version['removed']}"
    message = shown_path(str(version["message"]).encode())
    return f"{line}\n    {message}" if message else line
