"""A broker's folder: what the first start makes, and what every start puts together.

Its database holds all, the broker's own keys included, sealed under the master key (wrapping.py). The key file
that wraps the master key unless told otherwise lies in the configuration folder, apart from the database and its
backups.

Threading: making and opening belong to one thread; what comes of it is safe.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sealfs.broker.address import identity_of
from sealfs.broker.audit import Log
from sealfs.broker.certificate import self_signed
from sealfs.broker.database import Database
from sealfs.broker.holdings import reseal_keys
from sealfs.broker.members import Member, Role, put_member
from sealfs.broker.protocol import OWNER
from sealfs.broker.wrapping import KEY_SIZE, KmsWrapper, Vault, Wrapper
from sealfs.errors import LocalIOError, UsageError
from sealfs.keys import Signer
from sealfs.xdg import config_directory, state_directory

_DATABASE = "broker.sqlite"
_SECRETS = ("tls_key", "log_key", "challenge_key")


def default_home() -> Path:
    """Return where a broker keeps its database unless told otherwise."""
    return state_directory() / "broker"


def default_key_file() -> Path:
    """Return where the key that wraps the master key lies unless told otherwise."""
    return config_directory() / "broker.key"


def database_path(home: Path) -> Path:
    """Return where the database lies in a broker's folder."""
    return home / _DATABASE


def address_file(home: Path) -> Path:
    """Return where a broker writes its address when it is there, for commands on the same machine."""
    return home / "address"


def backup(home: Path, target: Path) -> None:
    """Copy a broker's database, also while it runs; what opens it is not in the copy.

    Raises:
        LocalIOError: There is no broker, `target` exists already, or can't be written.
    """
    _settings_in(home)
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with (
            closing(Database(database_path(home), readonly=True)) as database,
            closing(sqlite3.connect(target)) as copy,
        ):
            database.copy_to(copy)
    except (OSError, sqlite3.Error) as error:
        raise LocalIOError(f"cannot write {target}: {error}", "choose another file") from None


@dataclass(frozen=True, slots=True)
class Home:
    """An open broker.

    Attributes:
        identity: `sha256:` and the hex digest of the broker's TLS public key (SPKI).
        database: Open for writing.
        vault: Opens what is sealed in it.
        log: Appends to its log.
        log_key: Signs the log, and tokens.
        challenge_key: Authenticates challenges.
        certificate: PEM.
        tls_key: PKCS#8, DER.
    """

    identity: str
    database: Database
    vault: Vault
    log: Log
    log_key: Ed25519PrivateKey
    challenge_key: bytes
    certificate: bytes
    tls_key: bytes

    def __repr__(self) -> str:
        return f"<Home of {self.identity}>"

    def close(self) -> None:
        """Let another broker open it."""
        self.database.close()


def exists(home: Path) -> bool:
    """Whether there is a broker in a folder."""
    if not database_path(home).exists():
        return False
    with closing(Database(database_path(home), readonly=True)) as database:
        return "master" in database.read(_settings)


def wrapping_kind(home: Path) -> tuple[str, str]:
    """Return how a broker's master key is wrapped, and for a KMS with which key.

    Raises:
        LocalIOError: There is no broker.
    """
    settings = _settings_in(home)
    return settings["wrapping"].decode(), settings["wrapping_key"].decode()


def log_key_of(home: Path) -> tuple[str, Signer]:
    """Return a broker's identity and who signs its log, as its database says: no secret is needed.

    Raises:
        LocalIOError: There is no broker.
    """
    settings = _settings_in(home)
    return settings["identity"].decode(), Signer.parse(settings["log_signer"].decode())


