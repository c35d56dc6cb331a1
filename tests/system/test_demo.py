"""The README's first command has to work, all of it, and leave nothing behind."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealfs.enclave.attach import LIBRARY

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "tools" / "demo"
PICTURE = ROOT / "demo-output" / "vessels.png"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="there is no /dev/fuse"),
]


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(tmp_path)}


@pytest.fixture(autouse=True)
def nothing_stays(tmp_path: Path) -> Iterator[None]:
    yield
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


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
    demo = subprocess.Popen([DEMO], env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("sealfs-demo-*/sealed.out")):
            assert demo.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.killpg(demo.pid, signal.SIGINT)
        assert demo.wait(60) == 130
    finally:
        demo.kill()
        demo.wait()
