"""`sealfs gc`."""

from __future__ import annotations

import click

from sealfs.cli.common import json_option, note, print_json, shown_size, store_at
from sealfs.dataset.gc import delete_garbage, find_garbage
from sealfs.dataset.session import ABANDONED_AFTER
from sealfs.dataset.trust import TrustStore

_DAY = 86400


@click.command()
@click.argument("uri")
@click.option("--keep", type=click.IntRange(1), help="Keep only so many of the newest versions [default: all].")
@click.option(
    "--abandoned-after",
    type=click.FloatRange(min=0),
    default=ABANDONED_AFTER / _DAY,
    show_default=True,
    help="Days after which a push that gave no sign of life is over.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Only show what would be deleted.")
@json_option
def command(uri: str, keep: int | None, abandoned_after: float, dry_run: bool, as_json: bool) -> None:
    """Delete objects at URI that no version and no push in progress needs. Needs no key.

    With --keep also versions older than the newest so many; who has one of them mounted loses it.
    """
    with store_at(uri) as store:
        garbage = find_garbage(store, TrustStore(), keep=keep, abandoned_after=abandoned_after * _DAY)
        if not dry_run:
            delete_garbage(store, garbage)
    if as_json:
        print_json(
            {
                "deleted": not dry_run,
                "objects": [info.key for info in garbage.objects],
                "size": garbage.size,
                "versions": garbage.versions,
                "pushes_in_progress": garbage.pushes,
            }
        )
        return
    if garbage.pushes:
        note(f"{garbage.pushes} pushes in progress: what they sent stays")
    what = f"{len(garbage.objects)} objects, {shown_size(garbage.size)}"
    if garbage.versions:
        what += f", among them versions {', '.join(map(str, garbage.versions))}"
    click.echo(f"{'would delete' if dry_run else 'deleted'} {what}")
