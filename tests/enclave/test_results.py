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
    tmp_path: Path, out: Path, identity: Identity, script: str, *arguments: str, log: str | None = None
) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.py"
    path.write_text(script)
    (tmp_path / "beside.py").write_text("value = 5")
    options = ["--out", f"{tmp_path / 'store'}:{out}", "--out-recipient", str(identity.recipient)]
    options += ["--out-log", log] if log else []
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


PRINTS = """
import atexit, os, subprocess, sys
print("secret by print")
print("secret by stderr", file=sys.stderr)
os.write(1, b"secret by write\\n")
subprocess.run(["echo", "secret by a child"], check=True)
atexit.register(print, "secret at the end", flush=True)
"""


@pytest.mark.parametrize(
    ("end", "code", "last"),
    [
        ("", 0, b""),
        ("sys.exit(7)", 7, b""),
        ("sys.exit('secret of an exit')", 1, b"secret of an exit"),
        ("raise ValueError('secret of a traceback')", 1, b"ValueError: secret of a traceback"),
        ("raise KeyboardInterrupt", 1, b"KeyboardInterrupt"),
    ],
)
def test_what_a_script_prints_goes_to_its_recipients_only(
    end: str,
    code: int,
    last: bytes,
    tmp_path: Path,
    out: Path,
    identity: Identity,
    local_store: LocalStore,
    trust: TrustStore,
) -> None:
    ended = run(tmp_path, out, identity, PRINTS + end, log="log")
    assert ended.returncode == code
    assert "secret" not in ended.stdout + ended.stderr
    assert "results are signed by" in ended.stderr
    with opened(local_store, identity, trust) as view:
        logged = names(view)[b"log"]
    for words in (b"by print", b"by stderr", b"by write", b"by a child"):
        assert b"secret " + words in logged
    assert logged.endswith(last + b"\nsecret at the end\n" if last else b"secret at the end\n")


def test_a_log_that_cannot_be_written(tmp_path: Path, out: Path, identity: Identity) -> None:
    ended = run(tmp_path, out, identity, "print('secret')", log="no/such/folder")
    assert ended.returncode == 9
    assert "secret" not in ended.stdout + ended.stderr


def test_results_that_get_nowhere_are_told_although_the_script_is_silent(
    tmp_path: Path, out: Path, identity: Identity
) -> None:
    script = f"import shutil; shutil.rmtree({str(tmp_path / 'store')!r}); print('secret')"
    ended = run(tmp_path, out, identity, script, log="log")
    assert ended.returncode == 6
    assert "is gone now" in ended.stderr
    assert "secret" not in ended.stdout + ended.stderr
