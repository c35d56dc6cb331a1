"""`sealfs status`."""

from __future__ import annotations

import os
import time
from typing import Any

import click

from sealfs.cli.common import json_option, print_json, shown_size
from sealfs.errors import IntegrityError, MountError
from sealfs.mount.control import all_reports, report_of
from sealfs.terminal import escaped


@click.command()
@click.argument("mountpoint", type=click.Path(), required=False)
@json_option
def command(mountpoint: str | None, as_json: bool) -> None:
    """Show what is mounted, or how MOUNTPOINT does: what it served, its cache, its errors.

    Ends with exit code 5 if a mount is poisoned, that is, if its store served data that did not authenticate.
    """
    if mountpoint is None:
        reports: list[Any] = list(all_reports())
    else:
        report = report_of(os.path.realpath(mountpoint))
        if report is None:
            raise MountError(f"no sealfs is mounted on {mountpoint}", "'sealfs status' lists the mounts")
        reports = [report]
    if as_json:
        print_json(reports)
    elif not reports:
        click.echo("nothing is mounted")
    else:
        for report in reports:
            _print(report)
    bad = [report["mountpoint"] for report in reports if report["poisoned"]]
    if bad:
        raise IntegrityError(f"{', '.join(bad)}: the store served data that does not authenticate")


def _print(report: dict[str, Any]) -> None:
    hours = (time.time() - report["since"]) / 3600
    click.echo(f"{report['mountpoint']}  {report['uri']}@{report['version']}")
    click.echo(f"    up {hours:.1f} h, process {report['pid']}")
    click.echo(
        f"    served {shown_size(report['bytes_read'])} in {report['reads']} reads, {report['errors']} failed"
    )
    if cache := report.get("cache"):
        click.echo(
            f"    cache {shown_size(cache['size'])}: {cache['hits']} hits, {cache['misses']} misses, "
            f"{shown_size(cache['fetched'])} fetched, {cache['errors']} failed requests"
        )
    if report["poisoned"]:
        click.echo(click.style(f"    POISONED: {escaped(report['poisoned'])}", fg="red", bold=True))
