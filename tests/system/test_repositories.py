"""The training entry points of real PaddlePaddle repositories, unmodified, through `sealfs run`.

Their losses, metrics and saved weights are those of the plain run. See `repositories` for where they come from.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Sealfs
from system.repositories import REPOSITORIES, Repository, Training, numbers, weights

from sealfs.enclave.attach import LIBRARY
from sealfs.executors.launcher import LAUNCHER
from sealfs.keys import Identity, load_identity

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ATTACH = [
    pytest.param("fuse", marks=pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="no /dev/fuse")),
    pytest.param("preload", marks=pytest.mark.skipif(not LIBRARY.exists(), reason="no libsealfs.so")),
]
each = pytest.mark.parametrize("repository", REPOSITORIES, ids=lambda repository: repository.name)
preload = pytest.mark.skipif(not LIBRARY.exists(), reason="no libsealfs.so")

Plain = Callable[[Repository, int, int], tuple[list[str], dict[str, str], Path]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Plain:
    """Returns what trains on plain files, each training once: its numbers, its weights, and the data."""
    known: dict[tuple[str, int, int], tuple[list[str], dict[str, str], Path]] = {}

    def train(repository: Repository, workers: int, stages: int) -> tuple[list[str], dict[str, str], Path]:
        key = (repository.name, workers, stages)
        if key not in known:
            _ = repository.checkout
            top = tmp_path_factory.mktemp("plain")
            repository.make(top / "data")
            log = ""
            for stage in (1, 2) if stages == 2 else (0,):
                run = Training(top / "data", top / "out", top / "config", workers, stage)
                done = subprocess.run(
                    repository.command(run), env={**os.environ, **repository.environment}, cwd=top, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=600,
                )  # fmt: skip
                assert done.returncode == 0, done.stdout[-3000:]
                log += done.stdout
            known[key] = numbers(log), weights(top / "out"), top / "data"
            assert len(known[key][0]) > 5, log
            assert len(known[key][1]) > 1
        return known[key]

    return train


class Trainer:
    """Somebody who has a dataset sealed, and runs trainings on it."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.folder = folder
        self.data, self.out, self.config = folder / "data", folder / "out", folder / "config"
        self.data.mkdir()
        self.sealfs = Sealfs(folder / "home", Identity.generate())
        self.sealfs("push", source, folder / "store")

    def run(self, repository: Repository, results: Path, command: list[str], *more: object) -> str:
        """Run it, and return all that it said; its results are `results` then."""
        job = ["--data", f"{self.folder / 'store'}:{self.data}", "--out", f"{results}:{self.out}", *more]
        ended = self.sealfs("run", *job, "--", *command, env=repository.environment, cwd=self.folder, timeout=600)
        return ended.text + ended.stderr

    def pulled(self, results: Path) -> dict[str, str]:
        """Return the weights among results."""
        self.sealfs("pull", results, results.with_name(f"{results.name}-pulled"))
        return weights(results.with_name(f"{results.name}-pulled"))


@each
@pytest.mark.parametrize("attach", ATTACH)
@pytest.mark.parametrize("workers", [0, 2])
def test_losses_and_weights(
    tmp_path: Path, plain: Plain, repository: Repository, workers: int, attach: str
) -> None:
    expected, saved, source = plain(repository, workers, 1)
    trainer = Trainer(tmp_path, source)
    command = repository.command(Training(trainer.data, trainer.out, trainer.config, workers))
    log = trainer.run(repository, tmp_path / "results", command, "--attach", attach, "--out-interval", 2)
    assert numbers(log) == expected
    assert trainer.pulled(tmp_path / "results") == saved


@each
@pytest.mark.parametrize("attach", ATTACH)
def test_reading_back_what_was_written(tmp_path: Path, plain: Plain, repository: Repository, attach: str) -> None:
    """One run of two trainings, of which the second goes on from what the first has saved in memory."""
    expected, saved, source = plain(repository, 0, 2)
    trainer = Trainer(tmp_path, source)
    stages = [Training(trainer.data, trainer.out, trainer.config, stage=stage) for stage in (1, 2)]
    script = " && ".join(shlex.join(repository.command(stage)) for stage in stages)
    log = trainer.run(repository, tmp_path / "results", ["sh", "-c", script], "--attach", attach)
    assert numbers(log) == expected
    assert trainer.pulled(tmp_path / "results") == saved


