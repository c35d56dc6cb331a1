"""From the command line: a broker is started, keys go there, and only what has proven itself gets them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import InProcess, Outcome, Sealfs, broker_started

STRICT = 'measurements = { sgx = ["' + "cd" * 32 + '"] }\n'
DEVELOPMENT = 'level = "L1"\ndevelopment = true\n'

PolicyFile = Callable[[str], Path]
Seal = Callable[[str, str], Outcome]  # to the broker at that address, under that policy


@pytest.fixture
def url(process: Sealfs, tmp_path: Path) -> Iterator[str]:
    with broker_started(process, tmp_path) as address:
        yield address


@pytest.fixture
def other(somebody: Callable[[str], InProcess]) -> InProcess:
    """A user who is not the owner."""
    return somebody("other")


@pytest.fixture
def policy(tmp_path: Path) -> PolicyFile:
    """Returns a function that writes a policy's text to a file."""

    def write(text: str) -> Path:
        path = tmp_path / "policy.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def seal(sealfs: InProcess, source: Path, store: Path, policy: PolicyFile) -> Seal:
    """Returns a function that pushes the owner's folder and leaves its keys with a broker, under a policy."""

    def push(broker: str, text: str) -> Outcome:
        return sealfs("push", source, store, "--broker", broker, "--policy", policy(text))

    return push


def run(user: InProcess, store: Path, *command: object, code: int = 0) -> Outcome:
    """Run a command on the dataset at `store`, which it sees beside it at "data"; `@` is that path."""
    place = store.parent / "data"
    same = Sealfs(user.home)
    same.env = user.env
    words = [str(word).replace("@", str(place)) for word in command]
    return same("run", "--data", f"{store}:{place}", "--", *words, code=code)


def identifier(sealfs: InProcess, store: Path) -> str:
    return str(sealfs("stat", store, "--json").json["dataset"])


def test_the_owner_keeps_access_and_nobody_else_gets_any(
    sealfs: InProcess, other: InProcess, url: str, store: Path, seal: Seal
) -> None:
    pushed = seal(url, STRICT)
    assert f"the broker at {url} releases version 1 to what proves L5" in pushed.stderr
    assert "0.bin,healthy" in run(sealfs, store, "cat", "@/labels.csv").text
    refused = run(other, store, "true", code=4)
    assert "this dataset needs L5; this process offered no evidence" in refused.complaint
    stat = sealfs("stat", store, "--json").json
    assert (stat["broker"], stat["owner"]) == (url, "owner")


def test_made_up_data_opens_anywhere_and_says_so(
    other: InProcess, url: str, store: Path, tmp_path: Path, seal: Seal
) -> None:
    seal(url, DEVELOPMENT)
    script = tmp_path / "train.py"
    script.write_text("import sys; open(sys.argv[2] + '/model', 'w').write(open(sys.argv[1]).read())\n")
    data, out, results = tmp_path / "data", tmp_path / "out", tmp_path / "results"
    data.mkdir()
    done = other(
        *("run", "--data", f"{store}:{data}", "--out", f"{results}:{out}", "--"),
        *("python", script, data / "labels.csv", out),
    )
    assert "keys were released to this machine at L1: unprotected" in done.stderr
    assert b"0.bin,healthy" in other("cat", results, "model").stdout
    stat = other("stat", results, "--json")
    assert stat.json["level"].startswith("L1: unprotected")
    assert "was made at L1: unprotected" in stat.stderr


