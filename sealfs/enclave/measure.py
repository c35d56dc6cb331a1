"""Makes an enclave's folder: what is loaded, the files made from it, and, where the tools are, its measurement.

Threading: one thread.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sealfs.enclave.lint import Finding, lint
from sealfs.errors import ExecutorError, LocalIOError
from sealfs.executors.base import MANIFEST, Executor, Job
from sealfs.executors.enclave import folder_of
from sealfs.executors.gramine import RENDERED, SIGNATURE


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of it.

    Attributes:
        files: Names of the files written to the folder.
        findings: About the manifest.
        commands: What builds the enclave from the files.
        missing: The first tool that is not there, so that nothing was built; None if all ran.
        mrenclave: The measurement, in hex; None if nothing was signed.
        manifest: What a rehearsal has instead: the SHA-256 of its manifest, in hex; None if there is none.
    """

    files: tuple[str, ...]
    findings: tuple[Finding, ...]
    commands: tuple[tuple[str, ...], ...]
    missing: str | None
    mrenclave: str | None
    manifest: str | None


def measure(job: Job, executor: Executor) -> Measured:
    """Write an enclave's files, and build it if this machine has the tools.

    Args:
        job: What will run; its folder holds what was collected.
        executor: Where it will run.

    Raises:
        ExecutorError: A tool failed.
        LocalIOError: The folder can't be written to.
    """
    folder = folder_of(job)
    files = executor.files(job)
    for name, content in files.items():
        try:
            (folder / name).write_text(content)
        except OSError as error:
            raise LocalIOError(f"cannot write {folder / name}: {error.strerror}") from None
    findings = lint(files[RENDERED]) if RENDERED in files else []
    commands = tuple(tuple(command) for command in executor.build(job))
    missing = next((command[0] for command in commands if shutil.which(command[0]) is None), None)
    mrenclave = None
    if missing is None:
        for command in commands:
            _run(command, folder)
        mrenclave = _mrenclave(folder)
    manifest = manifest_digest(folder) if missing is None and (folder / MANIFEST).exists() else None
    return Measured(tuple(files), tuple(findings), commands, missing, mrenclave, manifest)


def manifest_digest(folder: Path) -> str:
    """Return what a rehearsal has for a measurement: the SHA-256 of its manifest, in hex.

    Raises:
        ExecutorError: There is none.
    """
    try:
        return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    except OSError as error:
        raise ExecutorError(f"cannot read {folder / MANIFEST}: {error.strerror}", "run 'sealfs measure'") from None


def _run(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise ExecutorError(f"{command[0]} failed: {last[0]}", f"run it in {folder} to see all of it")
    return done.stdout


def _mrenclave(folder: Path) -> str | None:
    """Return what was signed, as the signature has it."""
    if not (folder / SIGNATURE).exists():
        return None
    view = _run(["gramine-sgx-sigstruct-view", "--output-format", "json", SIGNATURE], folder)
    try:
        value = json.loads(view)["mr_enclave"]
        if len(bytes.fromhex(value)) != 32:
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise ExecutorError(f"{SIGNATURE} has no measurement", "sign again") from None
    return str(value)