@each
@preload
def test_going_on_from_sealed_results(tmp_path: Path, plain: Plain, repository: Repository) -> None:
    """Of another run: they are a dataset as any other, believed by the signer that the run has printed."""
    expected, saved, source = plain(repository, 0, 2)
    trainer = Trainer(tmp_path, source)
    first, second, start = tmp_path / "first", tmp_path / "second", tmp_path / "start"
    start.mkdir()
    command = repository.command(Training(trainer.data, trainer.out, trainer.config, stage=1))
    log = trainer.run(repository, first, command)
    signer = log.split("signed by ")[1].split()[0]
    command = repository.command(Training(trainer.data, trainer.out, trainer.config, stage=2, start=start))
    log += trainer.run(repository, second, command, "--data", f"{first}:{start}", "--signer", f"{start}={signer}")
    assert numbers(log) == expected
    last = trainer.pulled(second)
    assert {path: saved[path] for path in last} == last
    assert last


def needs(repository: Repository, environment: dict[str, str], statements: str) -> None:
    """Skip the test if the repository's interpreter cannot run what needs sealfs, or what sealfs requires."""
    command = [repository.python, "-c", statements]
    if subprocess.run(command, env=environment, capture_output=True, check=False).returncode:
        pytest.skip(f"{repository.python} has not what sealfs requires: {statements}")


@each
@preload
def test_all_in_one_process_as_in_an_enclave(tmp_path: Path, plain: Plain, repository: Repository) -> None:
    """The manifest's own command, without the enclave: data, script and sealing in the launcher's interpreter."""
    expected, saved, source = plain(repository, 2, 1)
    environment = {**os.environ, **repository.environment, "XDG_STATE_HOME": str(tmp_path / "state")}
    environment["PYTHONPATH"] += f":{Path(__file__).parents[2]}"
    needs(repository, environment, f"import {LAUNCHER}, sealfs.enclave.results")
    trainer = Trainer(tmp_path, source)
    identity = load_identity(trainer.sealfs.identity_path)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory, trainer.sealfs.identity_path.open() as stdin:
        out = Path(memory) / "out"
        command = [
            *(repository.python, "-m", LAUNCHER, "--identity-fd", "0", "--signer", str(identity.signer)),
            *("--data", f"{tmp_path / 'store'}@1:{trainer.data}", "--out", f"{tmp_path / 'results'}:{out}"),
            *("--out-recipient", str(identity.recipient), "--out-interval", "2", "--"),
            *repository.script(Training(trainer.data, out, trainer.config, workers=2)),
        ]
        ended = subprocess.run(
            command, stdin=stdin, env=environment, cwd=tmp_path, text=True, check=False, timeout=600,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-3000:]
    assert numbers(ended.stdout) == expected
    assert trainer.pulled(tmp_path / "results") == saved


@each
@preload
@pytest.mark.skipif(shutil.which("gramine-direct") is None, reason="no gramine-direct on PATH")
def test_under_gramine_direct(tmp_path: Path, plain: Plain, repository: Repository) -> None:
    """Measured on the plain data, which then is gone, and run on the sealed data: without workers, as in SGX."""
    expected, saved, source = plain(repository, 0, 1)
    trainer = Trainer(tmp_path, source)
    environment = {**trainer.sealfs.env, **repository.environment}
    environment["PYTHONPATH"] += f":{Path(__file__).parents[2]}"
    found = "from sealfs.executors.base import find_executor; find_executor('gramine-direct')"
    needs(repository, environment, f"import jinja2; {found}")
    identity = load_identity(trainer.sealfs.identity_path)
    job = [
        *("--executor", "gramine-direct", "--enclave", tmp_path / "enclave"),
        *("--data", f"{tmp_path / 'store'}:{trainer.data}", "--signer", str(identity.signer)),
        *("--out", f"{tmp_path / 'results'}:{trainer.out}", "--out-recipient", str(identity.recipient)),
    ]
    command = ["--", *repository.command(Training(trainer.data, trainer.out, trainer.config))]

    def sealfs(verb: str, *options: object) -> str:
        """The verb in the repository's own interpreter: it is the one that runs in the enclave."""
        words = [repository.python, "-m", "sealfs", verb, *job, *options, *command]
        ended = subprocess.run(
            list(map(str, words)), env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL, text=True, check=False,
            timeout=600, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout[-5000:]
        return ended.stdout

    shutil.copytree(source, trainer.data, dirs_exist_ok=True)
    sealfs("measure", "--threads", 1)
    shutil.rmtree(trainer.data)
    log = sealfs("run")
    assert numbers(log) == expected
    assert trainer.pulled(tmp_path / "results") == saved
