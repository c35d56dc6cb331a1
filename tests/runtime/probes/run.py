"""Prints what the cases say about the files below a folder, as JSON: one line a case, whatever becomes of the next.

    python run.py [--sealed] FOLDER CASE ...

`--sealed` tells the cases that the folder refuses changes. What a case raises counts, too. The folder's own name is
replaced by ROOT in all that is printed.
"""

from __future__ import annotations

import json
import os
import sys

from runtime.probes.all import CASES


def main() -> None:
    root, *wanted = sys.argv[1:]
    if root == "--sealed":
        os.environ["PROBE_SEALED"] = "1"
        root, *wanted = wanted
    for name in wanted:
        try:
            value = CASES[name](root)
        except Exception as error:
            value = f"{type(error).__name__}: {error}"
        print(json.dumps({name: value}, default=str).replace(root, "ROOT"), flush=True)


if __name__ == "__main__":
    main()
