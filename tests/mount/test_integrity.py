"""A mount fails closed: what does not authenticate is not served, and afterwards nothing is."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import Mounted, Sealfs, flip_bit, mounted, objects, python, runs, wait_for

from mount.conftest import MountFactory

SMALL, BIG = 200_000, 40 << 20  # a few segments; more than a pack


@dataclass(frozen=True)
class Sealed:
    """A dataset in a local store, one pack for all small files and one for the big one."""

    source: Path
    store: Path

    def pack_of(self, name: str) -> Path:
        """The pack with a file of this dataset; the big file's is the big one."""
        packs = sorted(objects(self.store, "packs"), key=lambda path: path.stat().st_size)
        return packs[0] if name.startswith("small") else packs[-1]


@pytest.fixture(scope="module")
def pushed(provider: Sealfs) -> Sealed:
    source = provider.home / "source"
    (source / "small").mkdir(parents=True)
    make = random.Random(5).randbytes
    for number in range(10):
        (source / "small" / str(number)).write_bytes(make(SMALL))
    (source / "big").write_bytes(make(BIG))
    (source / "link").symlink_to("small/0")
    (source / "folder").mkdir()
    provider("push", source, provider.home / "store")
    return Sealed(source, provider.home / "store")


@pytest.fixture
def sealed(pushed: Sealed, tmp_path: Path) -> Sealed:
    """A copy of it to damage."""
    shutil.copytree(pushed.store, tmp_path / "store")
    return Sealed(pushed.source, tmp_path / "store")


def expect_eio(deed: Callable[[], object]) -> None:
    with pytest.raises(OSError, match="Input/output error") as caught:
        deed()
    assert caught.value.errno == errno.EIO


def fails(deed: Callable[[], object]) -> bool:
    try:
        deed()
    except OSError as error:
        return error.errno == errno.EIO
    return False


def expect_poisoned(mount: Mounted, culprit: str) -> None:
    """Nothing can be read any more, and everybody who asks is told why."""
    for name in ("small/0", "small/9", "big"):
        # what the kernel has in memory is dropped by a thread of its own
        wait_for(lambda name=name: fails((mount.path / name).read_bytes))
        wait_for(lambda name=name: fails((mount.path / name).lstat))
    expect_eio(lambda: os.listdir(mount.path))
    expect_eio(lambda: os.listdir(mount.path / "folder"))
    expect_eio((mount.path / "never asked for before").stat)
    mount.wait_until("INTEGRITY FAILURE")
    assert culprit in mount.words()
    assert mount.status()["poisoned"].startswith(f"{culprit}: packs/")
    assert mount.status()["errors"] > 0


def test_small_file_gives_no_byte(sealed: Sealed, mount: MountFactory) -> None:
    """Not even those before the damage: loaders take what they get and go on."""
    pack = sealed.pack_of("small")
    flip_bit(pack, pack.stat().st_size - 40)  # the end of the last file; it begins two segments earlier
    here = mount(sealed.store)
    *others, victim = [f"small/{name}" for name in os.listdir(here.path / "small")]
    for name in others:
        assert (here.path / name).read_bytes() == (sealed.source / name).read_bytes()
    descriptor = os.open(here.path / victim, os.O_RDONLY)
    try:
        expect_eio(lambda: os.pread(descriptor, 1, 0))
        expect_eio(lambda: os.pread(descriptor, SMALL, 0))
    finally:
        os.close(descriptor)
    expect_poisoned(here, victim)


def test_big_file_gives_no_wrong_byte_and_poisons_what_was_read_before(sealed: Sealed, mount: MountFactory) -> None:
    content = (sealed.source / "big").read_bytes()
    flip_bit(sealed.pack_of("big"), 15 << 20)
    here = mount(sealed.store)
    for number in range(10):  # now they are in the kernel's memory, with their attributes
        name = f"small/{number}"
        assert (here.path / name).read_bytes() == (sealed.source / name).read_bytes()
    held = os.open(here.path / "small/3", os.O_RDONLY)
    got = bytearray()
    try:
        assert os.pread(held, 100, 0)
        with (here.path / "big").open("rb", buffering=0) as file:
            expect_eio(lambda: [got.extend(piece) for piece in iter(lambda: file.read(1 << 16), b"")])
        assert got == content[: len(got)]
        assert len(got) < 15 << 20
        wait_for(lambda: fails(lambda: os.pread(held, 100, 0)))
    finally:
        os.close(held)
    expect_poisoned(here, "big")


