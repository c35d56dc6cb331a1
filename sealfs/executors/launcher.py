"""How the launcher is called that attaches datasets in the process: the one place that writes its command line.

Threading: stateless.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sealfs.enclave.launch import is_script
from sealfs.errors import ExecutorError
from sealfs.executors.base import Job
from sealfs.opening import CacheSettings
from sealfs.placement import Output

if TYPE_CHECKING:
    from sealfs.enclave.collected import Collected

LAUNCHER = "sealfs.enclave.launch"
CONTRACTS = "sealfs.tasks.inside"
SECRETS_FD = 197  # far from what programs use; shells that know only one digit are not asked
_PYTHON = re.compile(r"(.*/)?python(3(\.\d+)?)?")


def native_command(job: Job) -> Sequence[str]:
    """Return the command line that runs a job natively; the keys come by descriptor `SECRETS_FD`."""
    if job.cache_memory is None:
        job = replace(job, cache_memory=CacheSettings().memory_size)  # as a mount; enclaves have less to give
    return [sys.executable, "-m", LAUNCHER, *_data(job, SECRETS_FD), "--", *job.command]


def enclave_command(job: Job, collected: Collected) -> Sequence[str]:
    """Return the command line inside of an enclave: data from /ciphertext, results to /results, keys by stdin.

    Raises:
        ExecutorError: Results of something else than a Python script: whoever writes them has to seal them.
    """
    if job.contract:
        return [collected.python, "-m", CONTRACTS, "--from", "/ciphertext", "/results", *runner_words(job, 0)]
    inside = tuple(replace(data, address=f"file:///ciphertext/{n}") for n, data in enumerate(job.datasets))
    command = list(job.command)
    if len(command) > 1 and _PYTHON.fullmatch(command[0]) and command[1].endswith(".py"):
        del command[0]  # the launcher's own interpreter runs it
    options = _data(replace(job, datasets=inside), 0)
    if job.output is not None:
        if not is_script(command):
            raise ExecutorError(
                f"in an enclave '{command[0]}' can have no results", "only a Python script's: python SCRIPT.py ..."
            )
        options += _out(replace(job.output, address="file:///results"))
    return [collected.python, "-m", LAUNCHER, *options, "--", *command]


def rehearsal_command(folder: Path, *, by_evidence: bool, contract: bool = False) -> Sequence[str]:
    """Return a command that loads, in an empty folder of its own, all that the launcher needs in an enclave.

    Args:
        folder: Empty.
        by_evidence: Whether the launcher has its keys released by a broker.
        contract: Whether it carries out contracts.
    """
    also = ["--by-evidence"] if by_evidence or contract else []
    also += [CONTRACTS, "Crypto.Protocol.SecretSharing"] if contract else []
    return [sys.executable, "-m", "sealfs.enclave.rehearsal", str(folder), *also]


def runner_words(job: Job, descriptor: int) -> list[str]:
    """Return what tells who carries out a contract that a runner vouches for it, and which descriptor says so."""
    return ["--runner-fd", str(descriptor)] if job.keys == "runner" else []


def _data(job: Job, descriptor: int) -> list[str]:
    if not job.datasets:
        return []
    if job.keys == "attested":
        words = ["--attested"]
    else:
        options = {"identity": "--identity-fd", "test-keys": "--keys-fd", "runner": "--runner-fd"}
        words = [options[job.keys], str(descriptor)]
    if job.broker is not None:
        words += ["--broker", job.broker]
    if job.cache_memory is not None:
        words += ["--cache-memory", str(job.cache_memory)]
    for data in job.datasets:
        words += ["--data", str(data)]
        if data.signer is not None:
            words += ["--signer", f"{data.path}={data.signer}"]
    return words


def _out(output: Output) -> list[str]:
    words = ["--out", f"{output.address}:{output.path}"]
    for recipient in output.recipients:
        words += ["--out-recipient", recipient]
    if output.log is not None:
        words += ["--out-log", output.log]
    return [*words, "--out-interval", f"{output.interval:g}"]
