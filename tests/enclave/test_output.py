"""Results leave a folder in memory sealed, whatever the script does to it meanwhile."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from enclave.sealed import NEVER, Sealer, content, files, newest
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.output import OutputSealer
from sealfs.errors import KeyAccessError, StoreError, TrustError, UsageError
from sealfs.keys import Identity
from sealfs.store.base import ObjectStore
from sealfs.store.local import LocalStore


class Switched:
    """A store that can be switched off."""

    def __init__(self, store: ObjectStore) -> None:
        self.on = True
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if not self.on:
            raise StoreError("switched off")
        return getattr(self._store, name)

    @property
    def uri(self) -> str:
        return self._store.uri


def test_sockets_and_pipes_hold_no_results(
    sealer: Sealer, folder: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    output = sealer()
    output.start()
    os.mkfifo(folder / "pipe")
    (folder / "deep").mkdir()
    (folder / "deep" / "pipe").write_bytes(b"a file of the same name")
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(str(folder / "socket"))
        output.finish()
    assert content(local_store, identity, trust) == {"deep/pipe": b"a file of the same name"}


def test_only_recipients_can_open(
    sealer: Sealer, folder: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    output = sealer()
    output.start()
    (folder / "a").write_bytes(b"a")
    output.finish()
    with pytest.raises(KeyAccessError):
        content(local_store, Identity.generate(), trust)
    assert content(local_store, identity, trust) == {"a": b"a"}


def test_address_is_claimed_at_the_start(sealer: Sealer) -> None:
    """Whoever else wanted it learns so before training."""
    first = sealer()
    first.start()
    with pytest.raises(UsageError, match="there is a dataset at"):
        sealer().start()
    first.finish()


def test_store_that_is_away_shows_at_the_start(sealer: Sealer, local_store: LocalStore) -> None:
    store = Switched(local_store)
    store.on = False
    with pytest.raises(StoreError):
        sealer(cast(ObjectStore, store)).start()


def test_needs_a_recipient_and_an_empty_folder(
    sealer: Sealer, memory: Path, folder: Path, local_store: LocalStore
) -> None:
    with pytest.raises(UsageError, match="nobody could open"):
        OutputSealer(folder, local_store, [], memory / "state")
    (folder / "x").touch()
    with pytest.raises(UsageError, match="not empty"):
        sealer().start()


def test_store_that_is_away_in_the_end_fails(sealer: Sealer, folder: Path, local_store: LocalStore) -> None:
    store = Switched(local_store)
    output = sealer(cast(ObjectStore, store), interval=0.05)
    output.start()
    store.on = False
    (folder / "a").write_bytes(b"a")
    time.sleep(0.3)  # the interval's snapshots fail, and do not end anything
    with pytest.raises(StoreError, match="switched off"):
        output.finish()


def test_store_that_comes_back_in_time(
    sealer: Sealer, folder: Path, local_store: LocalStore, identity: Identity, trust: TrustStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("sealfs.periodic._PAUSE", 0.1)
    store = Switched(local_store)
    output = sealer(cast(ObjectStore, store), patience=60.0)
    output.start()
    store.on = False
    (folder / "a").write_bytes(b"a")
    timer = threading.Timer(0.5, lambda: setattr(store, "on", True))
    timer.start()
    output.finish()
    timer.join()
    assert content(local_store, identity, trust) == {"a": b"a"}


def test_rolled_back_address_fails(sealer: Sealer, folder: Path, local_store: LocalStore, tmp_path: Path) -> None:
    """Whoever runs the store puts an earlier head back: the run must not go on from there."""
    output = sealer(interval=NEVER)
    output.start()
    shutil.rmtree(tmp_path / "store")
    (folder / "a").write_bytes(b"a")
    with pytest.raises(TrustError):
        output.finish()


IN_PROCESS = """
import atexit, os, signal, sys, threading, time
from pathlib import Path
from sealfs.enclave.output import OutputSealer, sealed_to_the_end
from sealfs.errors import SealfsError
from sealfs.keys import load_identity
from sealfs.store.local import LocalStore
top, store, identity, how = sys.argv[1:]
out = Path(top) / "content"
recipient = load_identity(Path(identity)).recipient
sealer = OutputSealer(out, LocalStore(Path(store)), [recipient], Path(top) / "state", patience=0)
sealer.start()

