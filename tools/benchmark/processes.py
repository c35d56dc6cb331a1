"""Starts and ends programs and mounts; nothing that was started here outlives this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from benchmark.common import BenchError

PATIENCE = 30  # seconds for a mount to come or go
_PRIORITY = -15  # of this session among the machine's others (sched(7), autogroup)
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent() -> None:
    _libc.prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


def raise_priority() -> None:
    """Let what else runs here disturb less, where this user may: the scheduler weighs sessions, not processes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_PRIORITY))


def start(command: Sequence[object], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process of this session that does not outlive this one; the terminal's Ctrl-C does not reach it."""
    return subprocess.Popen(
        [str(word) for word in command],
        process_group=0,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 (one libc call, libc loaded before)
        **options,
    )


def run(command: Sequence[object], env: dict[str, str] | None = None) -> None:
    """Run a command that has to succeed."""
    done = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{Path(str(command[0])).name} {command[1]} failed: {(done.stderr or done.stdout)[-500:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def is_mounted(folder: Path) -> bool:
    """Whether something is mounted at exactly this path."""
    return f" {folder} " in Path("/proc/self/mounts").read_text()


@contextlib.contextmanager
def mounted(command: Sequence[object], folder: Path, env: dict[str, str] | None = None) -> Iterator[Path]:
    """Run a program that serves a mount in the foreground, and take mount and program down again."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryFile() as log:
        process = start(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        try:
            deadline = time.monotonic() + PATIENCE
            while not is_mounted(folder):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = log.read()[-500:].decode(errors="replace")
                    raise BenchError(f"{Path(str(command[0])).name} did not mount: {said}")
                time.sleep(0.005)
            yield folder
        finally:
            unmount(folder)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            end(process)


def unmount(folder: Path) -> None:
    """Unmount, lazily if nothing else helps."""
    tool = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    for attempt in range(20):
        if not is_mounted(folder):
            return
        lazy = ["-l" if os.geteuid() == 0 else "-z"] if attempt == 19 else []
        subprocess.run([*tool, *lazy, folder], capture_output=True, check=False)
        time.sleep(0.05 * attempt)


def deepen_read_ahead(folder: Path, kib: int) -> None:
    """Let the kernel read further ahead, where this user may say so."""
    device = folder.stat().st_dev
    with contextlib.suppress(OSError):
        Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(str(kib))


def interrupt(*_: object) -> NoReturn:
    """End in good order; a second Ctrl-C must not interrupt that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def handle_signals() -> None:
    """Take everything down when told to end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
