"""The `sealfs` command as users run it: in a process of its own, and mounts that always end.

Nothing here touches the test's own environment: a `Sealfs` has a home of its own, with its identity, its pins,
its cache and its sockets. A mount's process is told by the kernel to end if the tests are killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from sealfs.cli.main import main
from sealfs.keys import Identity
from sealfs.mount.control import report_of
from sealfs.mount.points import mounted_type

BIN = Path(sys.executable).parent
PATIENCE = 90.0  # seconds; the machine may be shared and slow
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode("utf-8", "surrogateescape")

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def complaint(self) -> str:
        """The one line that says what went wrong; the note about whom it trusts from now on does not count."""
        lines = [line for line in self.stderr.splitlines() if not line.startswith("sealfs: first use of ")]
        assert len(lines) == 1, self.stderr
        assert lines[0].startswith("sealfs: ")
        return lines[0].removeprefix("sealfs: ")


class Sealfs:
    """The command, and the home of the user who runs it.

    Args:
        home: A folder for all that user's files; made if missing.
        identity: Saved there as the user's own.
        environment: More environment variables.
    """

    def __init__(self, home: Path, identity: Identity | None = None, **environment: str) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.env = {
            "PATH": os.pathsep.join((str(BIN), os.environ.get("PATH", "/usr/bin:/bin"), "/usr/sbin", "/sbin")),
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "XDG_RUNTIME_DIR": str(home / "run"),
            **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},  # a work tree of its own
            **environment,
        }
        if identity is not None:
            identity.save(self.identity_path)

    @property
    def identity_path(self) -> Path:
        return self.home / "config" / "sealfs" / "identity"

    def log_of(self, mountpoint: Path) -> Path:
        """Where the process behind a mount writes once it is in the background."""
        name = str(mountpoint).strip("/").replace("/", "-")
        return self.home / "state" / "sealfs" / "log" / f"{name}.log"

    def __call__(self, *arguments: object, code: int | None = 0, **options: Any) -> Outcome:
        """Run a verb to its end, which must come with this exit code (None: any).

        Args:
            arguments: As on the command line.
            code: What is expected.
            options: `env` (more variables), `stdin` (bytes), and what `subprocess.run` knows.
        """
        env = self.env | options.pop("env", {})
        done = subprocess.run(
            [BIN / "sealfs", *map(word, arguments)],
            env=env,
            input=options.pop("stdin", b""),
            capture_output=True,
            timeout=options.pop("timeout", 2 * PATIENCE),
            check=False,
            **options,
        )
        outcome = Outcome(done.returncode, done.stdout, done.stderr.decode("utf-8", "surrogateescape"))
        assert code is None or outcome.code == code, f"{arguments}: {outcome}"
        assert "Traceback" not in outcome.stderr, outcome.stderr
        return outcome

    def start(self, *arguments: object, log: Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Begin a verb in the background, with all it says in `log`."""
        with log.open("wb") as output:
            return subprocess.Popen(
                [BIN / "sealfs", *map(word, arguments)],
                env=self.env | (env or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one libc call, libc loaded before
            )


class InProcess(Sealfs):
    """The same without a process, which is much quicker; what a verb sees of its surroundings is replaced.

    Only `mount`, which may fork, gets a process all the same.
    """

    def __call__(self, *arguments: object, code: int | None = 0, **options: Any) -> Outcome:
        """See `Sealfs`; `env`, `stdin` and `cwd` are understood."""
        if "mount" in arguments[:2]:
            return super().__call__(*arguments, code=code, **options)
        env = self.env | options.pop("env", {})
        stdin = io.TextIOWrapper(io.BytesIO(options.pop("stdin", b"")))
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
                contextlib.redirect_stdout(stdout),
                contextlib.redirect_stderr(stderr),
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
            stdout.buffer.getvalue(),
            stderr.buffer.getvalue().decode("utf-8", "surrogateescape"),
        )
        assert code is None or outcome.code == code, f"{words}: {outcome}"
        assert "Traceback" not in outcome.stderr, outcome.stderr
        return outcome


