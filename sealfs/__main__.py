"""Where the `sealfs` command starts: small, so that Ctrl-C is answered in one line even while it is loading."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Load and run the command line."""
    try:
        from sealfs.cli.main import main as run  # noqa: PLC0415 - that is the point

        run()
    except KeyboardInterrupt:
        os.write(2, b"sealfs: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
