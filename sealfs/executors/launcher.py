"""How the launcher is called that attaches datasets in the process: the one place that knows its command line.

Threading: stateless.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import sealfs
from sealfs.errors import ExecutorError
from sealfs.executors.base import DataMount, Job

if TYPE_CHECKING:
    from sealfs.enclave.collected import Collected

LAUNCHER = "sealfs.enclave.launch"
IDENTITY_FD = 197  # far from what programs use; shells that know only one digit are not asked
_RESULTS = Path(sealfs.__file__).parent / "enclave" / "results.py"
_PYTHON = re.compile(r"(.*/)?python(3(\.\d+)?)?")


def native_command(job: Job) -> Sequence[str]:
    """Return the command line that runs a job natively; the identity comes by descriptor `IDENTITY_FD`."""
    signer = ["--signer", job.signer] if job.signer else []
    return [
        *(sys.executable, "-m", LAUNCHER, "--identity-fd", str(IDENTITY_FD)),
        *signer,
        *_data(job.datasets),
        "--",
        *job.command,
    ]


def enclave_command(job: Job, collected: Collected) -> Sequence[str]:
    """Return the command line inside of an enclave: data from /ciphertext, results to /results, keys by stdin.

    Raises:
        ExecutorError: Results of something else than a Python script: whoever writes them has to seal them.
    """
    inside = [DataMount(f"file:///ciphertext/{n}", None, data.path) for n, data in enumerate(job.datasets)]
    command = list(job.command)
    if len(command) > 1 and _PYTHON.fullmatch(command[0]) and command[1].endswith(".py"):
        del command[0]  # the launcher's own interpreter runs it
    if job.output is not None:
        if not command[0].endswith(".py"):
            raise ExecutorError(
                f"in an enclave '{command[0]}' can have no results", "only a Python script's: python SCRIPT.py ..."
            )
        recipients = [word for recipient in job.output.recipients for word in ("--out-recipient", recipient)]
        out = f"file:///results:{job.output.path}"
        interval = f"{job.output.interval:g}"
        command = [str(_RESULTS), "--out", out, *recipients, "--out-interval", interval, "--", *command]
    signer = ["--signer", collected.signer] if collected.signer else []
    return [collected.python, "-m", LAUNCHER, "--identity-fd", "0", *signer, *_data(inside), "--", *command]


def rehearsal_command(folder: Path) -> Sequence[str]:
    """Return a command that loads, in an empty folder of its own, all that the launcher needs in an enclave."""
    return [sys.executable, "-m", "sealfs.enclave.rehearsal", str(folder)]


def _data(datasets: Sequence[DataMount]) -> list[str]:
    return [word for data in datasets for word in ("--data", f"{data.uri}:{data.path}")]