def test_missing_pack(sealed: Sealed, mount: MountFactory) -> None:
    sealed.pack_of("big").unlink()
    here = mount(sealed.store)
    assert (here.path / "small/1").read_bytes() == (sealed.source / "small/1").read_bytes()
    expect_eio((here.path / "big").read_bytes)
    expect_poisoned(here, "big")
    assert "is missing from the store" in here.words()


@pytest.mark.slow
def test_cut_pack(sealed: Sealed, mount: MountFactory) -> None:
    os.truncate(sealed.pack_of("big"), 20 << 20)
    here = mount(sealed.store)
    expect_eio((here.path / "big").read_bytes)
    expect_poisoned(here, "big")


@pytest.mark.slow
def test_pack_of_the_same_size_from_another_place(sealed: Sealed, mount: MountFactory, provider: Sealfs) -> None:
    """Authentic bytes of the same provider, under the name of others."""
    other = sealed.store.with_name("other")
    provider("push", sealed.source, other)
    stranger = max(objects(other, "packs"), key=lambda path: path.stat().st_size)
    assert stranger.stat().st_size == sealed.pack_of("big").stat().st_size
    shutil.copyfile(stranger, sealed.pack_of("big"))
    here = mount(sealed.store)
    expect_eio((here.path / "big").read_bytes)
    expect_poisoned(here, "big")


def test_damage_while_mounted(sealed: Sealed, mount: MountFactory) -> None:
    """What has been authenticated once is authenticated again when it is fetched again."""
    here = mount(sealed.store, "--cache-memory", "0")
    with (here.path / "small/5").open("rb") as file:
        assert file.read() == (sealed.source / "small/5").read_bytes()
        for place in range(10):  # wherever the file lies in the pack
            flip_bit(sealed.pack_of("small"), (2 * place + 1) * SMALL // 2)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        expect_eio(lambda: os.pread(file.fileno(), SMALL, 0))
    expect_poisoned(here, "small/5")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["indexes", "head", "snapshots", "keyrings"])
