"""How a version of a dataset is named: by its number, or by the SHA-256 of its snapshot, which names everything.

A number means what the dataset's signer says it means: whoever chooses what a store serves can still serve another
dataset of the same signer. A digest is one snapshot of one dataset, signer included, and nothing else.

Threading: functions of values.
"""

from __future__ import annotations

import re

Version = int | bytes
"""A number from 1, or the 32 bytes of a snapshot object's SHA-256."""

_NAMED = re.compile(r"(.+)@(?:(\d{1,9})|sha256:([0-9a-f]{64}))", re.DOTALL)


def split_version(uri: str) -> tuple[str, Version | None]:
    """Take `URI[@VERSION]` apart: `URI@3`, `URI@sha256:HEX`, or no version for the newest."""
    match = _NAMED.fullmatch(uri)
    if match is None:
        return uri, None
    return match[1], int(match[2]) if match[2] else bytes.fromhex(match[3])


def with_version(address: str, version: Version | None) -> str:
    """Undo `split_version`."""
    return address if version is None else f"{address}@{shown_version(version)}"


def shown_version(version: Version) -> str:
    """Return a version as users write it."""
    return str(version) if isinstance(version, int) else f"sha256:{version.hex()}"
