"""Two owners' datasets as one folder of a process: every call, children, damage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.conftest import RUNTIME, Sealed, seal
from sealfs.enclave.attach import INTEGRITY_EXIT, LIBRARY

ATTACH = """
import os, subprocess, sys
from contextlib import closing
from pathlib import Path
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.dataset.union import Member
from sealfs.enclave.attach import attach_union, objects_folder
from sealfs.errors import SealfsError
from sealfs.keys import load_identity
from sealfs.store.local import LocalStore

mount, prefixes, *homes = sys.argv[1:]
members, folders = [], []
for home, prefix in zip(homes, prefixes.split(",")):
    home = Path(home)
    with closing(LocalStore(home.parent / "store")) as store:
        dataset = Dataset.open(store, TrustStore(home / "trust"))
        keys = dataset.keys(load_identity(home / "identity"))
        members.append(Member(home.parent.name, dataset.index(keys), keys, prefix.encode()))
        folders.append(objects_folder(dataset))
try:
    attach_union(mount, folders, members)
except SealfsError as error:
    sys.exit(error.message)
"""


@pytest.fixture
def banks(tmp_path: Path) -> list[Sealed]:
    found = []
    for name in ("a", "b"):
        plain = tmp_path / f"plain-{name}"
        (plain / "more").mkdir(parents=True)
        (plain / "1.csv").write_bytes(name.encode() * 1000)
        (plain / "more" / "2.bin").write_bytes(os.urandom(300_000))
        (tmp_path / name).mkdir()
        found.append(seal(tmp_path / name, plain))
    return found


def run(banks: list[Sealed], mount: Path, code: str, prefixes: str = "a_,b_") -> subprocess.CompletedProcess[str]:
    mount.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", ATTACH + code, mount, prefixes, *(bank.home for bank in banks)],
        env={**os.environ, "LD_PRELOAD": str(LIBRARY), "PYTHONPATH": str(RUNTIME.parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_everybodys_files_in_one_folder(banks: list[Sealed], tmp_path: Path) -> None:
    code = """
import hashlib
print(sorted(os.listdir(mount)))
for folder, folders, files in os.walk(mount):
    for name in sorted(files):
        print(name, hashlib.sha256(open(os.path.join(folder, name), "rb").read()).hexdigest())
print(subprocess.check_output(["sh", "-c", f"cat {mount}/*/2.bin | sha256sum"], text=True).split()[0])
"""
    done = run(banks, tmp_path / "union", code)
    assert done.returncode == 0, done.stderr
    assert "['a_1.csv', 'a_more', 'b_1.csv', 'b_more']" in done.stdout
    import hashlib

    both = b""
    for bank in banks:
        assert hashlib.sha256((bank.plain / "1.csv").read_bytes()).hexdigest() in done.stdout
        both += (bank.plain / "more" / "2.bin").read_bytes()
    assert hashlib.sha256(both).hexdigest() in done.stdout  # a child, by the state that it inherits
    assert os.listdir(tmp_path / "union") == []


def test_names_that_clash(banks: list[Sealed], tmp_path: Path) -> None:
    done = run(banks, tmp_path / "union", "print('attached')", prefixes=",")
    assert done.returncode == 1
    assert "is in 'a' and in 'b', which are to be one folder" in done.stderr
    assert "attached" not in done.stdout


@pytest.mark.parametrize("victim", [0, 1])
def test_damage_in_either_ends_the_process(banks: list[Sealed], tmp_path: Path, victim: int) -> None:
    for pack in (banks[victim].store / "packs").iterdir():
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.chmod(0o644)
        pack.write_bytes(data)
    name = "ab"[victim]
    done = run(banks, tmp_path / "union", f"open(mount + '/{name}_more/2.bin', 'rb').read(); print('read')")
    assert done.returncode == INTEGRITY_EXIT
    assert "read" not in done.stdout


def test_one_owners_objects_in_place_of_anothers(banks: list[Sealed], tmp_path: Path) -> None:
    packs = [sorted((bank.store / "packs").iterdir()) for bank in banks]
    for mine, theirs in zip(*packs, strict=True):
        content = mine.read_bytes()
        theirs.chmod(0o644)
        theirs.write_bytes(content)
    done = run(banks, tmp_path / "union", "print(open(mount + '/b_1.csv').read()[:3])")
    assert done.returncode == INTEGRITY_EXIT
    assert done.stdout == ""


def test_a_folder_of_objects_that_is_not_there(banks: list[Sealed], tmp_path: Path) -> None:
    code = """
try:
    attach_union(sys.argv[1] + '2', [folders[0], '/no/such'], members)
except SealfsError as error:
    print(error)
"""
    (tmp_path / "union2").mkdir()
    done = run(banks, tmp_path / "union", code)
    assert "a folder of a union's objects is not there" in done.stdout
