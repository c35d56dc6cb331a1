"""What executors with an enclave share: their files come from templates, their folder from `sealfs measure`.

Threading: stateless.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from sealfs.enclave.collected import Collected
from sealfs.errors import ExecutorError
from sealfs.executors.base import Job
from sealfs.executors.rendering import render


class EnclaveExecutor:
    """Base of executors with an enclave.

    Attributes:
        notice: See `Executor`.
        tools: Programs that running needs.
        needed: Files that building leaves in the enclave's folder, and running needs.
        templates: Name of a file in the enclave's folder to its template in manifests/.
    """

    notice: str
    is_enclave = True
    tools: ClassVar[Sequence[str]]
    needed: ClassVar[Sequence[str]] = ()
    templates: ClassVar[Mapping[str, str]]

    def check(self, job: Job) -> None:
        """See `Executor`."""
        folder = folder_of(job)
        for tool in self.tools:
            if shutil.which(tool) is None:
                raise ExecutorError(f"{tool} is not on PATH", "install it, or choose another --executor")
        for name in self.needed:
            if not (folder / name).exists():
                raise ExecutorError(f"{folder} has no {name}", "run 'sealfs measure' where the tools are")

    def files(self, job: Job) -> Mapping[str, str]:
        """See `Executor`."""
        collected = Collected.load(folder_of(job))
        return {name: render(source, job, collected) for name, source in self.templates.items()}

    def environment(self, job: Job) -> Mapping[str, str]:
        """See `Executor`; what the workload needs is in the measured files."""
        del job
        return {}


def folder_of(job: Job) -> Path:
    """Return the enclave's folder.

    Raises:
        ExecutorError: None was named.
    """
    if job.enclave is None:
        raise ExecutorError(
            "no enclave was named", "make one with 'sealfs measure', and name its folder: --enclave DIR"
        )
    return job.enclave
