"""The walk-through of several parties has to work with one command, and leave nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rehearsals import NEEDS_GRAMINE

from sealfs.enclave.attach import LIBRARY

EXAMPLE = Path(__file__).parents[2] / "examples" / "three_parties"


def walked_through(folder: Path, *options: str) -> str:
    """Return what the example has printed; nothing is left of it."""
    done = subprocess.run(
        [sys.executable, EXAMPLE / "walk_through.py", *options],
        env=os.environ | {"TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "the model of 800 loans" in done.stdout
    for refusal in (
        "not approved by bank-a, bank-b, cloud, model-co",
        "0 of the 2 votes that are needed are there",
        "the results 'model' are for bank-a, bank-b only",
        "all 1 agreed runs are used up",
    ):
        assert refusal in done.stdout
    assert "was carried out once, as agreed" in done.stdout
    assert list(folder.iterdir()) == []
    assert str(folder) not in Path("/proc/self/mounts").read_text()
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not LIBRARY.exists(), reason="the in-process reader is not built: no C compiler")
def test_from_identities_to_an_opened_result(tmp_path: Path) -> None:
    said = walked_through(tmp_path, "--native")
    assert "L1: NOTHING IS PROTECTED" in said
    assert "NOTHING VOUCHES FOR IT" in said
    assert said.count("who knows what") == 8


@pytest.mark.slow
@pytest.mark.timeout(1200)
@NEEDS_GRAMINE
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="there is no /dev/fuse")
def test_as_a_rehearsal_in_gramine(tmp_path: Path) -> None:
    """What vouches for the result is the runner's word, for what every owner has measured."""
    said = walked_through(tmp_path)
    assert "L2: A REHEARSAL, WITHOUT SGX" in said
    assert "this run reaches L2" in said
    assert "sealfs-runner evidence: " in said
    assert "NOTHING VOUCHES FOR IT" not in said
    assert said.count("who knows what") == 9
