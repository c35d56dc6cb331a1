"""Measures one row of the benchmark in this process and prints the rate: for a contender that others can't see.

worker.py FOLDER ROW ROUND SIZE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmark.common import Size
from benchmark.rows import make_rows


def main() -> None:
    """Measure and print."""
    folder, key, number, size = sys.argv[1:]
    rows = make_rows(Size(**json.loads(size)), None, remote=False)
    print(next(row for row in rows if row.key == key).measure(Path(folder), int(number)))


if __name__ == "__main__":
    main()