@pytest.mark.parametrize("named", [False, True])
def test_whatever_reads_asks(
    named: bool,
    sealfs: InProcess,
    other: InProcess,
    url: str,
    source: Path,
    store: Path,
    tmp_path: Path,
    seal: Seal,
) -> None:
    """The broker that the dataset names, or the one that the reader does; with an identity, or without."""
    seal(url, DEVELOPMENT)
    hint = ("--broker", f"owner@{url}") if named else ()
    if named:
        other.identity_path.unlink()
    listed = other("ls", store, *hint)
    assert listed.lines == sealfs("ls", store).lines
    assert "keys were released to this machine at L1: unprotected" in listed.stderr
    assert "released" not in sealfs("ls", store).stderr  # the owner's own open it
    assert other("cat", store, "labels.csv", *hint).stdout == (source / "labels.csv").read_bytes()
    assert (
        other("stat", store, "labels.csv", *hint, "--json").json["size"] == (source / "labels.csv").stat().st_size
    )
    assert "this machine: there is nothing to fetch" in other("warm", store, *hint, code=2).stderr
    other("pull", store, tmp_path / "pulled", *hint)
    assert (tmp_path / "pulled" / "images" / "1.bin").read_bytes() == bytes([1]) * 1000


def test_whatever_reads_is_refused(other: InProcess, url: str, store: Path, tmp_path: Path, seal: Seal) -> None:
    seal(url, STRICT)
    for verb in (("ls", store), ("cat", store, "labels.csv"), ("stat", store, "latest"), ("warm", store)):
        assert "this dataset needs L5; this process offered no evidence" in other(*verb, code=4).complaint
    assert "needs L5" in other("pull", store, tmp_path / "pulled", code=4).complaint
    assert not (tmp_path / "pulled").exists()
    assert other("stat", store).text  # which takes no key
    wrong = other("ls", store, "--broker", f"somebody@{url}", code=4)
    assert "this broker has no somebody/" in wrong.complaint
    gone = other("ls", store, "--identity", tmp_path / "none", code=4)
    assert "needs L5" not in gone.complaint  # it was named, so nothing else is tried


@pytest.mark.slow
def test_mount_asks_as_well(
    process: Sealfs,
    somebody: Callable[[str], InProcess],
    other: InProcess,
    url: str,
    source: Path,
    store: Path,
    tmp_path: Path,
    policy: PolicyFile,
) -> None:
    process("push", source, store, "--broker", url, "--policy", policy(STRICT))
    place = tmp_path / "mnt"
    place.mkdir()
    refused = other("mount", store, place, code=4)
    assert "this dataset needs L5; this process offered no evidence" in refused.complaint
    process("broker", "policy", identifier(somebody("third"), store), policy(DEVELOPMENT), "--broker", url)
    done = other("mount", store, place, "--", "cat", place / "labels.csv")
    assert "L1" in done.stderr
    assert "0.bin,healthy" in done.text


def test_later_pushes_and_rotations_bring_the_broker_up_to_date(
    sealfs: InProcess, other: InProcess, url: str, source: Path, store: Path, seal: Seal
) -> None:
    seal(url, DEVELOPMENT)
    (source / "more").write_text("more")
    sealfs("push", source, store)
    sealfs("rotate", store)
    (source / "even more").write_text("even more")
    sealfs("push", source, store)
    assert run(other, store, "cat", "@/even more").text == "even more"
    shown = sealfs("broker", "show", "--json", "--broker", url).json
    assert [dataset["version"] for dataset in shown["datasets"]] == [4]


def test_another_broker(
    sealfs: InProcess, process: Sealfs, url: str, store: Path, tmp_path: Path, seal: Seal
) -> None:
    """The old one is not forgotten: it has the keys until it is told."""
    (tmp_path / "second").mkdir()
    seal(url, STRICT)
    apart = ["--home", tmp_path / "second" / "home", "--key-file", tmp_path / "second" / "key"]
    with broker_started(process, tmp_path / "second", *apart) as other:
        moved = seal(other, STRICT)
        assert f"the broker at {url} still has the keys" in moved.stderr
        assert sealfs("stat", store, "--json").json["broker"] == other
        sealfs("broker", "withdraw", identifier(sealfs, store), "--broker", url)
        assert "withdrawn" in sealfs("broker", "show", "--broker", url).text


