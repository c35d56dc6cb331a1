"""A sealed folder with a bit of everything, and a way to run programs that have it attached."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runtime.trees import make_tree
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.index import Index
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.push import Push, PushOptions
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.attach import LIBRARY
from sealfs.keys import Identity
from sealfs.store.local import LocalStore

RUNTIME = Path(__file__).parents[2] / "runtime"


@pytest.fixture(scope="session", autouse=True)
def library() -> Path:
    """The preload library, as the sources here make it."""
    if shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    subprocess.run(["make", "-s", "-C", RUNTIME, "all"], check=True)
    built = RUNTIME / "build" / LIBRARY.name
    if not LIBRARY.exists() or LIBRARY.read_bytes() != built.read_bytes():
        temporary = LIBRARY.with_name(f".{LIBRARY.name}-{os.getpid()}")  # programs that run may have it mapped
        shutil.copy(built, temporary)
        temporary.replace(LIBRARY)
    return LIBRARY


@pytest.fixture(scope="session")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that runs others on a kernel without what Gramine's lacks."""
    program = tmp_path_factory.mktemp("without") / "without"
    source = Path(__file__).parent / "programs" / "without.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", source, "-o", program], check=True)
    return program


@dataclass(frozen=True)
class Sealed:
    """A plain folder, the same sealed, and where it is to be attached."""

    plain: Path
    store: Path
    mount: Path
    identity: Identity
    home: Path

    def opened(self) -> tuple[Dataset, DatasetKeys, Index]:
        with contextlib.closing(LocalStore(self.store)) as store:
            dataset = Dataset.open(store, TrustStore(self.home / "trust"))
            keys = dataset.keys(self.identity)
            return dataset, keys, dataset.index(keys)

    def run(self, *command: object, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a program to its end; see `start`. At the timeout all that it started in its group ends, too."""
        timeout = how.pop("timeout", 280)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "process_group": 0}
        with self.start(*command, **(pipes | how)) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def start(
        self, *command: object, options: tuple[str, ...] = (), under: tuple[Path, ...] = (), **how: Any
    ) -> subprocess.Popen[Any]:
        """Start a program through the launcher, and that under other programs."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(RUNTIME.parent),
            "HOME": str(self.home),
            "XDG_STATE_HOME": str(self.home / "state"),
        }
        environment.update(how.pop("env", {}))
        data = f"{self.store}:{self.mount}"
        launch = [*under, sys.executable, "-m", "sealfs.enclave.launch", "--data", data, *options]
        with open(self.home / "identity") as identity:
            number = identity.fileno()
            return subprocess.Popen(
                [*launch, "--identity-fd", str(number), "--", *map(str, command)],
                pass_fds=[number], env=environment, **how,
            )  # fmt: skip

    def python(self, code: str, *args: object, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run Python code through the launcher; it finds the mount path in `M` and the plain folder in `P`."""
        script = self.home / f"script-{abs(hash(code))}.py"
        script.write_text(f"M, P = {str(self.mount)!r}, {str(self.plain)!r}\n{code}")
        return self.run(script, *args, **how)


def seal(folder: Path, plain: Path, **options: Any) -> Sealed:
    identity = Identity.generate()
    home = folder / "home"
    home.mkdir()
    (folder / "mnt" / "tree").mkdir(parents=True)
    identity.save(home / "identity")
    with contextlib.closing(LocalStore(folder / "store")) as store:
        Push(plain, store, identity, TrustStore(home / "trust"), PushOptions(**options)).run()
    return Sealed(plain, folder / "store", folder / "mnt" / "tree", identity, home)


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "tree"
    make_tree(folder)
    return folder


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory, plain: Path) -> Sealed:
    return seal(tmp_path_factory.mktemp("sealed"), plain)
