"""Makes the files that are measured."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmark.common import BIG, FOLDERS, MIB, ROOT, SMALL, SMALL_SIZE, VESSELS, Size
from benchmark.processes import run


def make_data(plain: Path, size: Size) -> None:
    """Write what is measured: random bytes, and drawn images to train on."""
    plain.mkdir()
    with (plain / BIG).open("wb") as file:
        for _ in range(size.big // MIB):
            file.write(os.urandom(MIB))
    paths = small_paths(size)
    random.Random(1).shuffle(paths)  # directories list in no particular order
    for folder in {path.parent for path in paths}:
        (plain / folder).mkdir(parents=True)
    for path in paths:
        (plain / path).write_bytes(os.urandom(SMALL_SIZE))
    if size.images:
        run([sys.executable, ROOT / "examples" / "make_vessels.py", plain / VESSELS, "--count", size.images])


def small_paths(size: Size) -> list[Path]:
    """Return the paths of the small files."""
    return [Path(SMALL, str(number % FOLDERS), f"{number:05}.bin") for number in range(size.small)]


def warm(folder: Path) -> None:
    """Bring all files into the page cache, as read-ahead does, and let the disk come to rest.

    What was just written lies there in pieces of the size that it was written in; from pages of 4 KiB the kernel
    copies at a third of the speed, and contenders write in different pieces.
    """
    os.sync()
    for path in files_below(folder):
        with open(path, "rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    touch(folder)


def touch(folder: Path) -> None:
    """Read all files. A virtual machine's host takes memory away that was not used for seconds: it gives it back
    page by page, at a tenth of the speed, to whoever comes first."""
    buffer = bytearray(MIB)
    for path in files_below(folder):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def files_below(folder: Path) -> Iterator[str]:
    """Yield the paths of all files."""
    for parent, _, names in os.walk(folder):
        yield from (os.path.join(parent, name) for name in names)
