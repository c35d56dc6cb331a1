"""Under gramine-direct, wherever it is on PATH (it is in no registry): training, children, what damage does."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import Outcome, Sealfs
from rehearsals import GRAMINE

from sealfs.enclave.attach import INTEGRITY_EXIT
from sealfs.keys import Identity

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = GRAMINE


@dataclass
class Place:
    """A plain folder, sealed, and an enclave for a command on it."""

    folder: Path
    plain: Path
    sealfs: Sealfs
    identity: Identity

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def push(self) -> None:
        self.sealfs("push", self.plain, self.folder / "store")

    def run(self, command: list[object], *, out: bool = False) -> Outcome:
        """Measure a command with the plain folder at the data's path, then run it in Gramine."""
        job: list[object] = ["--executor", "gramine_direct", "--enclave", self.folder / "enclave"]
        job += ["--data", f"{self.folder / 'store'}:{self.data}", "--signer", str(self.identity.signer)]
        if out:
            job += [
                "--out",
                f"{self.folder / 'results'}:{self.out}",
                "--out-recipient",
                str(self.identity.recipient),
            ]
        self.data.symlink_to(self.plain)
        try:
            self.sealfs("measure", *job, "--", *command, timeout=600)
        finally:
            self.data.unlink()
        return self.sealfs("run", *job, "--", *command, code=None, timeout=600)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    identity = Identity.generate()
    (tmp_path / "plain").mkdir()
    return Place(tmp_path, tmp_path / "plain", Sealfs(tmp_path / "home", identity), identity)


@pytest.mark.parametrize("workers", [0, 2])
def test_training(workers: int, place: Place) -> None:
    """The same losses and weights as on plain files, and nothing in plaintext on the host."""
    make = [sys.executable, EXAMPLES / "make_vessels.py", place.plain, "--count", "6", "--size", "64"]
    subprocess.run(make, check=True, capture_output=True)
    place.push()
    script = [sys.executable, EXAMPLES / "train_segmentation.py"]
    options = ["--epochs", "2", "--workers", str(workers), "--save"]
    expected = subprocess.run(
        [*script, place.plain, *options, place.folder / "saved"], check=True, stdout=subprocess.PIPE
    ).stdout
    ended = place.run([*script, place.data, *options, place.out / "saved"], out=True)
    assert ended.code == 0, ended
    # Gramine writes both to standard output, and Paddle has warnings
    numbers = [line for line in ended.stdout.splitlines() if line.startswith((b"epoch ", b"dice "))]
    assert numbers == expected.splitlines()
    assert not place.out.exists()
    saved = {path.name: path.read_bytes() for path in (place.folder / "saved").iterdir()}
    for path in (place.folder / "results").rglob("*"):
        assert path.is_dir() or not any(content[:64] in path.read_bytes() for content in saved.values())
    place.sealfs("pull", place.folder / "results", place.folder / "pulled")
    assert {path.name: path.read_bytes() for path in (place.folder / "pulled" / "saved").iterdir()} == saved


CHILDREN = """
import os, subprocess, sys
folder = sys.argv[1]
text = open(folder + "/text").read()
pid = os.fork()
if pid == 0:
    os._exit(7 if open(folder + "/text").read() == text else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(subprocess.check_output(["cat", folder + "/text"], text=True) == text)
print(subprocess.check_output(["sh", "-c", f"cat < {folder}/text"], text=True) == text)
with open(folder + "/text") as file:
    print(subprocess.check_output(["cat"], stdin=file, text=True) == text)
"""


def test_children(place: Place) -> None:
    (place.plain / "text").write_text("line\n" * 5000)
    place.push()
    (place.folder / "script.py").write_text(CHILDREN)
    ended = place.run([sys.executable, place.folder / "script.py", place.data])
    assert (ended.code, ended.stdout) == (0, b"7\nTrue\nTrue\nTrue\n"), ended.stderr


def test_damage_ends_the_run(place: Place) -> None:
    (place.plain / "text").write_text("line\n" * 5000)
    place.push()
    for pack in (place.folder / "store" / "packs").rglob("*"):
        if pack.is_file():
            data = bytearray(pack.read_bytes())
            data[len(data) // 2] ^= 1
            pack.write_bytes(data)
    code = "import sys\ntry: open(sys.argv[1] + '/text').read()\nexcept OSError: pass\n"
    (place.folder / "script.py").write_text(code + "print('went on')")
    ended = place.run([sys.executable, place.folder / "script.py", place.data])
    assert ended.code == INTEGRITY_EXIT, ended
    assert b"INTEGRITY FAILURE" in ended.stdout  # Gramine writes both to standard output
    assert b"went on" not in ended.stdout
