"""Push as a real process: killed at any moment, and how much memory it takes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataset.tools import names, push, served, state_of_folder
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.objects import PACKS, PUSHES
from sealfs.dataset.trust import TrustStore
from sealfs.errors import NotADatasetError
from sealfs.keys import Identity
from sealfs.store.local import LocalStore

pytestmark = pytest.mark.slow

# `sealfs push` with packs so small that there is much to interrupt
COMMAND = """
import sys
import sealfs.dataset.packer
sealfs.dataset.packer.PACK_SIZE = int(sys.argv.pop(1))
from sealfs.cli.main import main
sys.exit(main())
"""


def command(pack_size: int, *arguments: object) -> list[str]:
    return [sys.executable, "-c", COMMAND, str(pack_size), *map(str, arguments)]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_killed_again_and_again_it_arrives_whole_and_sends_nothing_twice(
    tmp_path: Path, own_folders: Path, identity: Identity, seed: int
) -> None:
    dice = random.Random(seed)
    identity.save(own_folders / "config" / "sealfs" / "identity")
    source, store = tmp_path / "source", LocalStore(tmp_path / "store")
    trust = TrustStore()
    source.mkdir()
    (source / "first").write_bytes(b"first")
    push(source, store, identity, trust, segment_length=4096)
    before = state_of_folder(source)
    for number in range(120):
        (source / f"{number}").write_bytes(os.urandom(dice.choice((0, 3_000, 12_000, 60_000))))
    for number in range(12):
        (source / f"large {number}").write_bytes(os.urandom(900_000))
    arguments = command(32 << 10, "push", "--jobs", 2, "--json", source, store.uri)
    kills, finished = 0, False
    while not finished and kills < 100:
        lying = names(store)
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if dice.random() < 0.9:  # else at any moment, also before it does anything
            while process.poll() is None and names(store) == lying:
                time.sleep(0.002)
            pause = dice.random() * 0.1
        else:
            pause = dice.random() * 0.6
        try:
            process.wait(pause)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            kills += 1
        output, _ = process.communicate()
        finished = process.returncode == 0
        assert finished or process.returncode == -signal.SIGKILL, output
        newest = Dataset.open(store, trust).newest.version
        assert newest in {1, 2}
        if not finished and newest == 1:
            assert served(store, identity, trust) == before
    assert finished
    assert kills >= 3
    assert list(served(store, identity, trust).items()) == list(state_of_folder(source).items())
    # at most the packs that were on their way when it was killed lie there for nothing
    used = {ref.name for ref in Dataset.open(store, trust).snapshot.packs}
    assert len(names(store, PACKS) - used) <= 3 * kills
    assert len(used) > 50
    again = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert '"version": null' in again.stdout
    assert names(store, PUSHES) == set()


def test_a_first_push_that_is_killed_leaves_no_dataset(
    tmp_path: Path, own_folders: Path, identity: Identity, trust: TrustStore
) -> None:
    identity.save(own_folders / "config" / "sealfs" / "identity")
    source, store = tmp_path / "source", LocalStore(tmp_path / "store")
    source.mkdir()
    for number in range(200):
        (source / f"{number}").write_bytes(os.urandom(30_000))
    arguments = command(32 << 10, "push", "--jobs", 1, source, store.uri)
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 60
    while len(names(store, PACKS)) < 20:
        assert time.monotonic() < give_up
        time.sleep(0.005)
    process.kill()
    process.wait()
    with pytest.raises(NotADatasetError):
        Dataset.open(store, trust)
    sent = names(store, PACKS)
    done = subprocess.run([*arguments, "--json"], capture_output=True, text=True, check=True)
    assert '"resumed": 0' not in done.stdout
    used = {ref.name for ref in Dataset.open(store, trust).snapshot.packs}
    assert len(sent - used) <= 2
    assert served(store, identity, trust) == state_of_folder(source)


MEASURED = """
import re, sys
from pathlib import Path
from sealfs.cli.main import main
try:
    main()
finally:
    print("PEAK", re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


@pytest.mark.parametrize("shape", ["one file", "many files"])
def test_memory_is_bounded(source: Path, tmp_path: Path, own_folders: Path, identity: Identity, shape: str) -> None:
    identity.save(own_folders / "config" / "sealfs" / "identity")
    chunk = os.urandom(1 << 20)
    if shape == "one file":
        with (source / "file").open("wb") as file:
            for _ in range(1024):
                file.write(chunk)
    else:
        for number in range(512):
            (source / f"{number}").write_bytes(chunk + chunk)
    for verb in (["push", source, tmp_path / "store"], ["pull", tmp_path / "store", tmp_path / "out"],
                 ["verify", tmp_path / "store"]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, *map(str, verb)], capture_output=True, text=True, check=True
        )
        peak = int(done.stderr.split("PEAK")[1].split()[0]) // 1024
        assert peak < 450, f"{verb[0]} took {peak} MB"
