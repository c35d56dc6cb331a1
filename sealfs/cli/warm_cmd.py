"""`sealfs warm`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from sealfs.cli.common import (
    Bars,
    SizeParameter,
    shown_size,
)
from sealfs.cli.evidence import opened_at, reading_options
from sealfs.dataset.index import HOLE, ROOT
from sealfs.errors import UsageError
from sealfs.keys import Signer
from sealfs.store.cache import BLOCK_SIZE, BlockCache, DiskBlocks
from sealfs.store.local import LocalStore
from sealfs.xdg import cache_directory


@click.command()
@click.argument("uri")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@click.option("--cache-dir", type=click.Path(path_type=Path), help="As for 'sealfs mount'.")
@click.option("--cache-size", type=SizeParameter(), default=10 << 30, help="As for 'sealfs mount' [default: 10G].")
@reading_options
def command(
    uri: str,
    paths: tuple[str, ...],
    cache_dir: Path | None,
    cache_size: int,
    broker: str | None,
    signer: Signer | None,
    identity_path: Path | None,
) -> None:
    """Fetch the ciphertext of URI[@VERSION], or of some PATHs in it, into the disk cache ahead of time.

    The mount that follows, with the same cache folder, then reads without waiting for the store.

    If your identity is no recipient, and the keys are at a broker, it is asked as by 'sealfs mount'.
    """
    with opened_at(uri, signer, identity_path, broker) as (dataset, keys):
        if isinstance(dataset.store, LocalStore):
            raise UsageError(f"{uri} lies on this machine: there is nothing to fetch")
        index = dataset.index(keys)
        tops = [index.resolve(os.fsencode(path)) for path in paths] or [ROOT]
        wanted = {
            extent.pack
            for top in tops
            for number in index.walk(top)
            if index.entry(number).is_file
            for extent in index.extents(number)
            if extent.pack != HOLE
        }
        packs = [index.pack(number) for number in sorted(wanted)]
        total = sum(pack.layout.ciphertext_size for pack in packs)
        if total > cache_size:
            raise UsageError(
                f"{shown_size(total)} do not fit into a cache of {shown_size(cache_size)}",
                "name some PATHs only, or allow more with --cache-size",
            )
        directory = (cache_dir or cache_directory()) / dataset.snapshot.dataset.hex()
        cache = BlockCache(dataset.store, DiskBlocks(directory, cache_size))
        try:
            with Bars.shown() as bars:
                bars.begin("fetching", total)
                for pack in packs:
                    size = pack.layout.ciphertext_size
                    cache.prefetch(pack.name, size, 0, size)
                    cache.wait(pack.name, size)
                    bars.advance(size)
        finally:
            cache.close()
    blocks = -(-total // BLOCK_SIZE)
    click.echo(f"{shown_size(total)} in {len(packs)} packs are in the cache (about {blocks} blocks)")
