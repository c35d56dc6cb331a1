"""What bad input gets: one line that says what is wrong and what to do, an exit code, and nothing half-done."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import BIN, PATIENCE, InProcess, Outcome, Sealfs, objects
from servers import Server, moto_server

READERS = (
    ("ls", "{}"),
    ("cat", "{}", "labels.csv"),
    ("stat", "{}", "labels.csv"),
    ("pull", "{}", "copy"),
    ("diff", "{}@1", "1"),
    ("mount", "{}", "mnt"),
)
root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can do this")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A working folder with an empty `mnt`; what a failed verb may have left there is an error."""
    work = tmp_path / "work"
    (work / "mnt").mkdir(parents=True)
    yield work
    assert os.listdir(work) == ["mnt"]
    assert os.listdir(work / "mnt") == []


class Reading:
    """A verb that reads, by a user of one's choice."""

    def __init__(self, words: tuple[str, ...], folder: Path) -> None:
        self._words = words
        self._folder = folder

    def __call__(self, user: InProcess, uri: object, code: int | None) -> Outcome:
        words = [word.format(uri) for word in self._words]
        return user(*words, code=code, cwd=self._folder)


@pytest.fixture(params=READERS, ids=lambda words: words[0])
def read(request: pytest.FixtureRequest, folder: Path) -> Reading:
    return Reading(request.param, folder)


class TestReaders:
    def test_wrong_key(self, read: Reading, pushed: Path, somebody: Callable[[str], InProcess]) -> None:
        outcome = read(somebody("stranger"), pushed, 4)
        assert "is not a recipient" in outcome.complaint
        assert "grant" in outcome.complaint  # what to do
        assert outcome.stdout == b""

    def test_no_key(self, read: Reading, pushed: Path, tmp_path: Path) -> None:
        complaint = read(InProcess(tmp_path / "nobody"), pushed, 4).complaint
        assert "make one with 'sealfs keygen'" in complaint

    def test_not_a_dataset(self, read: Reading, sealfs: InProcess, tmp_path: Path) -> None:
        (tmp_path / "photos" / "packs").mkdir(parents=True)
        (tmp_path / "photos" / "packs" / "cat.jpg").write_text("meow")
        for place in (tmp_path / "photos", tmp_path / "missing"):
            outcome = read(sealfs, place, 3)
            assert f"{place.as_uri()} is not a sealed dataset; check the address" in outcome.complaint

    def test_foreign_signature(
        self,
        read: Reading,
        sealfs: InProcess,
        pushed: Path,
        source: Path,
        somebody: Callable[[str], InProcess],
    ) -> None:
        """Somebody replaces the dataset by one of their own, sealed for the same reader."""
        shutil.rmtree(pushed)
        reader = sealfs.identity_path.with_name("identity.pub")
        somebody("stranger")("push", source, pushed, "-r", reader)
        complaint = read(sealfs, pushed, 6).complaint
        assert "sealfs-signer-1:" in complaint or "another dataset" in complaint
        assert "trust" in complaint  # what to do

    def test_rolled_back(
        self, read: Reading, sealfs: InProcess, pushed: Path, source: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(pushed, tmp_path / "old")
        (source / "labels.csv").write_text("corrected")
        sealfs("push", source, pushed)
        shutil.rmtree(pushed)
        (tmp_path / "old").rename(pushed)
        assert "serves version 1, but version 2 was seen here before" in read(sealfs, pushed, 6).complaint

    def test_newer_format(self, read: Reading, sealfs: InProcess, pushed: Path, tmp_path: Path) -> None:
        head = pushed / "head"
        document = json.loads(head.read_bytes())
        for name, value in list(document.items()):
            if "format" in name:
                document[name] = value + 1
        head.write_text(json.dumps(document))
        outcome = read(sealfs, pushed, None)
        assert outcome.code in {3, 5, 6, 11}  # 11 only if it is authentic; here it is not
        assert outcome.complaint

    @pytest.mark.parametrize("kind", ["snapshots", "indexes", "keyrings"])
    def test_missing_object(self, read: Reading, sealfs: InProcess, pushed: Path, kind: str) -> None:
        for path in objects(pushed, kind):
            path.unlink()
        outcome = read(sealfs, pushed, None)
        assert outcome.code in {3, 5}
        assert kind[:-2] in outcome.complaint
        assert outcome.stdout == b""


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("gs://bucket/data", "no store for addresses with gs://"),
        ("http://host/bucket", "set AWS_ENDPOINT_URL=http://HOST:PORT"),
        ("s3:bucket", "the slashes are missing"),
        ("s3://", "the bucket's name is missing"),
        ("s3://B", "is no bucket name"),
        ("s3://key:secret@bucket/x", "credentials do not belong in an address"),
        ("s3://bucket/../x", "'..' part"),
        ("file://host/x", "write three slashes"),
        ("", "not an address"),
        ("a\nb", "not an address"),
    ],
)
def test_bad_address(sealfs: InProcess, source: Path, uri: str, words: str) -> None:
    for verb in (["ls", uri], ["push", source, uri], ["gc", uri], ["verify", uri], ["trust", uri]):
        complaint = sealfs(*verb, code=2).complaint
        assert words in complaint
        assert "secret" not in complaint


