"""`sealfs umount`."""

from __future__ import annotations

import os

import click

from sealfs.mount.points import mounted_type, unmount


@click.command()
@click.argument("mountpoint", type=click.Path())
@click.option("-l", "--lazy", is_flag=True, help="Detach now, even if files are open there.")
def command(mountpoint: str, lazy: bool) -> None:
    """Unmount MOUNTPOINT, and return when the mount and the process behind it are really gone."""
    parent, name = os.path.split(os.path.abspath(mountpoint))
    place = os.path.join(os.path.realpath(parent), name)
    if mounted_type(place) is None:  # only then look at the last part, which hangs where a mount hangs
        place = os.path.realpath(place)
    unmount(place, lazy=lazy)
