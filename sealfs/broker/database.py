"""Everything of a broker that lasts, in one SQLite file; and the rule that nothing is true before it is on disk.

`write` runs a function in a transaction and returns when that is on disk. Writes that wait at the same time
share one transaction and so one fsync, each in a savepoint of its own: hundreds of enclaves that start together
cost a few fsyncs, and none of them sees the failure of another.

Threading: safe. One thread writes; each thread that reads has a connection of its own.
"""

from __future__ import annotations

import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeVar

from sealfs.errors import ConflictError, FormatError, LocalIOError

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

_VERSION = 1
_MAX_BATCH = 256
_BUSY = 10.0  # seconds to wait for `sealfs broker log`, which only reads
_SCHEMA = """
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE members (
    name TEXT PRIMARY KEY, signer TEXT NOT NULL UNIQUE, roles TEXT NOT NULL, revision INTEGER NOT NULL) STRICT;
CREATE TABLE calls (id BLOB PRIMARY KEY, expires INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE spent (id BLOB PRIMARY KEY, expires INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE datasets (
    owner TEXT NOT NULL, dataset TEXT NOT NULL, revision INTEGER NOT NULL, policy TEXT NOT NULL,
    version INTEGER NOT NULL, keys BLOB, PRIMARY KEY (owner, dataset)) STRICT;
CREATE TABLE publications (
    owner TEXT NOT NULL, dataset TEXT NOT NULL, version INTEGER NOT NULL, sha256 TEXT NOT NULL,
    signer TEXT NOT NULL, PRIMARY KEY (owner, dataset, version)) STRICT;
CREATE TABLE manifests (
    owner TEXT NOT NULL, measurement TEXT NOT NULL, manifest TEXT NOT NULL, revision INTEGER NOT NULL,
    PRIMARY KEY (owner, measurement)) STRICT;
CREATE TABLE enrolled (
    kind TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, revision INTEGER NOT NULL,
    PRIMARY KEY (kind, name)) STRICT;
CREATE TABLE log (sequence INTEGER PRIMARY KEY, record BLOB NOT NULL, signature BLOB NOT NULL) STRICT;
CREATE TABLE contracts (digest TEXT PRIMARY KEY, contract BLOB NOT NULL) STRICT;
CREATE TABLE statements (
    contract TEXT NOT NULL, statement BLOB NOT NULL, envelope BLOB NOT NULL,
    PRIMARY KEY (contract, statement)) STRICT;
CREATE TABLE runs (
    contract TEXT NOT NULL, owner TEXT NOT NULL, dataset TEXT NOT NULL, run TEXT NOT NULL,
    PRIMARY KEY (contract, owner, dataset, run)) STRICT;
CREATE INDEX calls_expire ON calls (expires);
CREATE INDEX spent_expire ON spent (expires);
"""


def _connect(path: Path, *, readonly: bool = False) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={'ro' if readonly else 'rw'}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY, check_same_thread=False)
    connection.execute("PRAGMA trusted_schema = OFF")
    if not readonly:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # in WAL mode: fsync of each commit
        connection.execute("PRAGMA secure_delete = ON")
    return connection


class Database:
    """A broker's database.

    Args:
        path: The file; made if missing.
        readonly: Only look, also while a broker runs.

    Raises:
        LocalIOError: It can't be opened, or is no database.
        ConflictError: Another broker has it open.
        FormatError: A newer sealfs made it.
    """

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.path = path
        self._readonly = readonly
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Work[object], Future[object]] | None] = queue.SimpleQueue()
        self._file_lock: int | None = None
        try:
            if not readonly:
                self._file_lock = _lock(path)
            with closing(_connect(path, readonly=readonly)) as connection:
                _migrate(connection, readonly=readonly)
        except (sqlite3.Error, OSError) as error:
            self._unlock()
            raise LocalIOError(f"cannot open the broker's database {path}: {error}", "check --home") from None
        except FormatError:
            self._unlock()
            raise
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="sealfs-broker-database")
        if not readonly:
            self._thread.start()

    def read(self, work: Work[T]) -> T:
        """Run `work` on one consistent state of the database.

        Raises:
            LocalIOError: The disk fails.
        """
        connection = self._reader()
        try:
            connection.execute("BEGIN")
            try:
                return work(connection)
            finally:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise LocalIOError(f"the broker's database {self.path} cannot be read: {error}") from None

    def write(self, work: Work[T]) -> T:
        """Run `work` in a transaction; return when what it did is on disk. If it raises, it has done nothing.

        Raises:
            LocalIOError: The disk is full or fails; nothing was done.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed or self._readonly:
                raise LocalIOError("the broker's database is closed")
            self._queue.put((work, future))  # type: ignore[arg-type] # the future's type is the work's
        return future.result()

    def copy_to(self, target: sqlite3.Connection) -> None:
        """Copy one consistent state to another database."""
        self._reader().backup(target)

    def close(self) -> None:
        """Finish what is waiting, and let another broker open it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for connection in self._readers:
                connection.close()
            self._queue.put(None)
        if not self._readonly:
            self._thread.join()  # whose connection is the last, so that it clears the write-ahead log away
        self._unlock()

    def _unlock(self) -> None:
        if self._file_lock is not None:
            os.close(self._file_lock)
            self._file_lock = None

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _connect(self.path, readonly=True)
            with self._lock:
                self._readers.append(connection)
        return connection

    def _run(self) -> None:
        with closing(_connect(self.path)) as connection:
            going_on = True
            while going_on:
                batch, going_on = self._next_batch()
                _commit(connection, batch)

    def _next_batch(self) -> tuple[list[tuple[Work[object], Future[object]]], bool]:
        """Wait for work; return all that is there, and whether more may come."""
        items = [self._queue.get()]
        with suppress(queue.Empty):
            while len(items) < _MAX_BATCH:
                items.append(self._queue.get_nowait())
        return [item for item in items if item is not None], None not in items


def _commit(connection: sqlite3.Connection, batch: list[tuple[Work[object], Future[object]]]) -> None:
    """Do a batch in one transaction; each waits until it is on disk, or learns why it is not."""
    done: list[tuple[Future[object], object]] = []
    try:
        connection.execute("BEGIN IMMEDIATE")
        for work, future in batch:
            connection.execute("SAVEPOINT one")
            try:
                result = work(connection)
            except sqlite3.Error:
                raise
            except BaseException as error:
                connection.execute("ROLLBACK TO one")
                future.set_exception(error)
            else:
                done.append((future, result))
            connection.execute("RELEASE one")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        failure = LocalIOError(f"the broker's database cannot be written: {error}", "is the disk full?")
        for _, future in batch:
            if not future.done():
                future.set_exception(failure)
        return
    for future, result in done:
        future.set_result(result)


def _lock(path: Path) -> int:
    """Make the file, private, and keep other brokers away from it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConflictError(
            f"another broker is running on {path.parent}", "end it first, or choose another --home"
        ) from None
    return descriptor


def _migrate(connection: sqlite3.Connection, *, readonly: bool) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > _VERSION:
        raise FormatError(f"the broker's database has version {version}, this sealfs knows {_VERSION}")
    if version == _VERSION:
        return
    if readonly:
        raise sqlite3.DatabaseError("there is no broker in it")
    connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;")
