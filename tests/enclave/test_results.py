"""What runs inside an enclave to bring results out: a script, and its sealing, in one process."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from dataset.tools import opened, read

from sealfs.dataset.trust import TrustStore
from sealfs.executors.launcher import LAUNCHER
from sealfs.keys import Identity
from sealfs.store.local import LocalStore
from sealfs.vfs import View


@pytest.fixture
def out() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder) / "out"


def run(
    tmp_path: Path, out: Path, identity: Identity, script: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.py"
    path.write_text(script)
    (tmp_path / "beside.py").write_text("value = 5")
    options = ["--out", f"{tmp_path / 'store'}:{out}", "--out-recipient", str(identity.recipient)]
    command = [sys.executable, "-m", LAUNCHER, *options, "--", str(path), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def names(view: View) -> dict[bytes, bytes]:
    return {name: read(view, number) for name, number in view.list(0)}


def test_script_is_what_it_would_be_by_itself(
    tmp_path: Path, out: Path, identity: Identity, local_store: LocalStore, trust: TrustStore
) -> None:
    script = f"""
import sys
import beside
from pathlib import Path
assert __name__ == "__main__"
assert sys.argv[1:] == ["--out", "mine"], sys.argv
assert sys.modules["__main__"].beside is beside
print(beside.value)
(Path({str(out)!r}) / "a").write_text("result")
sys.exit(3)
"""
    ended = run(tmp_path, out, identity, script, "--out", "mine")
    assert (ended.returncode, ended.stdout) == (3, "5\n"), ended.stderr
    with opened(local_store, identity, trust) as view:
        assert names(view) == {b"a": b"result"}
    signer = ended.stderr.split("signed by ")[1].split()[0]
    pin = trust.get(local_store.uri)
    assert pin is not None
    assert str(pin.signer) == signer


def test_results_that_get_nowhere(tmp_path: Path, out: Path, identity: Identity) -> None:
    script = f"import shutil; shutil.rmtree({str(tmp_path / 'store')!r}); print('trained')"
    ended = run(tmp_path, out, identity, script)
    assert ended.returncode == 6
    assert ended.stdout == "trained\n"
    assert "is gone now" in ended.stderr


def test_two_runs_need_two_addresses(tmp_path: Path, out: Path, identity: Identity) -> None:
    assert run(tmp_path, out, identity, "").returncode == 0
    ended = run(tmp_path, out, identity, "print('ran')")
    assert (ended.returncode, ended.stdout) == (2, "")
