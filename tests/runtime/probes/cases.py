"""The list of cases. Each is a function that gets a folder and returns something comparable as JSON."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from typing import Any

CASES: dict[str, Callable[[str], Any]] = {}
NEEDS: dict[str, str] = {}  # of a case: a module that may be missing
SIZES = ("small", "large")


def case(function: Callable[[str], Any]) -> Callable[[str], Any]:
    CASES[function.__name__] = function
    return function


def sized(function: Callable[[str], Any]) -> None:
    """The function gets the path of a small and of a large file."""
    for size in SIZES:
        CASES[f"{function.__name__}_{size}"] = lambda root, size=size: function(f"{root}/bin/{size}.bin")


def library(module: str) -> Callable[[Callable[[str, str], Any]], None]:
    """The function gets the folder and a size: its files are called `small` and `large`, with a suffix."""

    def add(function: Callable[[str, str], Any]) -> None:
        for size in SIZES:
            name = f"{function.__name__}_{size}"
            CASES[name] = lambda root, size=size: function(root, size)
            NEEDS[name] = module

    return add


def digest(data: Any) -> str:
    return f"{len(data)} {hashlib.sha256(data).hexdigest()[:16]}"


def refusal(call: Callable[[], Any]) -> str:
    try:
        return f"no error: {call()!r}"
    except OSError as error:
        return errno.errorcode[error.errno or 0]
