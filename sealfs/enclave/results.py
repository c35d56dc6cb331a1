"""Runs a Python script with its results sealed by this same process: for enclaves, where nobody else may see them.

    results.py --out URI:/path --out-recipient STRING [--out-interval SECONDS] -- SCRIPT.py ARGUMENTS

The launcher runs this file as its script, after data has been attached. The path becomes a folder of the enclave's
memory: the manifest's root is a tmpfs. The script is `__main__`, as it would be by itself.

Threading: the script has the main thread; the sealer brings its own.
"""

from __future__ import annotations

import argparse
import os
import runpy
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sealfs.enclave.launch import Source
from sealfs.enclave.output import DEFAULT_INTERVAL, OutputSealer, sealed_to_the_end
from sealfs.errors import LocalIOError, SealfsError
from sealfs.keys import Recipient
from sealfs.store.address import open_store


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="results.py", description="Run a script with sealed results.")
    parser.add_argument("--out", required=True, metavar="URI:/path")
    parser.add_argument("--out-recipient", action="append", required=True, type=Recipient.parse, metavar="STRING")
    parser.add_argument("--out-interval", type=float, default=DEFAULT_INTERVAL, metavar="SECONDS")
    parser.add_argument("script", nargs="+", help="-- SCRIPT.py and its arguments")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Run the script.

    Raises:
        SystemExit: As the script, or with an error's exit code if its results could not be sealed.
    """
    options = _parse(arguments)
    try:
        out = Source.parse(options.out)
        folder, state = Path(out.path), Path(tempfile.mkdtemp(prefix="sealfs-state-"))
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError as error:
            raise LocalIOError(f"cannot make {folder}: {error.strerror}", "check --out") from None
        with closing(open_store(out.uri)) as store:
            sealer = OutputSealer(folder, store, options.out_recipient, state, interval=options.out_interval)
            sealer.start()
            print(f"sealfs: results are signed by {sealer.signer}", file=sys.stderr, flush=True)
            with sealed_to_the_end(sealer):
                sys.argv = options.script
                sys.path[0] = str(Path(options.script[0]).resolve().parent)
                runpy.run_path(options.script[0], run_name="__main__")
    except SealfsError as error:
        print(f"sealfs: {error.message}; {error.hint}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main(sys.argv[1:])