@pytest.mark.parametrize(
    ("words", "about"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["ls"], "Missing argument 'URI'"),
        (["mount", "a"], "Missing argument 'MOUNTPOINT'"),
        (["mount", "a", "b", "--cache-size", "10 gigs"], "'10 gigs' is not a size such as 512M or 10G"),
        (["mount", "a", "b", "--cache-memory", "-1"], "is not a size"),
        (["mount", "a", "b", "--deadline", "0"], "--deadline"),
        (["mount", "a", "b", "--nonsense"], "--nonsense"),
        (["warm", "a", "--cache-size", "x"], "is not a size"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
        (["log", "a", "-n", "0"], "--limit"),
        (["ls", "a", "--identity", "/dev/null/x"], "cannot read /dev/null/x"),
    ],
)
def test_bad_usage(sealfs: InProcess, words: list[str], about: str) -> None:
    outcome = sealfs(*words, code=None)
    assert outcome.code in {2, 4}
    assert about in outcome.complaint


def test_identity_that_others_can_read(sealfs: InProcess, pushed: Path) -> None:
    sealfs.identity_path.chmod(0o644)
    complaint = sealfs("ls", pushed, code=4).complaint
    assert f"run: chmod 600 {sealfs.identity_path}" in complaint


@pytest.mark.parametrize("content", ["", "nonsense\n", "\x00\xff", "SEALFS-IDENTITY-1:AAAA"])
def test_damaged_identity(sealfs: InProcess, pushed: Path, content: str) -> None:
    sealfs.identity_path.write_text(content)
    assert str(sealfs.identity_path) in sealfs("ls", pushed, code=4).complaint


@root_only
def test_pull_to_a_full_disk(sealfs: InProcess, source: Path, store: Path, tmp_path: Path) -> None:
    (source / "big").write_bytes(os.urandom(3 << 20))
    sealfs("push", source, store)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", disk], check=True)
    try:
        complaint = sealfs("pull", store, disk / "copy", code=9).complaint
        assert "No space left on device" in complaint
        assert "free some space" in complaint
        assert not (disk / "copy" / "big").exists()
        assert not list(disk.rglob(".sealfs-*"))  # it took away what it could not finish
        subprocess.run(["mount", "-o", "remount,size=8M", disk], check=True)
        sealfs("pull", store, disk / "copy")
        assert (disk / "copy" / "big").read_bytes() == (source / "big").read_bytes()
    finally:
        subprocess.run(["umount", disk], check=True)


@root_only
def test_push_to_a_full_disk(sealfs: InProcess, source: Path, tmp_path: Path) -> None:
    (source / "big").write_bytes(os.urandom(3 << 20))
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "tmpfs", disk], check=True)
    try:
        complaint = sealfs("push", source, disk / "store", code=9).complaint
        assert "No space left on device" in complaint
        assert sealfs("ls", disk / "store", code=3).complaint  # nothing half-visible
        subprocess.run(["mount", "-o", "remount,size=8M", disk], check=True)
        assert "pushed version 1" in sealfs("push", source, disk / "store").text
    finally:
        subprocess.run(["umount", disk], check=True)


@root_only
def test_unreadable_source_file(process: Sealfs, source: Path, store: Path) -> None:
    """As a user who may not read all of it; here root without the power to read everything."""
    (source / "images" / "1.bin").chmod(0)
    powerless = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
    done = subprocess.run(
        [*powerless, BIN / "sealfs", "push", source, store],
        env=process.env,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 9, done.stderr
    words = "cannot read 'images/1.bin': Permission denied; mend its permissions, or leave it out with --exclude"
    assert done.stderr == f"sealfs: {words}\n"
    assert process("ls", store, code=3).complaint  # nothing half-visible


@pytest.fixture(scope="module")
def moto() -> Iterator[Server]:
    with moto_server() as server:
        server.create_bucket("holiday-pictures")
        yield server


class TestBucket:
    def test_not_a_dataset(self, sealfs: InProcess, moto: Server) -> None:
        complaint = sealfs("ls", "s3://holiday-pictures", env=moto.environment(), code=3).complaint
        assert "s3://holiday-pictures" in complaint

    def test_no_such_bucket(self, sealfs: InProcess, source: Path, moto: Server) -> None:
        for words in (["ls"], ["push", source], ["verify"], ["gc"]):
            complaint = sealfs(*words, "s3://no-such-bucket/x", env=moto.environment(), code=7).complaint
            assert "there is no such bucket" in complaint

    def test_endpoint_down(self, sealfs: InProcess, source: Path, moto: Server, folder: Path) -> None:
        env = moto.environment() | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
        for words in (["ls"], ["push", source], ["verify"], ["gc"], ["stat"], ["log"]):
            complaint = sealfs(*words, "s3://bucket/x", env=env, code=7).complaint
            assert "no complete answer from 127.0.0.1:9" in complaint
            assert "AWS_ENDPOINT_URL" in complaint
        assert sealfs("mount", "s3://bucket/x", "mnt", env=env, code=7, cwd=folder).complaint

    def test_no_credentials(self, sealfs: InProcess, moto: Server) -> None:
        env = {"AWS_ENDPOINT_URL": moto.endpoint, "AWS_DEFAULT_REGION": "us-east-1"}
        complaint = sealfs("ls", "s3://holiday-pictures/x", env=env, code=7).complaint
        assert "no usable AWS credentials" in complaint
        assert "AWS_ACCESS_KEY_ID" in complaint

    def test_no_such_profile(self, sealfs: InProcess) -> None:
        complaint = sealfs("ls", "s3://bucket/x", env={"AWS_PROFILE": "nobody"}, code=7).complaint
        assert "there is no such AWS profile" in complaint
