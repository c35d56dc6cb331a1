"""How the launcher is called that attaches datasets in the process: the one place that knows its command line.

Threading: stateless.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from sealfs.executors.base import Job

LAUNCHER = "sealfs.enclave.launch"


def launcher_command(job: Job) -> Sequence[str]:
    """Return the command line that runs a job natively, with its data attached in the process."""
    options: list[str] = []
    for data in job.datasets:
        options += ["--data", f"{data.uri}:{data.path}"]
    if job.identity is not None:
        options += ["--identity", str(job.identity)]
    return [sys.executable, "-m", LAUNCHER, *options, "--", *job.command]
