"""Runs a job in Gramine: without SGX for trials (`gramine-direct`), or in an SGX enclave.

The steps are Gramine's own: gramine-manifest fills in where Gramine lies, gramine-sgx-sign hashes and signs,
gramine-direct or gramine-sgx runs. Nothing of this has been run on SGX hardware by this project.

Threading: stateless.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from sealfs.executors.base import MANIFEST, Job
from sealfs.executors.enclave import EnclaveExecutor

SIGNED = "workload.manifest.sgx"
SIGNATURE = "workload.sig"
RENDERED = "workload.manifest.template"
_MAP_COUNT = Path("/proc/sys/vm/max_map_count")
_MAPPINGS = 1_048_576  # training with two workers was run with it; at the usual 65,530 a later fork failed


class _Gramine(EnclaveExecutor):
    templates: ClassVar = {RENDERED: "gramine/paddle.manifest.template"}

    def build(self, job: Job) -> Sequence[Sequence[str]]:
        """See `Executor`."""
        del job
        return [["gramine-manifest", RENDERED, MANIFEST]]


class GramineDirect(_Gramine):
    """Gramine without SGX: the same environment, and no protection."""

    notice = "gramine-direct is NO ENCLAVE: whoever controls this machine can see the data and the results."
    tools: ClassVar[Sequence[str]] = ("gramine-direct",)
    needed: ClassVar[Sequence[str]] = (MANIFEST,)

    def __init__(self) -> None:
        if (mappings := _host_mappings()) is not None and mappings < _MAPPINGS:
            self.notice += (
                f" This machine allows a process {mappings} mappings, too few for DataLoader workers:"
                f" run 'sysctl vm.max_map_count={_MAPPINGS}' as root, or use num_workers=0."
            )

    def command(self, job: Job) -> Sequence[str]:
        """See `Executor`."""
        del job
        return ["gramine-direct", "workload"]


class GramineSgx(_Gramine):
    """Gramine in an SGX enclave."""

    notice = "SGX enclave: this host sees ciphertext, and what the script prints."
    tools: ClassVar[Sequence[str]] = ("gramine-sgx",)
    needed: ClassVar[Sequence[str]] = (SIGNED, SIGNATURE)

    def build(self, job: Job) -> Sequence[Sequence[str]]:
        """See `Executor`; the signing key is Gramine's default one, made if missing: it protects nothing else."""
        return [
            *super().build(job),
            *([] if _signing_key().exists() else [["gramine-sgx-gen-private-key"]]),
            ["gramine-sgx-sign", "--manifest", MANIFEST, "--output", SIGNED],
        ]

    def command(self, job: Job) -> Sequence[str]:
        """See `Executor`."""
        del job
        return ["gramine-sgx", "workload"]


def _signing_key() -> Path:
    """Where Gramine's tools look for the key that signs enclaves."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "gramine" / "enclave-key.pem"


def _host_mappings() -> int | None:
    """How many mappings a process may have here; None where the kernel does not say."""
    try:
        return int(_MAP_COUNT.read_text())
    except (OSError, ValueError):
        return None
