"""`mount.sealfs`: what mount(8) and fstab call: `mount.sealfs URI DIR [-sfnv] [-o OPTIONS]`.

A line for /etc/fstab:

    s3://bucket/scans  /data/scans  sealfs  ro,_netdev,noauto,identity=/etc/sealfs/identity  0 0
"""

from __future__ import annotations

import sys
from typing import NoReturn

from sealfs.cli.main import main as sealfs_main

# options of mount(8) that are meant for others, or that a read-only mount honours anyway
_IGNORED = {
    "ro", "defaults", "auto", "noauto", "user", "nouser", "users", "exec", "noexec", "suid", "nosuid",
    "dev", "nodev", "_netdev", "nofail", "noatime", "relatime",
}  # fmt: skip
_FLAGS = {"allow_other": "--allow-other"}
_VALUES = {
    "identity": "--identity",
    "signer": "--signer",
    "cache_dir": "--cache-dir",
    "cache_size": "--cache-size",
    "cache_memory": "--cache-memory",
    "deadline": "--deadline",
}


def translate(arguments: list[str]) -> list[str]:
    """Return the arguments of `sealfs` for those that mount(8) passes to its helper.

    Raises:
        ValueError: An option that is not known.
    """
    positional: list[str] = []
    options: list[str] = []
    remaining = iter(arguments)
    for argument in remaining:
        if argument == "-o":
            options += next(remaining, "").split(",")
        elif argument == "-t":
            next(remaining, None)
        elif not argument.startswith("-"):
            positional.append(argument)
    translated = ["mount"]
    for option in filter(None, options):
        name, _, value = option.partition("=")
        if name in _FLAGS:
            translated.append(_FLAGS[name])
        elif name in _VALUES and value:
            translated += [_VALUES[name], value]
        elif name not in _IGNORED and not name.startswith(("x-", "comment")):
            raise ValueError(f"unknown mount option '{option}'")
    return [*translated, "--", *positional] if len(positional) == 2 else translated


def main() -> NoReturn:
    """Run as mount(8)'s helper."""
    try:
        sys.argv[1:] = translate(sys.argv[1:])
    except ValueError as error:
        print(f"mount.sealfs: {error}", file=sys.stderr)
        sys.exit(2)
    sealfs_main()
