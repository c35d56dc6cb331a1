"""The operator's side of a run: brings ciphertext, starts what is measured, and takes its sealed results away.

Nothing here is trusted by anybody else: it has no key, sees no plaintext beyond what the executor gives away, and
what it says of the run is signed as its word only.

Threading: a run belongs to the main thread, where signals arrive.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

from sealfs.ciphertext import fetch, how_to_open
from sealfs.contracts.approval import Action, ResultAt
from sealfs.contracts.contract import Contract
from sealfs.contracts.files import change_task, load_task
from sealfs.contracts.lock import MAX_SIZE as MAX_LOCK
from sealfs.contracts.provenance import MAX_SIZE as MAX_PROVENANCE
from sealfs.contracts.provenance import Provenance
from sealfs.contracts.task import Task
from sealfs.contracts.terms import SealedData
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.objects import HEAD
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.attach import INTEGRITY_EXIT
from sealfs.enclave.keysource import RunnerSecret
from sealfs.enclave.memory import remove_left_behind
from sealfs.errors import (
    ContractError,
    IntegrityError,
    ObjectNotFoundError,
    SealfsError,
    StoreError,
    TrustError,
    UsageError,
)
from sealfs.executors.base import Executor, Job, KeyKind, find_executor
from sealfs.executors.launcher import CONTRACTS, runner_words
from sealfs.keys import Identity
from sealfs.mount.child import MountChild
from sealfs.mount.points import wait_until_unmounted
from sealfs.opening import CacheSettings, OpenView
from sealfs.progress import Silent
from sealfs.running import RESULTS, check_enclave, in_memory
from sealfs.store.address import open_store
from sealfs.store.base import ObjectStore
from sealfs.store.local import LocalStore
from sealfs.tasks import inside
from sealfs.workload import Workload, signals_sent_to

_STDERR = 2  # whatever is printed inside is no report of ours, and Gramine has one output for both


@dataclass(frozen=True)
class Report:
    """How a run went.

    Attributes:
        run: Its id.
        code: The exit code: the script's, or that of an error inside.
        results: Output to where its sealed results lie; empty if it did not come to that.
    """

    run: str
    code: int
    results: Mapping[str, ResultAt]


class TaskRun:
    """One run of a task.

    Args:
        path: The task's file; what happens is noted in it, signed.
        identity: The operator's.
        results: Address below which each output gets one of its own.
        script: Where the script lies, if it is no sealed input.
        enclave: The folder that `sealfs measure --contract` filled; None for native runs that nobody vouches for.
        runner: Whose word is the evidence, and for what it stands; None for the hardware's.
        places: Input to an address other than the contract's, for data that has been copied.
        tell: Told what the user should know.
        attach: How data gets in, natively: "preload", in the process that runs the script, or "fuse".
    """

    def __init__(
        self,
        path: Path,
        identity: Identity,
        results: str,
        script: Path | None,
        places: Mapping[str, str],
        enclave: Path | None,
        tell: Callable[[str], None],
        runner: RunnerSecret | None = None,
        attach: str = "preload",
    ) -> None:
        self._path = path
        self._identity = identity
        self._results = results.rstrip("/")
        self._script = script
        self._places = places
        self._enclave = enclave
        self._runner = runner
        self._attach = attach
        self._tell = tell

    def run(self) -> Report:
        """Carry it out.

        Raises:
            ContractError: It may not be run.
            SealfsError: It could not be started, or its results could not be taken away.
        """
        contract = load_task(self._path).contract
        executor = find_executor(contract.function.executor)
        if executor.is_enclave and self._attach == "fuse":
            raise UsageError("there is no FUSE in an enclave", "leave out --attach")
        keys: KeyKind = "attested" if self._runner is None else "runner"
        job = Job((), None, (), keys, preload=False, enclave=self._enclave, contract=True)
        if executor.is_enclave or job.enclave is not None:
            check_enclave(job, executor)
        run = ""

        def stage(task: Task) -> Task:
            nonlocal run
            task, run = task.stage(self._identity, _now())
            return task

        change_task(self._path, stage)
        try:
            report = self._carried_out(run, job, executor)
        except BaseException as error:
            self._report(Action.FAIL, run, note=_word(error))
            raise
        return report

    def _report(self, action: Action, run: str, **members: object) -> None:
        change_task(self._path, lambda task: task.report(action, self._identity, _now(), run, **members))

    def _carried_out(self, run: str, job: Job, executor: Executor) -> Report:
        contract = load_task(self._path).contract
        with ExitStack() as stack:
            base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sealfs-task-")))
            brought = (job.enclave or base) / "ciphertext"
            places = {
                name: self._brought_near(stack, brought / name, name, entry.data, always=executor.is_enclave)
                for name, entry in contract.inputs.items()
                if entry.data is not None
            }
            addresses = {output: f"{self._results}/{run}/{output}" for output in contract.outputs}
            folders = {
                output: _folder_for(address, base / "results" / output) for output, address in addresses.items()
            }
            secret = stack.enter_context(in_memory(self._runner.to_text() if self._runner is not None else ""))
            if executor.is_enclave:
                workload = self._enclave_workload(stack, job, executor, run, folders, secret)
            else:
                command = self._native_command(contract, run, places, folders) + runner_words(job, secret)
                environment = inside.environment_of(contract)
                workload = Workload(command, environment, stdout=_STDERR, pass_fds=(secret,))
                stack.callback(_tidy_up, contract, workload)
            started = False

            def watch() -> bool:
                nonlocal started
                if not started and any((folder / HEAD).exists() for folder in folders.values()):
                    started = True  # it has its keys: only then does it put something there
                    self._report(Action.START, run)
                return False

            with signals_sent_to(lambda number: _pass_on(workload, number)):
                code = workload.run(watch)
            watch()
            if code == INTEGRITY_EXIT:
                self._tell("data turned out to be damaged: the run was ended, and nothing was sealed")
            if code != 0 or not started:
                self._report(Action.FAIL, run, note=f"exit code {code}")
                return Report(run, code, {})
            results = {}
            for output, folder in folders.items():
                results[output] = _taken_away(folder, addresses[output])
        self._report(Action.FINISH, run, results=results)
        return Report(run, code, results)

    def _native_command(
        self, contract: Contract, run: str, places: Mapping[str, Path], folders: Mapping[str, Path]
    ) -> list[str]:
        command = [
            sys.executable,
            "-m",
            CONTRACTS,
            "--task",
            str(self._path),
            "--digest",
            contract.digest,
            "--run",
            run,
            "--attach",
            self._attach,
        ]
        command += [word for name, place in places.items() for word in ("--data", f"{name}={place}")]
        command += [word for name, folder in folders.items() for word in ("--result", f"{name}={folder}")]
        if self._script is not None and contract.function.code is None:
            command += ["--script", str(self._script.absolute())]
        return command

    def _enclave_workload(
        self, stack: ExitStack, job: Job, executor: Executor, run: str, folders: Mapping[str, Path], secret: int
    ) -> Workload:
        """Put what the enclave is told where it looks for it; its command line is measured and says nothing."""
        assert job.enclave is not None  # noqa: S101 - `check_enclave` has asked for it
        told = job.enclave / "ciphertext" / inside.TOLD
        shutil.rmtree(told, ignore_errors=True)
        told.mkdir(parents=True)
        stack.callback(shutil.rmtree, told, ignore_errors=True)
        (told / "task").write_bytes(self._path.read_bytes())
        (told / "run").write_text(run)
        if self._script is not None:
            (told / "script").write_bytes(self._script.read_bytes())
        results = job.enclave / RESULTS
        results.mkdir(exist_ok=True)
        for output, folder in folders.items():
            link = results / output
            link.unlink(missing_ok=True)
            link.symlink_to(folder)
            stack.callback(link.unlink, missing_ok=True)
        environment = {**os.environ, **executor.environment(job)}
        return Workload(executor.command(job), environment, str(job.enclave), stdin=secret, stdout=_STDERR)

    def _brought_near(self, stack: ExitStack, place: Path, name: str, data: SealedData, *, always: bool) -> Path:
        """Return a folder with an input's ciphertext: mounted at `place` if its store is distant, or `always`."""
        address = self._places.get(name, data.address)
        if not always and not _is_distant(address):
            return Path(unquote(address.removeprefix("file://"))).absolute()
        place.mkdir(parents=True, exist_ok=True)

        def opened() -> tuple[Dataset, OpenView]:
            dataset = Dataset.open(open_store(address), TrustStore(), version=bytes.fromhex(data.snapshot))
            return dataset, how_to_open(dataset, None, CacheSettings())

        mount = stack.enter_context(closing(MountChild(opened, str(place))))
        mount.wait_until_ready()
        return place


