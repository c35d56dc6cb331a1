"""Where a user's files lie: the XDG Base Directory Specification, said once.

Threading: stateless; the environment is looked at on each call.
"""

from __future__ import annotations

import os
from pathlib import Path


def _home(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / default) / "sealfs"


def config_directory() -> Path:
    """Return where the identity lies unless told otherwise."""
    return _home("XDG_CONFIG_HOME", ".config")


def state_directory() -> Path:
    """Return where sealfs keeps what must survive: pins, journals, logs."""
    return _home("XDG_STATE_HOME", ".local/state")


def cache_directory() -> Path:
    """Return where ciphertext is cached unless told otherwise."""
    return _home("XDG_CACHE_HOME", ".cache")


def runtime_directory() -> Path:
    """Return where sockets of running processes lie."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "sealfs" if runtime else state_directory() / "run"
