"""What tests under gramine-direct share: when they run, and what owners demand of a rehearsal."""

from __future__ import annotations

import shutil

import pytest

NEEDS_GRAMINE = pytest.mark.skipif(shutil.which("gramine-direct") is None, reason="no gramine-direct on PATH")
GRAMINE = [pytest.mark.slow, pytest.mark.timeout(1200), NEEDS_GRAMINE]


def rehearsal(manifest: str) -> str:
    """A policy that demands an enrolled runner's word for one manifest."""
    return f'level = "L2"\nmeasurements = {{ "sealfs-runner" = ["{manifest}"] }}\n'
