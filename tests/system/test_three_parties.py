"""The walk-through of several parties has to work with one command, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sealfs.enclave.attach import LIBRARY

EXAMPLE = Path(__file__).parents[2] / "examples" / "three_parties"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LIBRARY.exists(), reason="the in-process reader is not built: no C compiler"),
]


def test_from_identities_to_an_opened_result(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE / "walk_through.py"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "L1: NOTHING IS PROTECTED" in done.stdout
    assert done.stdout.count("who knows what") == 8
    assert "the model of 800 loans" in done.stdout
    for refusal in (
        "not approved by bank-a, bank-b, cloud, model-co",
        "0 of the 2 votes that are needed are there",
        "the results 'model' are for bank-a, bank-b only",
        "all 1 agreed runs are used up",
    ):
        assert refusal in done.stdout
    assert "was carried out once, as agreed" in done.stdout
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()