def test_metadata_is_checked_before_anything_is_mounted(
    sealed: Sealed, sealfs: Sealfs, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "mnt").mkdir()
    for path in objects(sealed.store, kind) or [sealed.store / kind]:
        flip_bit(path, path.stat().st_size // 2)
    outcome = sealfs("mount", sealed.store, tmp_path / "mnt", code=None)
    assert outcome.code in {3, 4, 5, 6, 11}
    assert outcome.complaint
    assert not os.path.ismount(tmp_path / "mnt")


def test_mapped_pages_are_taken_away(sealed: Sealed, mount: MountFactory) -> None:
    """A process that mapped a file before the damage gets SIGBUS, not yesterday's pages."""
    flip_bit(sealed.pack_of("big"), 15 << 20)
    here = mount(sealed.store)
    script = """
import mmap, sys, time
with open(sys.argv[1], "rb") as file:
    area = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    print(area[0], flush=True)
    sys.stdin.readline()
    for _ in range(600):
        area[0]
        time.sleep(0.1)
"""
    mapper = subprocess.Popen(
        python(script, here.path / "small/0"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    try:
        assert mapper.stdout is not None
        assert mapper.stdin is not None
        assert mapper.stdout.readline()
        expect_eio((here.path / "big").read_bytes)
        mapper.stdin.write(b"\n")
        assert mapper.wait(60) == -7  # SIGBUS
    finally:
        mapper.kill()
        mapper.communicate()


@pytest.mark.slow
def test_many_readers_at_once_all_fail(sealed: Sealed, mount: MountFactory) -> None:
    flip_bit(sealed.pack_of("big"), 1 << 20)
    here = mount(sealed.store)
    readers = [
        subprocess.Popen(["cat", here.path / "big"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(6)
    ]
    for reader in readers:
        _, words = reader.communicate(timeout=60)
        assert reader.returncode != 0
        assert b"Input/output error" in words
    expect_poisoned(here, "big")
    assert here.words().count("INTEGRITY FAILURE") == 1  # said once, not once a reader


def test_background_mount_writes_a_critical_line_to_its_log(sealed: Sealed, sealfs: Sealfs, tmp_path: Path) -> None:
    flip_bit(sealed.pack_of("big"), 1 << 20)
    point = tmp_path / "mnt"
    point.mkdir()
    sealfs("mount", sealed.store, point)
    try:
        expect_eio((point / "big").read_bytes)
        wait_for(lambda: "CRITICAL INTEGRITY FAILURE: big: packs/" in sealfs.log_of(point).read_text())
        status = sealfs("status", point, code=5)
        assert "POISONED: big: packs/" in status.text
        assert str(point) in status.complaint
        assert sealfs("status", "--json", code=5).json[0]["poisoned"].startswith("big: packs/")
    finally:
        sealfs("umount", point)
    assert sealfs("status").text == "nothing is mounted\n"


FAMILY = """
import os, subprocess, sys, time
mountpoint, note = sys.argv[1:]
child = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $! >> %s; wait" % note])
with open(note, "a") as file:
    file.write(f"{os.getpid()}\\n{child.pid}\\n")
while open(note).read().count("\\n") < 3:
    time.sleep(0.05)
try:
    for name in sorted(os.listdir(mountpoint), reverse=True):
        path = os.path.join(mountpoint, name)
        if os.path.isfile(path):
            open(path, "rb").read()
    open(os.path.join(mountpoint, "big"), "rb").read()
except OSError:
    pass  # as bad loaders do
time.sleep(1000)
"""


def test_workload_and_its_children_are_killed(sealed: Sealed, sealfs: Sealfs, tmp_path: Path) -> None:
    flip_bit(sealed.pack_of("big"), 3 << 20)
    point, note = tmp_path / "mnt", tmp_path / "pids"
    point.mkdir()
    outcome = sealfs("mount", sealed.store, point, "--", *python(FAMILY, point, note), code=5)
    assert "INTEGRITY FAILURE: big" in outcome.stderr
    assert "the workload was killed" in outcome.stderr.splitlines()[-1]
    family = [int(line) for line in note.read_text().split()]
    assert len(family) == 3
    wait_for(lambda: not any(runs(pid) for pid in family))
    assert not os.path.ismount(point)


@pytest.mark.slow
def test_workload_that_ends_before_it_can_be_killed_still_counts_as_failed(
    sealed: Sealed, sealfs: Sealfs, tmp_path: Path
) -> None:
    flip_bit(sealed.pack_of("big"), 3 << 20)
    point = tmp_path / "mnt"
    point.mkdir()
    command = ("sh", "-c", f"cat {point}/big > {os.devnull}; exit 0")
    sealfs("mount", sealed.store, point, "--", *command, code=5)
    assert not os.path.ismount(point)


@pytest.mark.slow
def test_poisoned_mount_can_be_replaced_once_the_store_is_mended(
    sealed: Sealed, pushed: Sealed, sealfs: Sealfs, tmp_path: Path
) -> None:
    pack = sealed.pack_of("big")
    flip_bit(pack, 3 << 20)
    with mounted(sealfs, sealed.store, tmp_path / "mnt") as bad:
        expect_eio((bad.path / "big").read_bytes)
        flip_bit(pack, 3 << 20)
        time.sleep(0.1)
        expect_eio((bad.path / "big").read_bytes)  # poisoned for good
    with mounted(sealfs, sealed.store, tmp_path / "mnt") as good:
        assert (good.path / "big").read_bytes() == (sealed.source / "big").read_bytes()
        assert good.status()["poisoned"] is None


@pytest.mark.slow
def test_verify_names_the_damage(sealed: Sealed, sealfs: Sealfs) -> None:
    pack = sealed.pack_of("big")
    flip_bit(pack, 3 << 20)
    verdict = sealfs("verify", "--json", sealed.store, code=5).json
    assert verdict["bad_files"] == ["big"]
    assert list(verdict["bad_objects"]) == [str(pack.relative_to(sealed.store))]
