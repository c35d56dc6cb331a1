"""Runs a command as the foreground of a command of ours, in a process group that can be ended as a whole.

What the user and the service manager send arrives there: signals, the terminal, Ctrl-C, Ctrl-Z. Used where a
command's life is tied to something else: a mount, a run.

Threading: `run` belongs to the main thread; `kill` may be called from any.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence

from sealfs.errors import MountError

_POLL = 0.2  # seconds
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class Workload:
    """A command and its children.

    Args:
        command: What to run.
        environment: All its environment variables; None for ours.
        folder: Where it starts; None for here.
        stdin: Descriptor of its standard input; None for ours.
        stdout: Descriptor of its standard output; None for ours.
        pass_fds: More descriptors that it inherits.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        folder: str | None = None,
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._pass_fds = pass_fds
        self._command = command
        self._environment = environment
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, doomed: Callable[[], bool]) -> int:
        """Run it to its end.

        Args:
            doomed: Asked now and then whether it must be killed; a `kill` in between is quicker.

        Returns:
            Its exit code, 128 + N where signal N ended it.

        Raises:
            MountError: It can't be started.
        """
        try:
            process = subprocess.Popen(
                self._command,
                process_group=0,
                env=self._environment,
                cwd=self._folder,
                stdin=self._stdin,
                stdout=self._stdout,
                pass_fds=self._pass_fds,
            )
        except OSError as error:
            raise MountError(
                f"cannot run '{self._command[0]}': {error.strerror}", "check its name and PATH"
            ) from None
        self._process = process
        with _terminal_lent_to(process.pid):
            while process.poll() is None:
                if doomed():
                    self.kill()
                stopped = _stopped_by(process.pid)
                if stopped is not None and os.isatty(0):
                    _stop_with(process.pid, stopped)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_POLL)
        return process.returncode if process.returncode >= 0 else 128 - process.returncode

    @property
    def pid(self) -> int | None:
        """Which process it is or was; None before it was started."""
        return self._process.pid if self._process is not None else None

    def signal(self, number: int) -> bool:
        """Send a signal to it and its children; say whether it was ever started."""
        if self._process is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
        return True

    def kill(self) -> None:
        """End it and its children at once."""
        self.signal(signal.SIGKILL)


@contextlib.contextmanager
def signals_sent_to(handle: Callable[[int], None]) -> Iterator[None]:
    """Give the signals that end commands to `handle` for the length of the block."""
    before = {number: signal.signal(number, lambda number, frame: handle(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _terminal_lent_to(group: int) -> Iterator[None]:
    """Make a process group the terminal's foreground, so that it may read from it and gets its Ctrl-C."""
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # sent to a background that moves the foreground
    _hand_terminal(os.getpgrp(), group)
    try:
        yield
    finally:
        _hand_terminal(group, os.getpgrp())
        signal.signal(signal.SIGTTOU, before)


def _hand_terminal(giver: int, taker: int) -> bool:
    """Make another process group the terminal's foreground if it is `giver`'s to hand on; say whether it has it."""
    with contextlib.suppress(OSError):  # there is no terminal, or it is another session's
        if os.isatty(0):
            holder = os.tcgetpgrp(0)
            if holder == giver:
                os.tcsetpgrp(0, taker)
            return holder in (giver, taker)
    return False


def _stopped_by(pid: int) -> int | None:
    """Return which signal has just stopped a child; None if none has."""
    try:
        state = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG)
    except ChildProcessError:  # it has ended in the meantime, and is not waited for here
        return None
    return state.si_status if state is not None else None


def _stop_with(group: int, number: int) -> None:
    """Stop after a process group that its terminal has stopped, so that the shell notices; go on together."""
    own = os.getpgrp()
    asked = number in (signal.SIGTTIN, signal.SIGTTOU)  # for the terminal, perhaps just before it was handed on
    if not (asked and _hand_terminal(own, group)):
        if not asked and number != signal.SIGTSTP:
            return  # somebody has reasons of his own
        _hand_terminal(group, own)
        os.killpg(own, signal.SIGSTOP)
        _hand_terminal(own, group)  # by `fg`; after `bg` the terminal is the shell's
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGCONT)
