"""The matrix of calls under gramine-direct, wherever it is on PATH: sealed files say what plain ones say here.

What differs is listed with the reason. Most of it differs for plain files in Gramine, too, which is tried without
sealfs. An entry that has no reason any more fails.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import Sealfs
from runtime.library_files import make_library_files
from runtime.test_matrix import FILES, FRAMEWORKS, LIBRARIES, PATHS, RUN, Answers, on_plain_files, read_answers
from runtime.trees import make_tree

from sealfs.executors.gramine import MANIFEST, RENDERED
from sealfs.keys import Identity

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("gramine-direct") is None, reason="no gramine-direct on PATH"),
]


OFFSETS = "parent and child of a fork do not share a descriptor's offset"
MEMORY = "a child does not see its parent's files in memory"
NO_SYMLINK = "there is no symlink(2)"
GRAMINE = {
    "forked_small": OFFSETS,
    "forked_large": OFFSETS,
    "offset_shared_with_child": OFFSETS,
    "spawned_to_files": MEMORY,
    "shells: cp -r {0}/bin $T/copy && sha256sum < $T/copy/large.bin": MEMORY,
    "shells: bash -c 'cat <(cat {0}/text)' | head -1": "there is no /dev/fd",
    "shutil_copy_small": "copystat ends with ENOSYS: there is no utimensat(2)",
    "shutil_copy_large": "copystat ends with ENOSYS: there is no utimensat(2)",
    "outside": "the host's files have no time",
    "host_link": NO_SYMLINK,
}
"""Sealed files are as plain ones are in Gramine, and those are not as on Linux: the reason, by case."""

APART = {
    "executed_by_spawn": (
        "posix_spawn of a sealed program is refused; fork and exec run it",
        "OSError: [Errno 38]",
    ),
    "flags_small": ("F_GETFL has no O_LARGEFILE; of plain files it has O_CLOEXEC, too", "[2048, 1, 0]"),
    "flags_large": ("F_GETFL has no O_LARGEFILE; of plain files it has O_CLOEXEC, too", "[2048, 1, 0]"),
    "pools_by_forkserver": (
        "no process finds another's sockets; on plain files no pool works, as there is no semaphore",
        "FileNotFoundError: [Errno 2]",
    ),
    "read_only_by_link": (NO_SYMLINK, "OSError: [Errno 38]"),
}
"""Sealed files are neither as on Linux nor as plain ones in Gramine: the reason, and how the answer begins."""


@dataclass(frozen=True)
class Matrix:
    """Cases on a plain folder, and on the same sealed in Gramine."""

    folder: Path
    cases: list[str]

    @property
    def plain(self) -> Path:
        return self.folder / "plain"

    @property
    def enclave(self) -> Path:
        return self.folder / "enclave"

    def natively(self) -> Answers:
        return by_command(on_plain_files(self.plain, self.cases))

    def sealed(self) -> Answers:
        """Seal the folder, measure the cases on plain files, and run them on sealed ones in Gramine."""
        identity = Identity.generate()
        sealfs = Sealfs(self.folder / "home", identity, **PATHS)
        sealfs("push", self.plain, self.folder / "store")
        data = self.folder / "data"
        job = ["--executor", "gramine-direct", "--enclave", self.enclave]
        job += ["--data", f"{self.folder / 'store'}:{data}", "--signer", identity.signer]
        trial = ["env", "PATH=/usr/bin:/bin", sys.executable, RUN, self.plain, *self.cases]  # as in the manifest
        words = ["--exclude", f"{self.plain}/*", "--trial", shlex.join(map(str, trial))]
        command = ["--", sys.executable, RUN, "--sealed", data, *self.cases]
        sealfs("measure", *job, *words, *command, timeout=900)
        return by_command(read_answers(sealfs("run", *job, *command, code=None, timeout=900).text))

    def in_gramine(self, cases: list[str]) -> Answers:
        """Run cases on plain files in Gramine, without anything of sealfs; after `sealed`."""
        text = (self.enclave / RENDERED).read_text()
        argv = "".join(f'  "{word}",\n' for word in (sys.executable, RUN, self.plain, *cases))
        for pattern, replacement in (
            (r"(?s)(loader\.argv = \[\n).*?(\n\])", rf"\1{argv}\2"),
            (r"loader\.env\.LD_PRELOAD = .*\n", ""),
            (r".*file:ciphertext/0\".*\n", f'  {{ path = "{self.plain}", uri = "file:{self.plain}" }},\n'),
            (r".*file:ciphertext/0/\".*\n", f'  "file:{self.plain}/",\n'),
        ):
            text, count = re.subn(pattern, replacement, text)
            assert count, pattern
        (self.enclave / f"plain-{RENDERED}").write_text(text)
        tool = ["gramine-manifest", f"plain-{RENDERED}", f"plain-{MANIFEST}"]
        subprocess.run(tool, cwd=self.enclave, check=True)
        run = ["gramine-direct", "plain-workload"]
        done = subprocess.run(
            run, cwd=self.enclave, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=900, check=False
        )
        return by_command(read_answers(done.stdout.decode(errors="replace")))


def by_command(answers: Answers) -> Answers:
    """Return the answers, each command of a shell as a case of its own, without names of temporary files."""
    known = json.loads(re.sub(r"/tmp/(tmp|pymp-)\w{8}", "/tmp/NAME", json.dumps(answers)))
    shells = known.pop("shells", [])
    return known | {f"shells: {command}": answer for command, *answer in shells}


@dataclass(frozen=True)
class Said:
    """What the cases say.

    Attributes:
        natively: On plain files.
        sealed: On sealed files in Gramine.
        in_gramine: On plain files in Gramine, where that differs from `natively`, or `sealed` does.
    """

    natively: Answers
    sealed: Answers
    in_gramine: Answers


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Said:
    matrix = Matrix(tmp_path_factory.mktemp("files"), FILES)
    make_tree(matrix.plain)
    natively, sealed = matrix.natively(), matrix.sealed()
    other = {name for name in natively if sealed.get(name) != natively[name]} | GRAMINE.keys() | APART.keys()
    return Said(natively, sealed, matrix.in_gramine(sorted({name.split(":")[0] for name in other})))


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Said:
    matrix = Matrix(tmp_path_factory.mktemp("libraries"), [*LIBRARIES, *FRAMEWORKS])
    make_library_files(matrix.plain)
    if FRAMEWORKS:
        command = [sys.executable, "-m", "runtime.probes.frameworks", matrix.plain]
        subprocess.run(command, check=True, capture_output=True, env=os.environ | PATHS, cwd=matrix.folder)
    return Said(matrix.natively(), matrix.sealed(), {})


@pytest.mark.parametrize("case", FILES)
def test_files(case: str, files: Said) -> None:
    names = [name for name in files.natively if name.split(":")[0] == case]
    assert names
    for name in names:
        natively, sealed = files.natively[name], files.sealed.get(name, "nothing")
        if name in GRAMINE:
            assert sealed != natively, f"{name} is as on Linux now: strike it off the list"
            assert sealed == files.in_gramine[name], GRAMINE[name]
        elif name in APART:
            reason, beginning = APART[name]
            assert natively != sealed != files.in_gramine[name], (
                f"{name} is as it should be: strike it off the list"
            )
            assert str(sealed).startswith(beginning), reason
        else:
            assert sealed == natively, f"{name}; on plain files in Gramine: {files.in_gramine.get(name)}"


def test_all_on_the_lists_are_cases(files: Said) -> None:
    assert GRAMINE.keys() | APART.keys() <= files.natively.keys()


def test_libraries(libraries: Said) -> None:
    assert libraries.sealed == libraries.natively
