"""`sealfs run` at a terminal, under a shell with job control: Ctrl-C and Ctrl-Z do as with any command."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from commands import PATIENCE, Sealfs

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


class Terminal:
    """An interactive bash, and what somebody types and sees."""

    def __init__(self, sealfs: Sealfs) -> None:
        self._keys, screen = os.openpty()
        environment = {**sealfs.env, "PS1": "$ ", "TERM": "dumb", "HISTFILE": ""}
        self.process = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "--noediting", "-i"], stdin=screen, stdout=screen, stderr=screen,
            env=environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call
        )  # fmt: skip
        os.close(screen)
        self.seen = ""

    def types(self, keys: str) -> None:
        self.seen = ""
        os.write(self._keys, keys.encode())

    def shows(self, text: str) -> None:
        """Wait until this was printed since the last key."""
        until = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < until, self.seen
            if select.select([self._keys], [], [], 0.5)[0]:
                self.seen += os.read(self._keys, 4096).decode(errors="replace")

    def close(self) -> None:
        os.close(self._keys)  # hangs up: bash passes that on to its jobs, and ends
        self.process.wait(PATIENCE)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[[], Terminal]]:
    opened = Terminal(Sealfs(tmp_path / "home"))
    opened.shows("$ ")
    yield opened
    opened.close()


def test_stopped_and_continued(terminal: Terminal) -> None:
    terminal.types("sealfs run -- cat\n")
    terminal.shows("NO ENCLAVE")
    terminal.types("first\n")
    terminal.shows("first\r\nfirst\r\n")
    terminal.types("\x1a")
    terminal.shows("Stopped")
    terminal.types("echo $((6*7))-by-the-shell\n")
    terminal.shows("42-by-the-shell")
    terminal.types("fg\n")
    terminal.shows("sealfs run")
    terminal.types("typed\n")
    terminal.shows("typed\r\ntyped\r\n")  # the terminal's echo, and cat's
    terminal.types("\x04")
    terminal.shows("$ ")
    terminal.types("echo code-$?\n")
    terminal.shows("code-0")


def test_reading_in_the_background(terminal: Terminal) -> None:
    terminal.types("sealfs run -- cat &\n")
    until = time.monotonic() + PATIENCE
    while "Stopped" not in terminal.seen:  # a shell says so before its next prompt
        assert time.monotonic() < until, terminal.seen
        terminal.types("jobs; echo $((6*7))-listed\n")
        terminal.shows("42-listed")
        time.sleep(0.2)
    terminal.types("fg\n")
    terminal.shows("sealfs run")
    terminal.types("typed\n")
    terminal.shows("typed\r\ntyped\r\n")
    terminal.types("\x04")
    terminal.types("echo code-$?\n")
    terminal.shows("code-0")


def test_in_the_background_it_leaves_the_terminal_to_the_shell(terminal: Terminal) -> None:
    terminal.types('sealfs run -- sh -c \'echo rea""dy; sleep 1; echo do""ne\' &\n')
    terminal.shows("ready")
    terminal.types("echo $((6*7))-by-the-shell\n")
    terminal.shows("42-by-the-shell")
    terminal.types("wait; echo code-$?\n")
    terminal.shows("code-0")


def test_interrupted(terminal: Terminal) -> None:
    terminal.types("sealfs run -- sh -c 'echo rea\"\"dy; sleep 60'\n")
    terminal.shows("ready")
    terminal.types("\x03")
    terminal.shows("$ ")
    terminal.types("echo code-$?\n")
    terminal.shows("code-130")


def test_asked_for_the_terminal_before_it_had_it(terminal: Terminal) -> None:
    """A workload that reads at once can be quicker than the hand-over: the kernel stops it, and it must go on."""
    terminal.types("sealfs run -- sh -c 'kill -TTIN $$; echo went\"\"-on; cat'\n")
    terminal.shows("went-on")
    terminal.types("typed\n")
    terminal.shows("typed\r\ntyped\r\n")
    terminal.types("\x04")
    terminal.types("echo code-$?\n")
    terminal.shows("code-0")
