"""The command line: mostly in this process, which is quicker; as processes where that is what matters."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import pytest
from commands import Outcome, Sealfs, word

from sealfs.cli.main import main
from sealfs.keys import Identity


class InProcess(Sealfs):
    """The same as `Sealfs`, without a process; what a verb sees of its surroundings is replaced."""

    def __call__(self, *arguments: object, code: int | None = 0, **options: object) -> Outcome:
        """See `Sealfs`; `env`, `stdin` and `cwd` are understood."""
        env = self.env | options.pop("env", {})  # type: ignore[operator]
        stdin = io.TextIOWrapper(io.BytesIO(options.pop("stdin", b"")))  # type: ignore[arg-type]
        stdout, stderr = (io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape") for _ in range(2))
        folder = options.pop("cwd", None)
        assert not options
        words = [os.fsdecode(word(argument)) for argument in arguments]
        log = logging.getLogger()
        before, handlers, level = os.getcwd(), log.handlers[:], log.level
        try:
            if folder is not None:
                os.chdir(str(folder))
            with (
                mock.patch.dict(os.environ, env, clear=True),
                mock.patch.object(sys, "argv", ["sealfs", *words]),
                mock.patch.object(sys, "stdin", stdin),
                redirect_stdout(stdout),
                redirect_stderr(stderr),
                pytest.raises(SystemExit) as ended,
            ):
                main()
        finally:
            os.chdir(before)
            log.handlers[:] = handlers
            log.setLevel(level)
        stdout.flush()
        stderr.flush()
        status = ended.value.code
        outcome = Outcome(
            status if isinstance(status, int) else 0 if status is None else 1,
            stdout.buffer.getvalue(),  # type: ignore[attr-defined]
            stderr.buffer.getvalue().decode("utf-8", "surrogateescape"),  # type: ignore[attr-defined]
        )
        assert code is None or outcome.code == code, f"{words}: {outcome}"
        assert "Traceback" not in outcome.stderr, outcome.stderr
        return outcome


@pytest.fixture(scope="session")
def shared_identity() -> Identity:
    return Identity.generate()


@pytest.fixture
def sealfs(tmp_path: Path, shared_identity: Identity) -> InProcess:
    """A user with an identity."""
    return InProcess(tmp_path / "home", shared_identity)


@pytest.fixture
def process(sealfs: InProcess) -> Sealfs:
    """The same user, in processes."""
    same = Sealfs(sealfs.home)
    same.env = sealfs.env
    return same


@pytest.fixture
def somebody(tmp_path: Path) -> Callable[[str], InProcess]:
    """Returns a function that makes one more user, with an identity of their own."""

    def make(name: str) -> InProcess:
        return InProcess(tmp_path / name, Identity.generate())

    return make


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder to push."""
    top = tmp_path / "source"
    (top / "images").mkdir(parents=True)
    for number in range(3):
        (top / "images" / f"{number}.bin").write_bytes(bytes([number]) * 1000)
    (top / "labels.csv").write_text("image,label\n0.bin,healthy\n")
    (top / "latest").symlink_to("images/2.bin")
    os.utime(top / "labels.csv", ns=(0, 1_700_000_000_123_456_789))
    return top


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where to push it."""
    return tmp_path / "store"


@pytest.fixture
def pushed(sealfs: InProcess, source: Path, store: Path) -> Path:
    """A store with one version of it."""
    sealfs("push", source, store, "-m", "first")
    return store
