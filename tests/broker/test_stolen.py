"""A stolen database: what is in it, and what it takes to open."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import boto3
import pytest
from moto import mock_aws

from broker.tools import DEVELOPMENT, Broker, made, running, wrapper
from sealfs.broker.home import backup, create, database_path, open_home, rewrap, wrapping_kind
from sealfs.broker.wrapping import FileWrapper, KmsWrapper, PassphraseWrapper, Vault, Wrapper
from sealfs.dataset.keyring import DatasetKeys
from sealfs.errors import ConflictError, IntegrityError, KeyAccessError, LocalIOError, UsageError
from sealfs.keys import Identity


def everything(folder: Path) -> bytes:
    """All bytes below a folder: database, write-ahead log, whatever else lies there."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_nothing_in_the_folder_opens_anything(tmp_path: Path, owner: Identity) -> None:
    with running(tmp_path, owner) as broker:
        keys = broker.publish(DEVELOPMENT)
        secrets = [keys.pack()[4:], broker.home.log_key.private_bytes_raw(), broker.home.challenge_key]
        secrets += [broker.home.tls_key, broker.home.tls_key[36:68]]
        while_running = everything(tmp_path / "home")
    stolen = while_running + everything(tmp_path / "home")
    assert keys.dataset.hex().encode() in stolen
    for secret in secrets:
        assert len(secret) >= 32
        assert secret not in stolen
        assert secret.hex().encode() not in stolen
    key = (tmp_path / "broker.key").read_text().strip().partition(":")[2]
    assert key.encode() not in stolen
    assert bytes.fromhex(key) not in stolen


def test_a_withdrawn_key_is_gone_from_the_file(tmp_path: Path, owner: Identity) -> None:
    """Not only unreachable: overwritten, so that a key found later opens nothing."""
    with running(tmp_path, owner) as broker:
        keys = broker.publish(DEVELOPMENT)
        (sealed,) = broker.home.database.read(lambda t: t.execute("SELECT keys FROM datasets").fetchone())
        broker.member().withdraw(keys.dataset, 1)
    assert sealed not in everything(tmp_path / "home")


def test_everything_is_private(tmp_path: Path, owner: Identity) -> None:
    with running(tmp_path, owner) as broker:
        broker.publish(DEVELOPMENT)
        for path in [tmp_path / "home", *(tmp_path / "home").iterdir(), tmp_path / "broker.key"]:
            assert path.stat().st_mode & 0o077 == 0, path


def test_another_key_file(tmp_path: Path, owner: Identity) -> None:
    made(tmp_path, owner)
    with pytest.raises(KeyAccessError, match="not the one this broker's database was made with"):
        open_home(tmp_path / "home", FileWrapper.create(tmp_path / "other"))
    with pytest.raises(KeyAccessError, match="cannot read"):
        open_home(tmp_path / "home", FileWrapper(tmp_path / "none"))
    (tmp_path / "other").chmod(0o644)
    with pytest.raises(KeyAccessError, match="other users"):
        open_home(tmp_path / "home", FileWrapper(tmp_path / "other"))
    (tmp_path / "other").chmod(0o600)
    (tmp_path / "other").write_text("nonsense")
    with pytest.raises(KeyAccessError, match="no key file"):
        open_home(tmp_path / "home", FileWrapper(tmp_path / "other"))


@pytest.mark.error_logs
def test_a_secret_moved_to_another_row(tmp_path: Path, owner: Identity) -> None:
    """Who can write the database, but has no key, gives nobody another dataset's keys."""
    with running(tmp_path, owner) as broker:
        real, bait = broker.publish(DEVELOPMENT), broker.publish(DEVELOPMENT)
    with closing(sqlite3.connect(database_path(tmp_path / "home"))) as connection, connection:
        connection.execute(
            "UPDATE datasets SET keys = (SELECT keys FROM datasets WHERE dataset = ?) WHERE dataset = ?",
            (real.dataset.hex(), bait.dataset.hex()),
        )
    with running(tmp_path, owner) as broker, pytest.raises(Exception, match="does not open"):
        broker.client().resource("owner", bait.dataset)


@pytest.fixture
def kms() -> Iterator[str]:
    """The id of a key of a KMS."""
    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with closing(boto3.client("kms")) as client:
            yield client.create_key()["KeyMetadata"]["KeyId"]


