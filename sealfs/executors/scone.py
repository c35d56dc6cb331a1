"""Runs a job in SCONE. Its session and commands are generated and checked; this project has not run them.

Threading: stateless.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import ClassVar

from sealfs.errors import ExecutorError
from sealfs.executors.base import Job
from sealfs.executors.enclave import EnclaveExecutor, folder_of

_IMAGE = "SEALFS_SCONE_IMAGE"


class Scone(EnclaveExecutor):
    """A container whose interpreter was built with SCONE, configured by an attested session."""

    notice = "SCONE: generated, never run by this project."
    tools: ClassVar[Sequence[str]] = ("docker",)
    templates: ClassVar = {"session.yaml": "scone/session.yaml.template"}

    def check(self, job: Job) -> None:
        """See `Executor`."""
        super().check(job)
        if job.output is not None:
            raise ExecutorError("SCONE has no folder in enclave memory for results", "leave out --out")
        for name in (_IMAGE, "SCONE_CAS_ADDR"):
            if not os.environ.get(name):
                raise ExecutorError(f"{name} is not set", "name the image, and the CAS that holds the session")

    def build(self, job: Job) -> Sequence[Sequence[str]]:
        """See `Executor`."""
        del job
        return [["scone", "session", "create", "--use-env", "session.yaml"]]

    def command(self, job: Job) -> Sequence[str]:
        """See `Executor`."""
        folder = folder_of(job) / "ciphertext"
        mounts = [
            word for n in range(len(job.datasets)) for word in ("-v", f"{folder / str(n)}:/ciphertext/{n}:ro")
        ]
        return [
            *("docker", "run", "--rm", "-i", "--network", "host"),
            *("--device", "/dev/sgx_enclave", "--device", "/dev/sgx_provision"),
            *mounts,
            *("-e", "SCONE_CAS_ADDR", "-e", "SCONE_CONFIG_ID=sealfs-training/training"),
            os.environ.get(_IMAGE, f"${_IMAGE}"),
        ]
