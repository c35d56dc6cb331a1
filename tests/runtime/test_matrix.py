"""What libraries say about sealed files must be what they say about plain ones."""

# ruff: noqa: E501 - tables and pieces of programs
from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.conftest import Sealed
from runtime.probe import CASES

PROBE = Path(__file__).with_name("probe.py")
NEEDS = {"opencv": "cv2", "pandas": "pandas", "pyarrow": "pyarrow", "hdf5": "h5py", "lmdb": "lmdb", "safetensors": "safetensors",
         "tifffile": "tifffile"}  # fmt: skip
AVAILABLE = [name for name in CASES if importlib.util.find_spec(NEEDS.get(name, "os")) is not None]
REAL_FILES = [name for name in AVAILABLE if name not in {"shells", "pools", "close_storms"}]


def answers(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def expected(plain: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": str(PROBE.parents[2])}
    command = [sys.executable, PROBE, plain, *AVAILABLE]
    return answers(subprocess.run(command, capture_output=True, text=True, check=False, env=environment))


@pytest.fixture(scope="module")
def served(sealed: Sealed) -> dict[str, Any]:
    return answers(sealed.run(PROBE, sealed.mount, *AVAILABLE))


@pytest.fixture(scope="module")
def served_as_real_files(sealed: Sealed) -> dict[str, Any]:
    return answers(sealed.run(PROBE, sealed.mount, *REAL_FILES, options=("--real-files",)))


@pytest.fixture(scope="module")
def served_without(sealed: Sealed, without: Path) -> dict[str, Any]:
    return answers(sealed.run(PROBE, sealed.mount, *AVAILABLE, under=(without,)))


@pytest.fixture(scope="module")
def served_as_real_files_without(sealed: Sealed, without: Path) -> dict[str, Any]:
    return answers(sealed.run(PROBE, sealed.mount, *REAL_FILES, options=("--real-files",), under=(without,)))


@pytest.mark.parametrize("name", AVAILABLE)
def test_same_as_plain(name: str, expected: dict[str, Any], served: dict[str, Any]) -> None:
    assert served[name] == expected[name]


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_same_as_plain(
    name: str, expected: dict[str, Any], served_as_real_files: dict[str, Any]
) -> None:
    assert served_as_real_files[name] == expected[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", AVAILABLE)
def test_same_on_a_kernel_that_lacks_what_gramine_lacks(
    name: str, expected: dict[str, Any], served_without: dict[str, Any]
) -> None:
    assert served_without[name] == expected[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_on_a_kernel_that_lacks_what_gramine_lacks(
    name: str, expected: dict[str, Any], served_as_real_files_without: dict[str, Any]
) -> None:
    assert served_as_real_files_without[name] == expected[name]


def test_no_case_fails_on_plain_files(expected: dict[str, Any]) -> None:
    failed = {name: value for name, value in expected.items() if isinstance(value, str) and "Error" in value}
    assert not failed