def _tidy_up(contract: Contract, workload: Workload) -> None:
    """Remove what a run that was ended has left on this machine; its mounts go by themselves."""
    if workload.pid is None:
        return
    for output in contract.outputs.values():
        remove_left_behind(Path(output.path), workload.pid)
    temporary = inside.environment_of(contract).get("TMPDIR", "/tmp")  # noqa: S108 - as `tempfile` has it there
    for folder in Path(temporary).glob(f"{inside.STATE_PREFIX}{workload.pid}-*"):
        shutil.rmtree(folder, ignore_errors=True)
    for entry in contract.inputs.values():
        wait_until_unmounted(entry.path)


def _taken_away(folder: Path, address: str) -> ResultAt:
    """Copy sealed results to where they are to stay, if that is not where they are."""
    with closing(LocalStore(folder)) as near:
        provenance = near.get(inside.PROVENANCE, max_size=MAX_PROVENANCE)[0]
        digest = hashlib.sha256(provenance).hexdigest()
        if not _is_distant(address):
            return ResultAt(near.uri, digest)
        with closing(open_store(address)) as far, tempfile.TemporaryDirectory() as pins:
            dataset = Dataset.open(near, TrustStore(Path(pins)), signer=Provenance.parse(provenance).signer)
            fetch(dataset, far, Silent())
            for name, most in ((inside.PROVENANCE, MAX_PROVENANCE), (inside.LOCK, MAX_LOCK)):
                if (content := get_beside(near, name, most)) is not None:
                    far.put(name, content)
            return ResultAt(far.uri, digest)