def test_kms(tmp_path: Path, owner: Identity, kms: str) -> None:
    create(tmp_path / "home", KmsWrapper(kms), owner.signer, "owner")
    assert wrapping_kind(tmp_path / "home") == ("kms", kms)
    open_home(tmp_path / "home", KmsWrapper(kms)).close()
    with pytest.raises(KeyAccessError, match="the KMS does not decrypt"):
        open_home(tmp_path / "home", KmsWrapper("00000000-0000-0000-0000-000000000000"))
    with closing(boto3.client("kms")) as client:
        other = client.create_key()["KeyMetadata"]["KeyId"]
        client.disable_key(KeyId=other)
    with pytest.raises(KeyAccessError):
        open_home(tmp_path / "home", KmsWrapper(other))


def test_a_passphrase(tmp_path: Path, owner: Identity) -> None:
    create(tmp_path / "home", PassphraseWrapper("correct horse"), owner.signer, "owner")
    open_home(tmp_path / "home", PassphraseWrapper("correct horse")).close()
    with pytest.raises(KeyAccessError, match="wrong passphrase"):
        open_home(tmp_path / "home", PassphraseWrapper("battery staple"))
    assert b"correct horse" not in everything(tmp_path / "home")
    assert "horse" not in repr(PassphraseWrapper("correct horse"))


def test_rewrapping(tmp_path: Path, owner: Identity) -> None:
    with running(tmp_path, owner) as broker:
        keys = broker.publish(DEVELOPMENT)
        identity = broker.home.identity
        backup(tmp_path / "home", tmp_path / "copy.sqlite")
        with pytest.raises(ConflictError, match="running"):
            rewrap(tmp_path / "home", wrapper(tmp_path), FileWrapper.create(tmp_path / "new"))
    before = everything(tmp_path / "home")
    new = FileWrapper(tmp_path / "new")
    assert rewrap(tmp_path / "home", wrapper(tmp_path), new) == 4
    with pytest.raises(KeyAccessError, match="not the one"):
        open_home(tmp_path / "home", wrapper(tmp_path))
    (tmp_path / "broker.key").unlink()
    (tmp_path / "new").rename(tmp_path / "broker.key")
    with running(tmp_path, owner) as broker:
        assert broker.home.identity == identity
        assert broker.client().resource("owner", keys.dataset).keys.pack() == keys.pack()
        events = [record["event"] for record in broker.member().log()]
        assert "rewrapped" in events
    assert keys.pack()[4:] not in before


def test_a_backup_is_a_broker(tmp_path: Path, owner: Identity) -> None:
    with running(tmp_path, owner) as broker:
        keys = broker.publish(DEVELOPMENT)
        (tmp_path / "restored" / "home").mkdir(parents=True)
        backup(tmp_path / "home", database_path(tmp_path / "restored" / "home"))
        with pytest.raises(LocalIOError):
            backup(tmp_path / "home", database_path(tmp_path / "restored" / "home"))
        identity = broker.home.identity
    (tmp_path / "broker.key").rename(tmp_path / "restored" / "broker.key")
    with running(tmp_path / "restored", owner) as broker:
        assert broker.home.identity == identity
        assert broker.client().resource("owner", keys.dataset).keys.pack() == keys.pack()


def test_there_is_a_broker_already(tmp_path: Path, owner: Identity) -> None:
    key = made(tmp_path, owner)
    with pytest.raises(UsageError, match="already"):
        create(tmp_path / "home", key, owner.signer, "owner")
    with pytest.raises(LocalIOError, match="no broker"):
        open_home(tmp_path / "empty", key)


@pytest.mark.parametrize(
    "make", [lambda folder: FileWrapper.create(folder / "key"), lambda _: PassphraseWrapper("p")]
)
def test_wrappers(tmp_path: Path, make: Callable[[Path], Wrapper]) -> None:
    found = make(tmp_path)
    master = bytes(range(32))
    first, second = found.wrap(master), found.wrap(master)
    assert first != second
    assert found.unwrap(first) == found.unwrap(second) == master
    with pytest.raises(KeyAccessError):
        found.unwrap(first[:-1] + bytes([first[-1] ^ 1]))


def test_a_vault() -> None:
    vault = Vault(bytes(32))
    sealed = vault.seal(b"secret", b"here")
    assert vault.open(sealed, b"here") == b"secret"
    for wrong, context in ((sealed, b"there"), (sealed[:-1], b"here"), (b"", b"here")):
        with pytest.raises(IntegrityError):
            vault.open(wrong, context)
    assert "secret" not in repr(vault)


def test_no_secret_shows(broker: Broker) -> None:
    keys = DatasetKeys.generate(bytes(16))
    text = repr(broker.home) + repr(broker.home.vault) + repr(keys)
    for secret in (broker.home.tls_key, broker.home.challenge_key, keys.pack()[4:]):
        assert secret.hex() not in text
        assert repr(secret) not in text