def create(home: Path, wrapper: Wrapper, admin: Signer, name: str) -> None:
    """Make a broker's database, with one member who may do everything.

    Args:
        home: Its folder; made if missing.
        wrapper: Protects its master key.
        admin: Whose calls are obeyed at first.
        name: That member's name, and the owner's in resources.

    Raises:
        LocalIOError: It can't be written.
        UsageError: There is a broker already, or nobody can have that name.
    """
    if not re.fullmatch(OWNER, name):
        raise UsageError(
            f"'{name}' can be nobody's name", "small letters, digits, and '.', '_' or '-' between them"
        )
    master = os.urandom(KEY_SIZE)
    vault = Vault(master)
    tls_key = ec.generate_private_key(ec.SECP256R1())
    log_key = Ed25519PrivateKey.generate()
    identity = identity_of(tls_key.public_key())
    der = tls_key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    log = Log(identity, log_key)
    settings = {
        "master": wrapper.wrap(master),
        "wrapping": wrapper.kind.encode(),
        "wrapping_key": wrapper.key_id.encode() if isinstance(wrapper, KmsWrapper) else b"",
        "identity": identity.encode(),
        "certificate": self_signed(tls_key, identity),
        "log_signer": str(log.signer).encode(),
        "tls_key": vault.seal(der, _context("tls_key")),
        "log_key": vault.seal(log_key.private_bytes_raw(), _context("log_key")),
        "challenge_key": vault.seal(os.urandom(KEY_SIZE), _context("challenge_key")),
    }

    def fill(transaction: sqlite3.Connection) -> None:
        if _settings(transaction):
            raise UsageError(f"there is a broker in {home} already", "choose another folder with --home")
        transaction.executemany("INSERT INTO settings VALUES (?, ?)", settings.items())
        put_member(transaction, Member(name, admin, frozenset(Role), 1))
        log.append(
            transaction,
            datetime.now(UTC),
            "created",
            {"broker": identity, "key": str(log.signer), "member": name, "signer": str(admin)},
        )

    with closing(Database(database_path(home))) as database:
        database.write(fill)


def open_home(home: Path, wrapper: Wrapper) -> Home:
    """Open a broker's database with what unwraps its master key.

    Raises:
        KeyAccessError: That is not what it was made with.
        ConflictError: Another broker is running on it.
        LocalIOError: There is no broker.
    """
    database = Database(database_path(home))
    try:
        settings = database.read(_settings)
        if "master" not in settings:
            raise LocalIOError(f"there is no broker in {home}", "name its folder with --home")
        vault = Vault(wrapper.unwrap(settings["master"]))
        secrets = {name: vault.open(settings[name], _context(name)) for name in _SECRETS}
    except BaseException:
        database.close()
        raise
    log_key = Ed25519PrivateKey.from_private_bytes(secrets["log_key"])
    identity = settings["identity"].decode()
    return Home(
        identity,
        database,
        vault,
        Log(identity, log_key),
        log_key,
        secrets["challenge_key"],
        settings["certificate"],
        secrets["tls_key"],
    )


def rewrap(home: Path, old: Wrapper, new: Wrapper) -> int:
    """Take a new master key, seal everything under it, and wrap it anew; return how many secrets that were.

    One transaction: a crash leaves the old or the new. Copies of the database made before still open with `old`.

    Raises:
        KeyAccessError: `old` is not what it was made with.
    """
    with closing(open_home(home, old)) as opened:
        master = os.urandom(KEY_SIZE)
        vault = Vault(master)

        def change(transaction: sqlite3.Connection) -> int:
            settings = _settings(transaction)
            for name in _SECRETS:
                settings[name] = vault.seal(opened.vault.open(settings[name], _context(name)), _context(name))
            settings["master"] = new.wrap(master)
            settings["wrapping"] = new.kind.encode()
            settings["wrapping_key"] = new.key_id.encode() if isinstance(new, KmsWrapper) else b""
            transaction.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", settings.items())
            count = reseal_keys(transaction, opened.vault, vault)
            opened.log.append(transaction, datetime.now(UTC), "rewrapped", {"wrapping": new.kind})
            return count + len(_SECRETS)

        return opened.database.write(change)


def _settings_in(home: Path) -> dict[str, bytes]:
    if not exists(home):
        raise LocalIOError(f"there is no broker in {home}", "name its folder with --home")
    with closing(Database(database_path(home), readonly=True)) as database:
        return database.read(_settings)


def _settings(transaction: sqlite3.Connection) -> dict[str, bytes]:
    return dict(transaction.execute("SELECT name, value FROM settings"))


def _context(name: str) -> bytes:
    return f"sealfs 1 broker {name}".encode()
