"""Copies of compiled Python modules that an enclave takes as they are: all files' times are 0 in Gramine.

Python takes a .pyc file for its source only if the source's time is the one noted in it, so in Gramine it would
compile every module at every start. An enclave's files are told by their hashes, so nothing is lost with .pyc files
that are checked against nothing. The user's own stay as they are: the copies lie in the enclave's folder, where
PYTHONPYCACHEPREFIX has Python look for them.

Threading: stateless.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from sealfs.enclave.collected import COMPILED, LoadedFile, hashed, source_of
from sealfs.errors import LocalIOError

FOLDER = "pycache"  # below the enclave's

# PEP 552: magic, flags, then either time and size of the source or its hash
_HEADER = 16
_HASHED = 0b01
_CHECKED = 0b10


def copies_of(files: Iterable[LoadedFile], enclave: Path) -> tuple[LoadedFile, ...]:
    """Write a copy of each compiled module that belongs to its source as it is now.

    Args:
        files: What is loaded, sources and compiled modules among it.
        enclave: Its folder.

    Returns:
        The copies, sorted; their paths begin with `FOLDER`.

    Raises:
        LocalIOError: One can't be read or written.
    """
    shutil.rmtree(enclave / FOLDER, ignore_errors=True)
    made = []
    for file in files:
        copy = copy_of(file.path)
        source = source_of(file.path)
        if copy is None or source is None or not os.path.isfile(source):
            continue
        try:
            compiled = Path(file.path).read_bytes()
            if _is_current(compiled, source):
                (enclave / copy).parent.mkdir(parents=True, exist_ok=True)
                (enclave / copy).write_bytes(_unchecked(compiled))
                made.append(copy)
        except OSError as error:
            raise LocalIOError(f"cannot copy {file.path} to {enclave}: {error.strerror}") from None
    return tuple(LoadedFile(os.path.relpath(file.path, enclave), file.sha256)
                 for file in hashed(str(enclave / copy) for copy in made))  # fmt: skip


def copy_of(path: str) -> str | None:
    """Return where the copy of a compiled module lies in the enclave's folder; None for other files."""
    match = COMPILED.fullmatch(path)
    return match and f"{FOLDER}{match[1]}{match[2]}{match[3]}"


def _is_current(compiled: bytes, source: str) -> bool:
    """Whether Python would take it, here and now: a stale one was not what the trial ran."""
    flags = int.from_bytes(compiled[4:8], "little")
    if len(compiled) <= _HEADER or flags & ~(_HASHED | _CHECKED):
        return False
    if not flags & _HASHED:
        status = os.stat(source)
        noted = int.from_bytes(compiled[8:12], "little"), int.from_bytes(compiled[12:16], "little")
        return noted == (int(status.st_mtime) & 0xFFFFFFFF, status.st_size & 0xFFFFFFFF)
    return not flags & _CHECKED or compiled[8:_HEADER] == importlib.util.source_hash(Path(source).read_bytes())


def _unchecked(compiled: bytes) -> bytes:
    """Return the module with a header that has nothing to check."""
    flags = int.from_bytes(compiled[4:8], "little")
    if flags & _HASHED:
        return compiled[:4] + _HASHED.to_bytes(4, "little") + compiled[8:]
    return compiled[:4] + _HASHED.to_bytes(4, "little") + bytes(8) + compiled[_HEADER:]
