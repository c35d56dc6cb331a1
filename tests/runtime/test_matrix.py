"""What programs and libraries say about sealed files must be what they say about plain ones."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.conftest import Sealed, seal
from runtime.library_files import make_library_files
from runtime.probes.all import CASES, NEEDS

RUN = Path(__file__).with_name("probes") / "run.py"
TESTS = RUN.parents[2]
FILES = [name for name in CASES if name not in NEEDS]
LIBRARIES = [
    name for name in CASES if NEEDS.get(name, "paddle") != "paddle" and importlib.util.find_spec(NEEDS[name])
]
FRAMEWORKS = [name for name in CASES if NEEDS.get(name) == "paddle" and importlib.util.find_spec("paddle")]
REAL_FILES = [
    name
    for name in FILES
    if name not in {"shells", "pools_by_fork", "pools_by_spawn", "pools_by_forkserver", "close_storms"}
]
PATHS = {"PYTHONPATH": f"{TESTS.parent}:{TESTS}"}
WITHOUT_SECONDS = 55  # 12 on two idle cores; pools that wait for what never comes must not hold up a whole run
Answers = dict[str, Any]


def read_answers(said: str) -> Answers:
    """Return what the cases said, whatever else was said in between."""
    found = {}
    for line in said.splitlines():
        if line.startswith('{"'):
            found |= json.loads(line)
    return found


def answers(done: subprocess.CompletedProcess[str]) -> Answers:
    assert done.returncode == 0, done.stderr[-3000:]
    return read_answers(done.stdout)


def on_plain_files(folder: Path, names: list[str]) -> Answers:
    """Run cases on plain files; none of them may fail there."""
    done = subprocess.run(
        [sys.executable, RUN, folder, *names],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | PATHS,
    )
    found = answers(done)
    assert not {name: value for name, value in found.items() if isinstance(value, str) and "Error" in value}
    return found


def on_sealed_files(sealed: Sealed, names: list[str], *options: str, **how: Any) -> Answers:
    return answers(sealed.run(RUN, "--sealed", sealed.mount, *names, options=options, env=PATHS, **how))


@pytest.fixture(scope="module")
def expected(plain: Path) -> Answers:
    return on_plain_files(plain, FILES)


@pytest.fixture(scope="module")
def served(sealed: Sealed) -> Answers:
    return on_sealed_files(sealed, FILES)


@pytest.fixture(scope="module")
def served_as_real_files(sealed: Sealed) -> Answers:
    return on_sealed_files(sealed, REAL_FILES, "--real-files")


@pytest.mark.parametrize("name", FILES)
def test_same_as_plain(name: str, expected: Answers, served: Answers) -> None:
    assert served[name] == expected[name]


@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_same_as_plain(name: str, expected: Answers, served_as_real_files: Answers) -> None:
    assert served_as_real_files[name] == expected[name]


@pytest.fixture(scope="module")
def served_without(sealed: Sealed, without: Path) -> Answers:
    return on_sealed_files(sealed, FILES, under=(without,), timeout=WITHOUT_SECONDS)


@pytest.fixture(scope="module")
def served_as_real_files_without(sealed: Sealed, without: Path) -> Answers:
    return on_sealed_files(sealed, REAL_FILES, "--real-files", under=(without,), timeout=WITHOUT_SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_same_on_a_kernel_that_lacks_what_gramine_lacks(
    name: str, expected: Answers, served_without: Answers
) -> None:
    assert served_without[name] == expected[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_FILES)
def test_real_files_on_a_kernel_that_lacks_what_gramine_lacks(
    name: str, expected: Answers, served_as_real_files_without: Answers
) -> None:
    assert served_as_real_files_without[name] == expected[name]


@pytest.fixture(scope="module")
def library_files(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    folder = tmp_path_factory.mktemp("libraries")
    make_library_files(folder / "plain")
    return seal(folder, folder / "plain")


@pytest.fixture(scope="module")
def from_libraries(library_files: Sealed) -> tuple[Answers, Answers, Answers]:
    return (
        on_plain_files(library_files.plain, LIBRARIES),
        on_sealed_files(library_files, LIBRARIES),
        on_sealed_files(library_files, LIBRARIES, "--real-files"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", LIBRARIES)
def test_libraries(name: str, from_libraries: tuple[Answers, Answers, Answers]) -> None:
    expected, served, served_as_real_files = (answer[name] for answer in from_libraries)
    assert served == expected
    assert served_as_real_files == expected


@pytest.mark.slow
def test_frameworks(tmp_path: Path) -> None:
    if not FRAMEWORKS:
        pytest.skip("no PaddlePaddle")
    plain = tmp_path / "plain"
    plain.mkdir()
    command = [sys.executable, "-m", "runtime.probes.frameworks", plain]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | PATHS, cwd=tmp_path)
    assert on_sealed_files(seal(tmp_path, plain), FRAMEWORKS) == on_plain_files(plain, FRAMEWORKS)
