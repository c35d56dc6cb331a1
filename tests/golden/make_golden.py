"""Makes the frozen datasets of the format version that this code writes: run once per format version, then commit.

    python tests/golden/make_golden.py tests/golden/format-1

What lies there must be readable by every later version, so it is never made again. The identities beside the
data are for tests only: they are public, and no data of value may ever be sealed for them.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

import sealfs.dataset.packer
from sealfs.dataset.access import AccessChange
from sealfs.dataset.push import Push, PushOptions
from sealfs.dataset.trust import TrustStore
from sealfs.keys import Identity
from sealfs.progress import Silent
from sealfs.store.local import LocalStore

PASSPHRASE = "golden test passphrase, not a secret"
_TIME = 1_700_000_000_123_456_789
_dice = random.Random(1)


def _settle(source: bytes) -> None:
    """Give everything a time that does not depend on now, links and folders included."""
    for number, (folder, folders, files) in enumerate(os.walk(source, topdown=False)):
        for name in (*sorted(files), *sorted(folders)):
            path = os.path.join(folder, name)
            if os.lstat(path).st_mtime_ns > _TIME + 10**9:
                os.utime(path, ns=(_TIME + number, _TIME + number), follow_symlinks=False)
    os.utime(source, ns=(_TIME, _TIME))


def _first(source: bytes) -> None:
    for folder in (b"images", b"images/train", b"empty folder", b"odd \xff\xfe names"):
        os.mkdir(os.path.join(source, folder), 0o755)
    files = {b"images/train/%02d.png" % n: _dice.randbytes(300 + 100 * n) for n in range(8)}
    files |= {
        b"nothing": b"",
        b"odd \xff\xfe names/new\nline": b"newline",
        b"odd \xff\xfe names/\xc3\xa4": b"utf-8",
    }
    files |= {b"script.sh": b"#!/bin/sh\necho golden\n", b"z": b"last in the alphabet", b"B": b"upper case"}
    for name, data in files.items():
        with open(os.path.join(source, name), "wb") as file:
            file.write(data)
    with open(os.path.join(source, b"sparse"), "wb") as file:
        for place in (0, 1 << 20):
            file.seek(place)
            file.write(b"data between holes")
        file.truncate((2 << 20) + 11)
    os.chmod(os.path.join(source, b"script.sh"), 0o755)
    os.chmod(os.path.join(source, b"z"), 0o400)
    os.chmod(os.path.join(source, b"empty folder"), 0o700)
    os.symlink(b"images/train/00.png", os.path.join(source, b"link"))
    os.symlink(b"/no/such/\xff", os.path.join(source, b"images/dangling"))
    before_epoch = os.path.join(source, b"B")
    os.utime(before_epoch, ns=(-5_000_000_001, -5_000_000_001))


def _second(source: bytes) -> None:
    with open(os.path.join(source, b"large"), "wb") as file:
        file.write(_dice.randbytes(30_000))
    with open(os.path.join(source, b"images/train/03.png"), "wb") as file:
        file.write(_dice.randbytes(999))
    os.unlink(os.path.join(source, b"images/train/07.png"))
    os.rename(os.path.join(source, b"nothing"), os.path.join(source, b"nothing moved"))


def _third(source: bytes) -> None:
    with open(os.path.join(source, b"after the rotation"), "wb") as file:
        file.write(_dice.randbytes(5_000))


def describe(folder: bytes) -> list[dict[str, Any]]:
    """What a folder holds, in listing order, for expected.json; bytes as latin-1."""
    found: list[dict[str, Any]] = []

    def visit(path: bytes, name: bytes) -> None:
        status = os.lstat(path)
        entry: dict[str, Any] = {
            "path": name.decode("latin-1"),
            "mode": status.st_mode,
            "mtime_ns": status.st_mtime_ns,
        }
        if stat.S_ISLNK(status.st_mode):
            entry["target"] = os.readlink(path).decode("latin-1")
        elif stat.S_ISREG(status.st_mode):
            with open(path, "rb") as file:
                data = file.read()
            entry |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        found.append(entry)
        if stat.S_ISDIR(status.st_mode):
            for child in os.listdir(path):
                visit(os.path.join(path, child), name + b"/" + child)

    visit(folder, b"")
    return found


def make(target: Path) -> None:
    """Make the datasets below `target`, which must not exist."""
    target.mkdir(parents=True)
    work = Path(tempfile.mkdtemp())
    os.environ["XDG_STATE_HOME"] = str(work / "state")
    provider, reader = Identity.generate(), Identity.generate()
    provider.save(target / "provider.identity")
    reader.save(target / "reader.identity", PASSPHRASE)
    expected: dict[str, dict[str, Any]] = {"many": {}, "default": {}}

    sealfs.dataset.packer.PACK_SIZE = 8 << 10
    source = work / "source"
    source.mkdir(mode=0o755)
    top, store, trust = os.fsencode(source), LocalStore(target / "many"), TrustStore(work / "trust")

    def push(message: str, **options: Any) -> None:
        _settle(top)
        given = PushOptions(message=message, segment_length=2048, **options)
        snapshot = Push(source, store, provider, trust, given).run().snapshot
        assert snapshot is not None
        expected["many"][str(snapshot.version)] = describe(top)

    _first(top)
    push("first, for two", recipients=[reader.recipient])
    _second(top)
    push("a file of several packs \N{SNOWMAN}")
    AccessChange(store, provider, trust).rotate(False, Silent())
    expected["many"]["3"] = expected["many"]["2"]
    _third(top)
    push("two epochs in one version")
    AccessChange(store, provider, trust).revoke([reader.recipient.fingerprint], True, Silent())
    expected["many"]["5"] = expected["many"]["4"]
    shutil.rmtree(target / "many" / ".sealfs-work")

    sealfs.dataset.packer.PACK_SIZE = 32 << 20
    plain = work / "plain"
    plain.mkdir(mode=0o755)
    for name, size in (("over one segment", 70_000), ("small", 100)):
        (plain / name).write_bytes(_dice.randbytes(size))
        (plain / name).chmod(0o644)
    _settle(os.fsencode(plain))
    Push(plain, LocalStore(target / "default"), provider, trust).run()
    expected["default"]["1"] = describe(os.fsencode(plain))
    shutil.rmtree(target / "default" / ".sealfs-work")

    for dataset, versions in expected.items():
        (target / f"{dataset}.json").write_text(json.dumps(versions, indent=1) + "\n")
    shutil.rmtree(work)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
