"""Statements of vendors in a folder: files that operators put there, read once and again when they have changed.

Threading: can be shared by threads; at worst a file is read twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

Parsed = TypeVar("Parsed")

MAX_SIZE = 1 << 20  # bytes; Intel's have 16 KiB

_log = logging.getLogger(__name__)


class ParsedFiles(Generic[Parsed]):
    """What is in the files of a folder.

    Args:
        path: The folder, which may be missing; or one file.
        pattern: Which of a folder's files, "*.json" for instance.
        parse: Reads a file; is given its name and its first `MAX_SIZE` + 1 bytes.
    """

    def __init__(self, path: Path, pattern: str, parse: Callable[[Path, bytes], Parsed]) -> None:
        self._path = path
        self._pattern = pattern
        self._parse = parse
        self._parsed: dict[Path, tuple[tuple[int, int], Parsed]] = {}

    def __iter__(self) -> Iterator[Parsed]:
        for path in [self._path] if self._path.is_file() else sorted(self._path.glob(self._pattern)):
            try:
                state = path.stat()
                key = (state.st_mtime_ns, state.st_size)
                known = self._parsed.get(path)
                if known is None or known[0] != key:
                    with path.open("rb") as file:
                        data = file.read(MAX_SIZE + 1)
                    known = self._parsed[path] = (key, self._parse(path, data))
            except OSError as error:
                _log.warning("cannot read %s: %s", path, error.strerror)
                continue
            yield known[1]