def test_a_push_whose_broker_is_away_does_nothing(
    sealfs: InProcess, process: Sealfs, source: Path, store: Path, tmp_path: Path, seal: Seal
) -> None:
    with broker_started(process, tmp_path) as url:
        seal(url, STRICT)
    (source / "more").write_text("more")
    failed = sealfs("push", source, store, code=13)
    assert "does not answer" in failed.complaint
    assert sealfs("log", store, "--json").json[0]["version"] == 1


def test_a_push_whose_broker_fails_says_what_holds(
    sealfs: InProcess,
    other: InProcess,
    url: str,
    source: Path,
    store: Path,
    seal: Seal,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sealfs.broker.owner import BrokerMember
    from sealfs.errors import BrokerError

    seal(url, DEVELOPMENT)
    (source / "more").write_text("more")

    def fail(*arguments: object) -> int:
        raise BrokerError("the broker at HERE does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(BrokerMember, "publish", fail)
        failed = sealfs("push", source, store, code=13)
    assert "version 2 is in the store, but the broker" in failed.complaint
    assert "still has version 1" in failed.complaint
    assert "run the same command again" in failed.complaint
    stale = run(other, store, "true", code=6)
    assert "the store serves version 2, but the owner has published 1 only" in stale.complaint
    again = sealfs("push", source, store)
    assert "nothing has changed" in again.text
    run(other, store, "true")


def test_a_store_that_serves_an_old_snapshot(
    sealfs: InProcess, other: InProcess, url: str, source: Path, store: Path, seal: Seal
) -> None:
    """A reader that has never seen the dataset is told by the owner's broker."""
    seal(url, DEVELOPMENT)
    old = (store / "head").read_bytes()
    (source / "more").write_text("more")
    sealfs("push", source, store)
    (store / "head").write_bytes(old)
    refused = run(other, store, "true", code=6)
    assert "the store serves version 1, but the owner has published 2" in refused.complaint


def test_what_is_wrong_is_said_before_anything_is_sealed(
    sealfs: InProcess, other: InProcess, url: str, source: Path, store: Path, tmp_path: Path, policy: PolicyFile
) -> None:
    def refused(*arguments: object, code: int, user: InProcess = sealfs) -> str:
        complaint = user("push", source, store, *arguments, code=code).complaint
        assert not (store / "head").exists()
        return complaint

    assert "name it: --broker" in refused("--policy", policy(STRICT), code=2)
    assert "what to demand" in refused("--broker", url, code=2)
    assert "no broker's address" in refused("--broker", "nonsense", code=2)
    assert "HTTPS only" in refused("--broker", "http://keys.example", code=2)
    assert "no level" in refused("--broker", url, "--policy", policy('level = "L9"'), code=2)
    assert "cannot read" in refused("--broker", url, "--policy", tmp_path / "none", code=9)
    impostor = url.partition("#")[0] + "#sha256:" + "0" * 64
    assert "somebody stands in" in refused("--broker", impostor, "--policy", policy(STRICT), code=13)
    complaint = refused("--broker", url, "--policy", policy(STRICT), code=4, user=other)
    assert "no member of this broker" in complaint


def test_members_and_runners(
    sealfs: InProcess, other: InProcess, url: str, source: Path, tmp_path: Path, policy: PolicyFile
) -> None:
    public = other.identity_path.with_name("identity.pub")
    sealfs("broker", "member", "hospital", public, "--broker", url)
    other("push", source, tmp_path / "theirs", "--broker", url, "--policy", policy(STRICT))
    assert other("stat", tmp_path / "theirs", "--json").json["owner"] == "hospital"
    sealfs("broker", "enrol", "runner", "node-1", public, "--broker", url)
    shown = sealfs("broker", "show", "--broker", url).text
    assert "member hospital: owner" in shown
    assert "sealfs-runner node-1: sealfs-signer-1:" in shown
    sealfs("broker", "enrol", "runner", "node-1", "--remove", "--broker", url)
    sealfs("broker", "member", "hospital", "--remove", "--broker", url)
    assert "no member" in other("broker", "show", "--broker", url, code=4).complaint


def test_the_log(sealfs: InProcess, url: str, seal: Seal) -> None:
    seal(url, STRICT)
    printed = sealfs("broker", "log", "--broker", url)
    assert "created:" in printed.text
    assert "changed: " in printed.text
    assert "2 records, verified" in printed.stderr
    records = [json.loads(line) for line in sealfs("broker", "log", "--json", "--local").lines]
    assert [record["sequence"] for record in records] == [1, 2]


def test_a_checkpoint_notices_a_log_that_was_cut(
    sealfs: InProcess, process: Sealfs, source: Path, store: Path, tmp_path: Path, seal: Seal
) -> None:
    kept = tmp_path / "checkpoint"
    with broker_started(process, tmp_path) as url:
        seal(url, STRICT)
        kept.write_text(sealfs("broker", "checkpoint", "--broker", url).text)
    home = process.home / "state" / "sealfs" / "broker"
    with sqlite3.connect(home / "broker.sqlite") as connection:
        connection.execute("DELETE FROM log WHERE sequence > 1")
    connection.close()
    stranger = Sealfs(tmp_path / "stranger")
    assert stranger("broker", "log", "--local", "--home", home).lines
    cut = stranger("broker", "log", "--local", "--home", home, "--checkpoint", kept, code=5)
    assert "ends with record 1, but record 2 was seen before" in cut.stderr
    with broker_started(process, tmp_path) as url:
        (source / "more").write_text("more")
        noticed = sealfs("push", source, store, "--broker", url, code=5)
    assert "of the broker's log is not the one that was seen before, or is gone" in noticed.complaint


def test_without_an_identity_there_is_no_admin(process: Sealfs, tmp_path: Path) -> None:
    nobody = Sealfs(tmp_path / "nobody")
    assert "sealfs keygen" in nobody("broker", "serve", code=4).complaint
    assert list((tmp_path / "nobody").rglob("broker*")) == []
    assert "nobody's name" in process("broker", "serve", "--name", "Me!", code=2).complaint
    assert "HOST:PORT" in process("broker", "serve", "--listen", "here", code=2).complaint


def test_the_broker_that_was_started_here_needs_no_naming(sealfs: InProcess, url: str) -> None:
    assert sealfs("broker", "show").text == sealfs("broker", "show", "--broker", url).text


def test_a_port_that_is_taken(process: Sealfs, url: str, tmp_path: Path) -> None:
    port = url.partition("#")[0].rpartition(":")[2]
    taken = process("broker", "serve", "--listen", f"127.0.0.1:{port}", "--home", tmp_path / "second", code=9)
    assert "cannot listen at" in taken.stderr
    again = process("broker", "serve", "--listen", "127.0.0.1:0", code=8)
    assert "another broker is running" in again.stderr


def test_backup_and_rewrap(sealfs: InProcess, process: Sealfs, tmp_path: Path, seal: Seal) -> None:
    copy, phrase = tmp_path / "copy" / "broker.sqlite", tmp_path / "phrase"
    copy.parent.mkdir()
    with broker_started(process, tmp_path) as url:
        seal(url, STRICT)
        sealfs("broker", "backup", copy)
        assert "another broker is running" in sealfs("broker", "rewrap", "--kms", "x", code=8).complaint
    phrase.write_text("a good passphrase\n")
    sealfs("broker", "rewrap", "--passphrase-file", phrase)
    key = process.home / "config" / "sealfs" / "broker.key"
    key.rename(tmp_path / "key")
    with broker_started(
        process, tmp_path, "--key-file", tmp_path / "none", env={"SEALFS_PASSPHRASE_FILE": str(phrase)}
    ):
        assert "L5" in sealfs("broker", "show").text
    wrong = process("broker", "serve", "--home", copy.parent, code=4)  # an older copy, which the file still opens
    assert "cannot read the broker's key file" in wrong.stderr
    with broker_started(process, tmp_path, "--home", copy.parent, "--key-file", tmp_path / "key") as url:
        assert "L5" in sealfs("broker", "show", "--broker", url).text
