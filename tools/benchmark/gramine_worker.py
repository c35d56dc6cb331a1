"""Measures rows on a sealed folder and on an encrypted mount, in this process in Gramine, and prints the rates.

gramine_worker.py SEALED ENCRYPTED ROUND SIZE
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

from benchmark.common import BIG, MIB, BenchError, Size
from benchmark.rows import make_rows

ROWS = ("sequential_cold", "random_4k", "small_again")  # in this order: nothing has read the big file before


def beginning(folder: Path) -> str:
    """Return the digest of what a big file begins with."""
    with (folder / BIG).open("rb") as file:
        return hashlib.sha256(file.read(MIB)).hexdigest()


def main() -> None:
    """Measure and print."""
    folders = {"sealfs": Path(sys.argv[1]), "encrypted": Path(sys.argv[2])}
    number, size = int(sys.argv[3]), Size(**json.loads(sys.argv[4]))
    rows = {row.key: row for row in make_rows(size, None, remote=False)}
    turn = sorted(folders, reverse=number % 2 == 0)
    rates = {key: {name: rows[key].measure(folders[name], number) for name in turn} for key in ROWS}
    if len(set(map(beginning, folders.values()))) != 1:
        raise BenchError("the two folders have different files")
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
