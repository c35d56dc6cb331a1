"""What all tests share: folders of their own, small datasets to attack, and a look at what is left behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from sealfs.dataset.trust import TrustStore
from sealfs.keys import Identity
from sealfs.store.local import LocalStore

# The same examples each time, so that CI says the same of the same code; `thorough` looks for new ones.
settings.register_profile(
    "quick",
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", parent=settings.get_profile("quick"), max_examples=1000, derandomize=False)
settings.load_profile("quick")

_GRACE = 10.0  # seconds that a thread may take to end after its owner was closed


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "error_logs: this test provokes log records of level ERROR or CRITICAL")
    if (
        signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    ):  # as in a shell's background; what tests start inherits it
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configuration, state, cache and runtime folders that no other test and no user has; returns their parent."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("CONFIG", "STATE", "CACHE", "DATA"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / name.lower()))
    runtime = home / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    for name in [name for name in os.environ if name.startswith("SEALFS_")]:
        monkeypatch.delenv(name)
    return home


class _Loud(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _ours() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("sealfs-") and not t.daemon}


def _mounts_below(folder: Path) -> set[str]:
    # mountinfo writes spaces and the like as octal escapes, which pytest's folder names do not have
    with open("/proc/self/mountinfo") as table:
        places = [line.split()[4] for line in table]
    return {place for place in places if place.startswith(f"{folder}/")}


@pytest.fixture(autouse=True)
def nothing_left_behind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, own_folders: Path
) -> Iterator[None]:
    """Fail a test that leaves threads of sealfs or mounts, or that logs errors it did not announce."""
    base = tmp_path_factory.getbasetemp()
    threads, mounts, loud = _ours(), _mounts_below(base), _Loud()
    logging.getLogger("sealfs").addHandler(loud)
    try:
        yield
    finally:
        logging.getLogger("sealfs").removeHandler(loud)
    give_up = time.monotonic() + _GRACE
    while (left := _ours() - threads) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert not left, f"threads left behind: {left}"
    left_mounts = _mounts_below(base) - mounts
    for place in left_mounts:  # or the next runs of pytest fail to clear its folder
        subprocess.run(["umount", "-l", place], check=False)
    assert not left_mounts, "mounts left behind"
    if request.node.get_closest_marker("error_logs") is None:
        assert not loud.messages, f"unexpected errors in the log: {loud.messages}"


@pytest.fixture
def identity() -> Identity:
    """A provider, or whoever else is needed; each call of `Identity.generate` makes one more."""
    return Identity.generate()


@pytest.fixture
def trust() -> TrustStore:
    """The pins of this test's user."""
    return TrustStore()


@pytest.fixture
def local_store(tmp_path: Path) -> Iterator[LocalStore]:
    """An empty store in a folder."""
    store = LocalStore(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a bit of everything that can be sealed."""
    top = tmp_path / "tree"
    (top / "images" / "deep").mkdir(parents=True)
    (top / "empty folder").mkdir(mode=0o750)
    for number in range(12):
        (top / "images" / f"{number:02}.bin").write_bytes(bytes([number]) * (100 * number + 1))
    (top / "images" / "deep" / "random").write_bytes(os.urandom(200_000))
    (top / "nothing").touch()
    (top / "link").symlink_to("images/00.bin")
    (top / "dangling").symlink_to("no/such/thing")
    Path(os.fsdecode(os.path.join(os.fsencode(top), b"odd \xff\xfe\nname"))).write_bytes(b"odd")
    (top / "späte Größe").write_bytes(b"utf-8")
    (top / "script").write_bytes(b"#!/bin/sh\n")
    (top / "script").chmod(0o755)
    with (top / "sparse").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(2 << 20)
        file.write(b"data between holes")
    return top


@pytest.fixture
def small_packs(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Returns a function that sets the size of a full pack, so that small files fill many."""

    def set_size(size: int) -> None:
        monkeypatch.setattr("sealfs.dataset.packer.PACK_SIZE", size)

    set_size(64 << 10)
    return set_size
