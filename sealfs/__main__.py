"""Where the `sealfs` command starts: small, so that Ctrl-C is answered in one line even while it is loading."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def _open_what_is_closed() -> None:
    """Let the numbers 0 to 2 lead nowhere if they are closed: what is opened next would be printed to."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def main() -> NoReturn:
    """Load and run the command line."""
    _open_what_is_closed()
    try:
        from sealfs.cli.main import main as run  # noqa: PLC0415 - that is the point

        run()
    except KeyboardInterrupt:
        os.write(2, b"sealfs: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
