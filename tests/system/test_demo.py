"""The README's first command has to work, all of it, and leave nothing behind."""

import os
import subprocess
from pathlib import Path

import pytest
from commands import interrupted

from sealfs.enclave.attach import LIBRARY

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "tools" / "demo"
PICTURE = ROOT / "demo-output" / "vessels.png"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="there is no /dev/fuse"),
]


def test_all_claims_hold(env: dict[str, str]) -> None:
    PICTURE.unlink(missing_ok=True)
    done = subprocess.run(
        [DEMO], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=550, check=False
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" equal") == 11
    assert "DIFFERENT" not in done.stdout
    assert "the same numbers once more" in done.stdout or not LIBRARY.exists()
    assert "NO ENCLAVE" in done.stdout or not LIBRARY.exists()
    assert PICTURE.read_bytes().startswith(b"\x89PNG")


def test_interrupted_while_mounted(env: dict[str, str], tmp_path: Path) -> None:
    def is_sealed() -> bool:
        return bool(list(tmp_path.glob("sealfs-demo-*/sealed.out")))

    assert interrupted([DEMO], env, is_sealed, patience=120) == 130
