"""Prints what the cases say about the files below a folder, as JSON.

    python run.py FOLDER CASE ...

What a case raises counts, too. The folder's own name is replaced by ROOT in all that is printed.
"""

from __future__ import annotations

import json
import sys

from runtime.probes.all import CASES


def main() -> None:
    root, *wanted = sys.argv[1:]
    results = {}
    for name in wanted:
        try:
            value = CASES[name](root)
        except Exception as error:
            value = f"{type(error).__name__}: {error}"
        results[name] = json.loads(json.dumps(value, default=str).replace(root, "ROOT"))
        print(name, file=sys.stderr, flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