def script():
    atexit.register(lambda: (out / "late").write_bytes(b"at exit"))
    (out / "a").write_bytes(b"a")
    def later():
        time.sleep(0.3)
        (out / "thread").write_bytes(b"thread")
    threading.Thread(target=later).start()
    if how == "fork":
        child = os.fork()
        if child == 0:
            sys.exit(0)
        os.waitpid(child, 0)
        (out / "after the fork").touch()
    elif how == "error":
        raise RuntimeError("of the script")
    elif how == "code":
        sys.exit(3)
    elif how == "away":
        os.rename(store, store + ".away")
        Path(store).touch()
    elif how == "wait":
        print("ready", flush=True)
        time.sleep(60)

try:
    with sealed_to_the_end(sealer):
        script()
except SealfsError as error:
    print("sealfs:", error.message, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(
    ("how", "code"), [("return", 0), ("fork", 0), ("error", 1), ("code", 3), ("away", 6), ("wait", 143)]
)
def test_in_the_process_of_the_script(
    memory: Path, folder: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, tmp_path: Path,
    how: str, code: int,
) -> None:  # fmt: skip
    identity.save(tmp_path / "identity")
    store = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-c", IN_PROCESS, memory, store, tmp_path / "identity", how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if how == "wait":
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    if how == "away":
        assert "sealfs: " in stderr
        return
    found = content(local_store, identity, trust)
    assert found == files(folder)
    assert (found["late"], found["thread"]) == (b"at exit", b"thread")
    assert ("RuntimeError: of the script" in stderr) == (how == "error")
    assert newest(local_store, trust) == 2


@pytest.mark.parametrize("weighed", [True, False], ids=["before", "grown since it was weighed"])
@pytest.mark.parametrize("kind", ["file", "large file", "name", "folder", "link"])
def test_no_more_leaves_than_may_whatever_it_is_hidden_in(
    memory: Path, folder: Path, local_store: LocalStore, identity: Identity, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, kind: str, weighed: bool,
) -> None:  # fmt: skip
    output = OutputSealer(
        folder, local_store, [identity.recipient], memory / "state", interval=NEVER, patience=0.0, max_size=100
    )
    output.start()
    if not weighed:
        monkeypatch.setattr(OutputSealer, "check_size", lambda self: None)
    try:
        secret = "s" * 101
        if kind == "file":
            (folder / "f").write_text(secret)
        elif kind == "large file":
            (folder / "f").write_bytes(bytes(100_000_000))
        elif kind == "name":
            (folder / secret).touch()
        elif kind == "folder":
            (folder / secret).mkdir()
        else:
            (folder / "l").symlink_to(secret)
        with pytest.raises(UsageError, match="100 are allowed" if weighed else "more to seal than may be sent"):
            output.finish()
    finally:
        output.abandon()
    assert newest(local_store, TrustStore(memory / "state" / "trust")) == 1
    assert sum(path.stat().st_size for path in (tmp_path / "store" / "packs").glob("*")) == 0


def test_what_vanishes_while_sizes_are_added_up_fails_nothing(
    memory: Path, folder: Path, local_store: LocalStore, identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that the script left behind may still be tidying up."""
    output = OutputSealer(
        folder, local_store, [identity.recipient], memory / "state", interval=NEVER, patience=0.0, max_size=100
    )
    output.start()
    (folder / "weights").write_bytes(b"weights")
    (folder / "a.tmp").touch()

    def vanishing(real: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def look(path: Any, *rest: Any, **words: Any) -> os.stat_result:
            if not isinstance(path, int) and os.fsencode(path).endswith(b".tmp"):
                Path(os.fsdecode(path)).unlink(missing_ok=True)
            return real(path, *rest, **words)

        return look

    with monkeypatch.context() as patch:
        patch.setattr("os.lstat", vanishing(os.lstat))
        patch.setattr("os.stat", vanishing(os.stat))
        output.finish()
    assert content(local_store, identity, TrustStore(memory / "state" / "trust")) == {"weights": b"weights"}
