"""Runs a job on this machine as it is: for development, and where the whole machine is trusted (TDX, SEV-SNP).

Threading: stateless.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from sealfs.enclave.attach import LIBRARY
from sealfs.errors import ExecutorError
from sealfs.executors.base import Job
from sealfs.executors.launcher import LAUNCHER, native_command


class Native:
    """No enclave."""

    notice = "NO ENCLAVE: whoever controls this machine can see the data and the results in plaintext."
    is_enclave = False

    def check(self, job: Job) -> None:
        """See `Executor`."""
        if not job.preload:
            return
        if find_spec(LAUNCHER) is None or not LIBRARY.exists():
            raise ExecutorError(
                f"the in-process reader is not there ({LIBRARY.name})",
                "install sealfs where there is a C compiler, or mount the data instead: --attach fuse",
            )

    def files(self, job: Job) -> Mapping[str, str]:
        """See `Executor`; none are needed."""
        del job
        return {}

    def build(self, job: Job) -> Sequence[Sequence[str]]:
        """See `Executor`; there is nothing to build."""
        del job
        return []

    def command(self, job: Job) -> Sequence[str]:
        """See `Executor`."""
        return native_command(job) if job.preload else job.command

    def environment(self, job: Job) -> Mapping[str, str]:
        """See `Executor`; the launcher sets what the workload needs."""
        del job
        return {}