def word(argument: object) -> str | bytes:
    return argument if isinstance(argument, bytes) else str(argument)


def _end_with_parent() -> None:
    if _libc.prctl(1, signal.SIGTERM) != 0:  # 1: PR_SET_PDEATHSIG
        os._exit(127)


class Mounted:
    """A mount in the foreground of a process of its own.

    Attributes:
        path: Where it is.
        process: What serves it.
        log: What the process says.
    """

    def __init__(self, sealfs: Sealfs, path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
        self.sealfs = sealfs
        self.path = path
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    def words(self) -> str:
        return self.log.read_text(errors="replace")

    def status(self) -> dict[str, Any]:
        """What it answers to `sealfs status`."""
        with mock.patch.dict(os.environ, {"XDG_RUNTIME_DIR": self.sealfs.env["XDG_RUNTIME_DIR"]}):
            report = report_of(str(self.path))
        assert report is not None
        return dict(report)

    def wait_until(self, words: str) -> None:
        """Wait until the log has these words."""
        wait_for(lambda: words in self.words() or self.process.poll() is not None)
        assert words in self.words(), self.words()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code that follows."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def mounted(
    sealfs: Sealfs, uri: object, path: Path, *options: object, env: dict[str, str] | None = None
) -> Iterator[Mounted]:
    """Mount for the length of the block; what is left afterwards is removed, and is an error."""
    path.mkdir(exist_ok=True)
    log = path.with_name(path.name + ".log")
    process = sealfs.start("mount", "--foreground", *options, uri, path, log=log, env=env)
    mount = Mounted(sealfs, path, process, log)
    try:
        mount.wait_until("is mounted on")
        yield mount
        if process.poll() is None:
            assert mount.end() == 0, mount.words()
        assert mounted_type(str(path)) is None
        assert "Traceback" not in mount.words(), mount.words()
    finally:
        end(process)
        detach(path)


def end(process: subprocess.Popen[bytes]) -> None:
    """See to it that a process has ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def detach(path: Path) -> None:
    """See to it that nothing is mounted there."""
    while mounted_type(str(path)) is not None:
        subprocess.run(["umount", "-l", path], check=True, capture_output=True)


def wait_for(condition: Any, patience: float = PATIENCE) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def interrupted(
    command: Sequence[str | Path], env: dict[str, str], when: Callable[[], bool], patience: float
) -> int:
    """Start a program, press Ctrl-C once something holds, and return how it ends."""
    process = subprocess.Popen(command, env=env, start_new_session=True)

    def is_time() -> bool:
        assert process.poll() is None, "it ended before that"
        return when()

    try:
        wait_for(is_time, patience)
        time.sleep(0.1)  # in the middle of it, not at its very first step
        os.killpg(process.pid, signal.SIGINT)
        return process.wait(60)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def broker_started(
    process: Sealfs, folder: Path, *options: object, env: dict[str, str] | None = None
) -> Iterator[str]:
    """A broker in a process of its own; yields its address."""
    log = folder / "broker.log"
    broker = process.start("broker", "serve", "--listen", "127.0.0.1:0", *options, log=log, env=env)

    def said() -> list[str]:
        assert broker.poll() is None, log.read_text()
        lines = log.read_text().splitlines(keepends=True)
        return [line.strip() for line in lines if line.startswith("https://") and line.endswith("\n")]

    try:
        wait_for(said)
        yield said()[0]
    finally:
        broker.send_signal(signal.SIGTERM)
        assert broker.wait(PATIENCE) == 0


def runs(pid: int) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def objects(store: Path, kind: str) -> list[Path]:
    """The files of one kind of objects in a local store, the newest last."""
    found = [path for path in (store / kind).rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def flip_bit(path: Path, offset: int) -> None:
    """Change one bit of a file in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def python(script: str, *arguments: object) -> Sequence[str]:
    """A command that runs a piece of Python."""
    return [sys.executable, "-c", script, *map(str, arguments)]