def get_beside(store: ObjectStore, name: str, most: int) -> bytes | None:
    """Return an object beside a result's own; None if it is not there."""
    try:
        return store.get(name, max_size=most)[0]
    except ObjectNotFoundError:
        return None


def load_provenance(task: Task, run: str, output: str) -> tuple[ResultAt, Provenance]:
    """Fetch the provenance of a result that a task reports, and check it against the contract.

    Raises:
        ContractError: There is no such result.
        TrustError: It is not the one reported, or does not fit.
        StoreError: It can't be had.
    """
    known = task.runs.get(run)
    at = (
        known.statements[Action.FINISH].results.get(output) if known and Action.FINISH in known.statements else None
    )
    if at is None:
        raise ContractError(
            f"run {run[:8]} has no result '{output}'", "'sealfs task results TASK' lists what there is"
        )
    with closing(open_store(at.address)) as store:
        data = get_beside(store, inside.PROVENANCE, MAX_PROVENANCE)
    if data is None:
        raise StoreError(f"there is no provenance at {at.address}", "do not use this result; ask the operator")
    if hashlib.sha256(data).hexdigest() != at.provenance:
        raise TrustError(f"the provenance at {at.address} is not the one that the operator reported")
    found = Provenance.parse(data)
    if (found.run, found.output) != (run, output):
        raise TrustError(f"the provenance at {at.address} is that of another result")
    found.check(task.contract)
    return at, found


def open_result(at: ResultAt, provenance: Provenance, store: ObjectStore, pins: Path) -> Dataset:
    """Open the dataset that a result is, in exactly the state that its provenance vouches for.

    Raises:
        IntegrityError: Something else lies there.
    """
    wanted = provenance.result
    dataset = Dataset.open(
        store, TrustStore(pins), version=bytes.fromhex(wanted.snapshot), signer=provenance.signer
    )
    if (dataset.snapshot.dataset.hex(), dataset.snapshot.version) != (wanted.dataset, wanted.version):
        raise IntegrityError(f"what lies at {at.address} is not the result that the provenance is of")
    return dataset


def _is_distant(address: str) -> bool:
    return "://" in address and not address.startswith("file://")


def _folder_for(address: str, otherwise: Path) -> Path:
    """Return the folder into which results are sealed: the store itself if it is one."""
    folder = otherwise if _is_distant(address) else Path(unquote(address.removeprefix("file://"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _pass_on(workload: Workload, number: int) -> None:
    if not workload.signal(number):
        sys.exit(128 + number)


def _word(error: BaseException) -> str:
    text = error.message if isinstance(error, SealfsError) else type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text)[:200] or "failed"


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
