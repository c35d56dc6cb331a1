"""What a workload reads and writes, and at which paths: the one place that reads what users write of it.

The same text is used on the command line of `sealfs run`, in an enclave's measured arguments, and by the launcher:

    --data URI[@VERSION]:/path      VERSION is a number, or sha256:DIGEST of the snapshot
    --signer [/path=]KEY            for the dataset at that path, or for all that have none of their own
    --out URI:/path

Threading: values and functions of values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from sealfs.dataset.version import Version, split_version, with_version
from sealfs.errors import UsageError
from sealfs.keys import Signer
from sealfs.store.address import normalize

# the colon of s3:// is followed by two slashes, which no path begins with
_PLACED = re.compile(r"(.+?):(/(?!/)[^:]*)", re.DOTALL)
_FOR_PATH = re.compile(r"(/[^=]*)=(.+)", re.DOTALL)

DEFAULT_INTERVAL = 600.0  # seconds

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class DataMount:
    """A dataset of a run.

    Attributes:
        address: Where it lies, normalized, without a version.
        version: Which version; None for the newest.
        path: Absolute path at which the workload sees it.
        signer: Whom to believe; None for whom this user believes already.
    """

    address: str
    version: Version | None
    path: str
    signer: Signer | None = None

    @classmethod
    def parse(cls, text: str) -> DataMount:
        """Read `URI[@VERSION]:/path`.

        Raises:
            UsageError: It is not of that form, or the address makes no sense.
        """
        uri, path = parse_placed(text)
        address, version = split_version(uri)
        return cls(normalize(address), version, path)

    @property
    def uri(self) -> str:
        """Address and version as users write them."""
        return with_version(self.address, self.version)

    def __str__(self) -> str:
        return f"{self.uri}:{self.path}"


@dataclass(frozen=True, slots=True)
class Output:
    """Where results go.

    Attributes:
        address: Where they are sealed to, normalized.
        path: Absolute path at which the workload writes them.
        recipients: Recipient strings of who can open them.
        interval: Seconds between snapshots.
        log: Name of a file below `path` for what the workload prints; None prints it, for the host to read.
    """

    address: str
    path: str
    recipients: tuple[str, ...]
    interval: float = DEFAULT_INTERVAL
    log: str | None = None


def parse_placed(text: str) -> tuple[str, str]:
    """Take `URI:/path` apart.

    Raises:
        UsageError: It is not of that form.
    """
    match = _PLACED.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' is not URI:/path", "write for example s3://bucket/scans:/data")
    return match[1], os.path.normpath(match[2])


def split_path(text: str) -> tuple[str | None, str]:
    """Take `[/path=]VALUE` apart; no path means every dataset that has no value of its own."""
    match = _FOR_PATH.fullmatch(text)
    return (os.path.normpath(match[1]), match[2]) if match else (None, text)


def for_paths(
    values: Iterable[tuple[str | None, Value]], paths: Sequence[str], option: str
) -> dict[str, Value | None]:
    """Return which value each path has: its own, else the one for all, else None.

    Args:
        values: From `split_path`.
        paths: Of the datasets.
        option: For messages, such as `--signer`.

    Raises:
        UsageError: A value for a path that is none of these, or two for the same.
    """
    own: dict[str | None, Value] = {}
    for path, value in values:
        if path in own:
            where = f" for {path}" if path else " for all datasets"
            raise UsageError(f"{option} is given twice{where}", f"for one dataset: {option} /PATH=...")
        if path is not None and path not in paths:
            raise UsageError(
                f"{option} names {path}, where there is no dataset", f"there are: {', '.join(paths) or 'none'}"
            )
        own[path] = value
    return {path: own.get(path, own.get(None)) for path in paths}


def with_signers(
    datasets: Sequence[DataMount], signers: Iterable[tuple[str | None, Signer]]
) -> tuple[DataMount, ...]:
    """Return datasets with whom to believe about each.

    Raises:
        UsageError: See `for_paths`.
    """
    found = for_paths(signers, [data.path for data in datasets], "--signer")
    return tuple(replace(data, signer=found[data.path]) for data in datasets)


def check_apart(paths: Sequence[str]) -> None:
    """Refuse paths that lie in one another.

    Raises:
        UsageError: Two do.
    """
    for number, path in enumerate(paths):
        for other in paths[number + 1 :]:
            if os.path.commonpath([path, other]) in {path, other}:
                raise UsageError(f"{path} and {other} lie in one another", "give each a path of its own")
