"""The log: what was cut, edited or put in another order shows."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from broker.tools import DEVELOPMENT, Broker, running
from sealfs.attestation.canonical import Members, canonical
from sealfs.broker.audit import Checkpoint, Entry, Log, checkpoint_of, entries, verify
from sealfs.broker.checkpoints import CheckpointStore, read_checkpoint
from sealfs.broker.database import Database
from sealfs.broker.home import database_path
from sealfs.errors import AuditError, BrokerError, DocumentError
from sealfs.keys import Identity

KEY = Ed25519PrivateKey.generate()
LOG = Log("sha256:" + "0" * 64, KEY)
START = datetime(2026, 1, 1, tzinfo=UTC)


def made(count: int, log: Log = LOG) -> list[Entry]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE log (sequence INTEGER PRIMARY KEY, record BLOB, signature BLOB)")
        for number in range(count):
            log.append(connection, START + timedelta(seconds=number), "released", {"number": number})
        return list(entries(connection))


TEN = made(10)


def test_a_whole_log() -> None:
    assert [record["number"] for record in verify(TEN, LOG.signer)] == list(range(10))
    assert [record["sequence"] for record in verify(TEN, LOG.signer)] == list(range(1, 11))


@given(st.data())
def test_whatever_is_done_to_it_shows(data: st.DataObject) -> None:
    """Drop, repeat, exchange, or change any byte: all but a cut at the end shows without a checkpoint."""
    log = list(TEN)
    number = data.draw(st.integers(0, 8))
    match data.draw(st.sampled_from(["drop", "repeat", "exchange", "record", "signature", "sequence"])):
        case "drop":
            del log[number]
        case "repeat":
            log.insert(number, log[number])
        case "exchange":
            log[number], log[number + 1] = log[number + 1], log[number]
        case "record":
            place = data.draw(st.integers(0, len(log[number].record) - 1))
            changed = bytearray(log[number].record)
            changed[place] ^= data.draw(st.integers(1, 255))
            log[number] = replace(log[number], record=bytes(changed))
        case "signature":
            log[number] = replace(log[number], signature=bytes(64))
        case "sequence":
            log[number] = replace(log[number], sequence=99)
    with pytest.raises(AuditError):
        list(verify(log, LOG.signer))


def test_a_log_that_was_written_anew_by_another() -> None:
    other = made(10, Log("sha256:" + "0" * 64, Ed25519PrivateKey.generate()))
    with pytest.raises(AuditError, match="not signed by"):
        list(verify(other, LOG.signer))


@pytest.mark.parametrize("left", [0, 1, 9])
def test_a_log_that_was_cut_at_its_end(left: int) -> None:
    checkpoint = checkpoint_of("sha256:" + "0" * 64, LOG.signer, TEN[-1])
    with pytest.raises(AuditError, match=f"ends with record {left}, but record 10 was seen"):
        list(verify(TEN[:left], LOG.signer, checkpoint))
    assert len(list(verify(TEN, LOG.signer, checkpoint))) == 10


def test_a_log_that_was_rewritten_by_its_own_broker() -> None:
    """It can sign what it likes, but not what somebody has a checkpoint of."""
    checkpoint = checkpoint_of("sha256:" + "0" * 64, LOG.signer, TEN[4])
    log = made(3)
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE log (sequence INTEGER PRIMARY KEY, record BLOB, signature BLOB)")
        for entry in log:
            connection.execute("INSERT INTO log VALUES (?, ?, ?)", (entry.sequence, entry.record, entry.signature))
        for _ in range(9):
            LOG.append(connection, START + timedelta(seconds=60), "released", {"number": 77})
        rewritten = list(entries(connection))
    assert len(list(verify(rewritten, LOG.signer))) == 12
    with pytest.raises(AuditError, match=r"record 5 .* is not the one that was seen before"):
        list(verify(rewritten, LOG.signer, checkpoint))


def test_going_on_from_a_checkpoint() -> None:
    after = checkpoint_of("sha256:" + "0" * 64, LOG.signer, TEN[4])
    assert [record["number"] for record in verify(TEN[5:], LOG.signer, after=after)] == [5, 6, 7, 8, 9]
    with pytest.raises(AuditError):
        list(verify(TEN[6:], LOG.signer, after=after))


def test_a_forged_checkpoint() -> None:
    checkpoint = checkpoint_of("sha256:" + "0" * 64, LOG.signer, TEN[4])
    document = checkpoint.to_json()
    assert Checkpoint.from_fields(Members(document, "checkpoint")) == checkpoint
    document["digest"] = "00" * 32
    with pytest.raises(AuditError, match="not signed"):
        Checkpoint.from_fields(Members(document, "checkpoint"))
    with pytest.raises(DocumentError):
        Checkpoint.from_fields(Members({}, "checkpoint"))


def test_kept_checkpoints(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    broker = "sha256:" + "0" * 64
    assert store.get(broker) is None
    checkpoint = checkpoint_of(broker, LOG.signer, TEN[4])
    store.keep(checkpoint)
    assert store.get(broker) == checkpoint
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"nonsense")
    with pytest.raises(AuditError, match="cannot read the checkpoint"):
        store.get(broker)
    path.write_bytes(canonical({**checkpoint.to_json(), "broker": "sha256:" + "1" * 64}))
    with pytest.raises(AuditError, match="another broker's"):
        store.get(broker)
    assert read_checkpoint(path).sequence == 5


def test_nothing_is_logged_before_what_was_logged_last() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE log (sequence INTEGER PRIMARY KEY, record BLOB, signature BLOB)")
        LOG.append(connection, START, "released", {})
        LOG.append(connection, START - timedelta(seconds=59), "released", {})
        with pytest.raises(BrokerError, match="clock"):
            LOG.append(connection, START - timedelta(seconds=120), "released", {})


def change(broker_folder: Path, statement: str) -> None:
    with closing(sqlite3.connect(database_path(broker_folder / "home"))) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM log WHERE sequence = 3", "missing|does not follow"),
        ("DELETE FROM log WHERE sequence > 4", "ends with record 4, but record"),
        ("UPDATE log SET record = CAST(replace(CAST(record AS TEXT), 'released', 'attested') AS BLOB)", "log"),
        ("UPDATE log SET sequence = -1 WHERE sequence = 3", "log"),
    ],
)
def test_an_operator_who_edits_the_database(tmp_path: Path, owner: Identity, statement: str, words: str) -> None:
    store = CheckpointStore(tmp_path / "seen")
    with running(tmp_path, owner) as broker:
        keys = broker.publish(DEVELOPMENT)
        for _ in range(3):
            broker.client().resource("owner", keys.dataset)
        seen = broker.member().hello().checkpoint
        assert len(list(broker.member().log(seen))) == seen.sequence
        store.keep(seen)
    change(tmp_path, statement)
    with running(tmp_path, owner) as broker:
        seen = store.get(broker.home.identity)
        with pytest.raises(AuditError, match=words):
            list(broker.member().log(seen))


def test_a_push_notices_that_what_it_saw_is_gone(tmp_path: Path, owner: Identity) -> None:
    with running(tmp_path, owner) as broker:
        broker.publish(DEVELOPMENT)
        seen = broker.member().hello().checkpoint
        broker.member().hello(seen)
    change(tmp_path, f"DELETE FROM log WHERE sequence = {seen.sequence}")
    with running(tmp_path, owner) as broker, pytest.raises(AuditError, match="is gone"):
        broker.member().hello(seen)


def earlier(self: Log, transaction: sqlite3.Connection) -> Checkpoint:
    entry = next(entries(transaction, 0, 1))
    return checkpoint_of(self._broker, self.signer, entry)


def test_a_broker_that_lets_others_forget_what_they_saw(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows what was seen, but says that its log ends before: whoever kept that could be shown a shorter one."""
    store = CheckpointStore(tmp_path / "seen")
    broker.publish(DEVELOPMENT)
    seen = broker.member().hello().checkpoint
    store.keep(seen)
    monkeypatch.setattr(Log, "checkpoint", earlier)
    with pytest.raises(AuditError, match=f"ends with record 1, but record {seen.sequence} was seen"):
        broker.member().hello(seen)
    store.keep(broker.member().hello().checkpoint)
    assert store.get(broker.home.identity) == seen


def test_a_broker_that_shows_the_log_of_another(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept under the other's name, it would make that one look as if its log was cut."""
    other = "sha256:" + "7" * 64
    monkeypatch.setattr(
        Log, "checkpoint", lambda self, transaction: checkpoint_of(other, self.signer, self.last(transaction))
    )
    with pytest.raises(AuditError, match=f"checkpoint of another, {other}"):
        broker.member().hello()


def test_what_was_verified_is_what_is_kept(broker: Broker) -> None:
    broker.publish(DEVELOPMENT)
    member = broker.member()
    records = list(member.log())
    assert member.verified is not None
    assert (member.verified.sequence, member.verified.broker) == (len(records), broker.home.identity)
    assert list(member.log(member.verified))


@pytest.mark.error_logs
def test_a_damaged_log_releases_nothing(broker: Broker) -> None:
    """The record that the next one would follow from must be readable."""
    keys = broker.publish(DEVELOPMENT)
    database: Database = broker.home.database
    database.write(
        lambda t: t.execute("UPDATE log SET record = x'00' WHERE sequence = (SELECT max(sequence) FROM log)")
    )
    with pytest.raises(BrokerError):
        broker.client().resource("owner", keys.dataset)
