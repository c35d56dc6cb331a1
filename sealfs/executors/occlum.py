"""Runs a job in Occlum. Its files and commands are generated and checked; this project has not run them.

Threading: stateless.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from sealfs.executors.base import Job
from sealfs.executors.enclave import EnclaveExecutor


class Occlum(EnclaveExecutor):
    """An Occlum instance in the enclave's folder."""

    notice = "Occlum: generated, never run by this project."
    tools: ClassVar[Sequence[str]] = ("occlum",)
    needed: ClassVar[Sequence[str]] = ("build",)
    templates: ClassVar = {
        "Occlum.json": "occlum/Occlum.json.template",
        "bom.yaml": "occlum/bom.yaml.template",
        "sealfs-run": "occlum/sealfs-run.template",
    }

    def build(self, job: Job) -> Sequence[Sequence[str]]:
        """See `Executor`."""
        del job
        return [
            ["chmod", "755", "sealfs-run"],
            ["copy_bom", "-f", "bom.yaml", "--root", "image", "--include-dir", "/opt/occlum/etc/template"],
            ["occlum", "build"],
        ]

    def command(self, job: Job) -> Sequence[str]:
        """See `Executor`."""
        del job
        return ["occlum", "run", "/bin/sealfs-run"]
