"""Renders the files in manifests/ for a job. The same inputs give the same bytes.

Threading: stateless.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sealfs
from sealfs.enclave.attach import LIBRARY
from sealfs.enclave.collected import Collected
from sealfs.enclave.compiled import copy_of
from sealfs.errors import ExecutorError
from sealfs.executors.base import Job
from sealfs.executors.launcher import enclave_command

_PLACES = (Path(sealfs.__file__).parent.parent / "manifests", Path(sys.prefix) / "share" / "sealfs" / "manifests")


def template(name: str) -> str:
    """Return the text of a file in manifests/, in a checkout or as installed.

    Raises:
        ExecutorError: It is not there.
    """
    for place in _PLACES:
        if (place / name).is_file():
            return (place / name).read_text()
    raise ExecutorError(f"the template {name} is missing", "install sealfs again")


def render(name: str, job: Job, collected: Collected) -> str:
    """Return a template filled in.

    Raises:
        ExecutorError: jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: PLC0415 - optional
    except ImportError:
        raise ExecutorError("jinja2 is not installed", "pip install 'sealfs[enclave]'") from None
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)  # noqa: S701 - TOML
    environment.filters["toml"] = _quoted
    environment.filters["shell"] = shlex.join
    environment.filters["occlum_size"] = _occlum_size
    return environment.from_string(template(name)).render(**variables(job, collected))


def variables(job: Job, collected: Collected) -> dict[str, Any]:
    """Return what templates may use."""
    copies = {file.path for file in collected.compiled}
    return {
        "argv": list(enclave_command(job, collected)),
        "python": collected.python,
        "python_path": collected.python_path,
        "library_path": collected.library_path,
        "preload": str(LIBRARY),
        "start_dir": collected.start_dir,
        "threads": collected.threads,
        "enclave_size": collected.enclave_size,
        "trusted": collected.files,
        "compiled": collected.compiled,
        "replaced": {file.path for file in collected.files if copy_of(file.path) in copies},
        "folders": folders(collected),
        "datasets": len(job.datasets),
        "in_memory": [data.path for data in job.datasets] + ([job.output.path] if job.output else []),
        "results": job.output is not None,
        "contract": job.contract,
        "asks_brokers": job.contract or job.keys in ("attested", "runner"),
        # Gramine's own, filled in by gramine-manifest on the machine that has Gramine
        "gramine": {"libos": "{{ gramine.libos }}", "runtimedir": lambda: "{{ gramine.runtimedir() }}"},
    }


def folders(collected: Collected) -> Sequence[str]:
    """Return what has to be visible for the files to be found: few folders, not their every parent."""
    needed = {_visible(file.path) for file in collected.files} | {_visible(f"{collected.start_dir}/.")}
    found: list[str] = []
    for folder in sorted(needed):
        if not any(folder.startswith(f"{other}/") for other in found):
            found.append(folder)
    return found


def _visible(path: str) -> str:
    """Return the folder two levels below the root that holds a file; the file itself if it lies higher."""
    parts = path.split("/")
    return "/".join(parts[:3]) if len(parts) > 3 else path


def _quoted(value: str | list[str]) -> str:
    """Return a string (or a list of them) as JSON, TOML, YAML and Python all read it."""
    return json.dumps(value)


def _occlum_size(size: str) -> str:
    return f"{size}B"
