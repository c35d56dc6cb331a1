"""What a run is, and the interface of what runs it. Executors are found by entry point, so that others can add.

A package adds one with

    [project.entry-points."sealfs.executors"]
    name = "package.module:Class"

where the class has no arguments and fits `Executor`.

Threading: values and lookups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal, Protocol

from sealfs.errors import ExecutorError, UsageError
from sealfs.placement import DataMount, Output

GROUP = "sealfs.executors"
MANIFEST = "workload.manifest"  # in the enclave's folder: what is run; a runner signs for its SHA-256

KeyKind = Literal["identity", "test-keys", "attested", "runner"]


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be run.

    Attributes:
        datasets: What it reads.
        output: What it writes; None if it writes no results.
        command: What the user wants run.
        keys: Where the launcher's keys come from: what it is handed by descriptor, or evidence, or a runner's word.
        preload: Whether datasets are attached in the process, by the launcher.
        enclave: The folder that `sealfs measure` filled; None for executors that need none.
        broker: Whom the launcher asks for keys, as OWNER@URL; None for whom each snapshot names.
        cache_memory: Bytes of decrypted data that a process keeps of each dataset; None for what suits the place.
        contract: Whether all of this is said by a contract that is handed in at the start, and by nothing else.
    """

    datasets: tuple[DataMount, ...]
    output: Output | None
    command: tuple[str, ...]
    keys: KeyKind = "identity"
    preload: bool = True
    enclave: Path | None = None
    broker: str | None = None
    cache_memory: int | None = None
    contract: bool = False


class Executor(Protocol):
    """Runs jobs in one kind of place. Made without arguments, once for each run."""

    notice: str
    """One line for the user before the run: above all, who can see plaintext."""

    is_enclave: bool
    """Whether datasets are attached, and results sealed, inside; the host moves ciphertext only."""

    def check(self, job: Job) -> None:
        """Make sure that this machine can run it.

        Raises:
            ExecutorError: It can't; the hint says what to install or to do.
        """

    def files(self, job: Job) -> Mapping[str, str]:
        """Return the files that the run needs in the enclave's folder: name to content."""

    def build(self, job: Job) -> Sequence[Sequence[str]]:
        """Return the command lines that build the enclave from its files, in its folder, one after another."""

    def command(self, job: Job) -> Sequence[str]:
        """Return the command line, to be run in the enclave's folder if there is one, else in the current one."""

    def environment(self, job: Job) -> Mapping[str, str]:
        """Return what is added to the environment of that command. No secrets: hosts can read it."""


def find_executor(name: str) -> Executor:
    """Return a new executor of this name, in which `-` and `_` are the same.

    Raises:
        UsageError: There is none.
        ExecutorError: It can't be loaded.
    """
    found = {entry.name.replace("_", "-"): entry for entry in entry_points(group=GROUP)}
    name = name.replace("_", "-")
    if name not in found:
        there = f"there are: {', '.join(sorted(found))}" if found else "sealfs has changed: install it again"
        raise UsageError(f"there is no executor '{name}'", there)
    try:
        executor: Executor = found[name].load()()
    except Exception as error:
        raise ExecutorError(
            f"the executor '{name}' of {found[name].value} cannot be loaded: {error}",
            "update or remove its package",
        ) from None
    return executor
