"""Runs a job in Gramine: without SGX for trials (`gramine-direct`), or in an SGX enclave.

The steps are Gramine's own: gramine-manifest fills in where Gramine lies, gramine-sgx-sign hashes and signs,
gramine-direct or gramine-sgx runs. Nothing of this has been run on SGX hardware by this project.

Threading: stateless.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from sealfs.executors.base import Job
from sealfs.executors.enclave import EnclaveExecutor

MANIFEST = "workload.manifest"
SIGNED = "workload.manifest.sgx"
SIGNATURE = "workload.sig"
RENDERED = "workload.manifest.template"


class GramineDirect(EnclaveExecutor):
    """Gramine without SGX: the same environment, and no protection."""

    notice = "gramine-direct is NO ENCLAVE: whoever controls this machine can see the data and the results."
    tools: ClassVar[Sequence[str]] = ("gramine-direct",)
    needed: ClassVar[Sequence[str]] = (MANIFEST,)
    templates: ClassVar = {RENDERED: "gramine/paddle.manifest.template"}

    def build(self, job: Job) -> Sequence[Sequence[str]]:
        """See `Executor`."""
        del job
        return [["gramine-manifest", RENDERED, MANIFEST]]

    def command(self, job: Job) -> Sequence[str]:
        """See `Executor`."""
        del job
        return ["gramine-direct", "workload"]


class GramineSgx(GramineDirect):
    """Gramine in an SGX enclave."""

    notice = "SGX enclave: this host sees ciphertext, and what the script prints."
    tools: ClassVar[Sequence[str]] = ("gramine-sgx",)
    needed: ClassVar[Sequence[str]] = (SIGNED, SIGNATURE)

    def build(self, job: Job) -> Sequence[Sequence[str]]:
        """See `Executor`; the signing key is Gramine's default one, which signs and protects nothing else."""
        return [
            *super().build(job),
            ["gramine-sgx-sign", "--manifest", MANIFEST, "--output", SIGNED],
        ]

    def command(self, job: Job) -> Sequence[str]:
        """See `Executor`."""
        del job
        return ["gramine-sgx", "workload"]
