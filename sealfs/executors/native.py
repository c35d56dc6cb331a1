"""Runs a job on this machine as it is: for development, and where the whole machine is trusted (TDX, SEV-SNP).

For contracts it can be measured, too: the manifest is a list of what is loaded, which nothing enforces. A runner
that signs for it (L2) has compared the files once, before it started.

Threading: stateless.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

from sealfs.enclave.attach import LIBRARY
from sealfs.enclave.collected import Collected
from sealfs.errors import ExecutorError
from sealfs.executors.base import MANIFEST, Job
from sealfs.executors.launcher import CONTRACTS, LAUNCHER, native_command


class Native:
    """No enclave."""

    notice = "NO ENCLAVE: whoever controls this machine can see the data and the results in plaintext."
    is_enclave = False

    def check(self, job: Job) -> None:
        """See `Executor`."""
        if (
            job.contract
            and job.enclave is not None
            and (changed := Collected.load(job.enclave).changed(job.enclave))
        ):
            raise ExecutorError(
                f"{len(changed)} files differ from what was measured, {changed[0]} for one",
                "measure again if that is meant to be; the owners then have to agree to the new measurement",
            )
        if not job.preload:
            return
        if find_spec(LAUNCHER) is None or not LIBRARY.exists():
            raise ExecutorError(
                f"the in-process reader is not there ({LIBRARY.name})",
                "install sealfs where there is a C compiler, or mount the data instead: --attach fuse",
            )

    def files(self, job: Job) -> Mapping[str, str]:
        """See `Executor`; none are needed but what a runner signs for."""
        if not job.contract or job.enclave is None:
            return {}
        collected = Collected.load(job.enclave)
        manifest = {
            "format": "sealfs-native-1",
            "argv": [collected.python, "-m", CONTRACTS],
            "files": {file.path: file.sha256 for file in collected.files},
        }
        return {MANIFEST: json.dumps(manifest, indent=1) + "\n"}

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
