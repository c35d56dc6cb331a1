"""One run: puts data where the workload looks for it, runs it, and brings its results out sealed.

Natively this process mounts or leaves attaching to the launcher, and seals the results, so that they survive a
workload that is killed. Of an enclave it is only the untrusted outside: it provides ciphertext and starts it.

**Fails closed.** When data turns out to be damaged the workload is killed at once, and nothing that it wrote since
the last snapshot is sealed: it may have been made from half an image.

Threading: a run belongs to the main thread, where signals arrive; a thread watches the mounts.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from sealfs.ciphertext import how_to_open
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.attach import INTEGRITY_EXIT
from sealfs.enclave.keysource import HandedKeys, KeySource, RunnerSecret
from sealfs.enclave.memory import MemoryFolder, memory_folder
from sealfs.enclave.output import OutputSealer
from sealfs.errors import ExecutorError, SealfsError
from sealfs.executors.base import Executor, Job
from sealfs.executors.launcher import SECRETS_FD
from sealfs.keys import Recipient
from sealfs.mount.child import MountChild, watched
from sealfs.opening import CacheSettings, OpenView
from sealfs.placement import DataMount, Output
from sealfs.relay import results_folder
from sealfs.store.address import normalize, open_store
from sealfs.workload import Workload, signals_sent_to

CIPHERTEXT = "ciphertext"  # folder, below the enclave's, at which an enclave finds the datasets' objects
RESULTS = "results"  # and where it puts the objects of its results

OpenDataset = Callable[[DataMount], Dataset]


class Run:
    """A job, and everything around it for as long as it runs.

    Args:
        job: What to run.
        executor: Where.
        open_dataset: Opens and verifies a dataset.
        keys: Open the datasets, here where they are mounted, else in the launcher; None if nothing is handed to it.
        single_writer: The user's word for output stores without conditional writes.
        tell: Told what the user should know.
    """

    def __init__(
        self,
        job: Job,
        executor: Executor,
        open_dataset: OpenDataset,
        keys: HandedKeys | RunnerSecret | None,
        tell: Callable[[str], None],
        *,
        single_writer: bool = False,
    ) -> None:
        self._job = job
        self._executor = executor
        self._open_dataset = open_dataset
        self._keys = keys
        self._tell = tell
        self._single_writer = single_writer
        self._damage: SealfsError | None = None
        self._workload: Workload | None = None

    def run(self) -> int:
        """Run it.

        Returns:
            The workload's exit code.

        Raises:
            IntegrityError: A mounted dataset is damaged, and the workload was killed.
            SealfsError: It could not be run, or its results could not be sealed.
        """
        check_enclave(self._job, self._executor)
        with signals_sent_to(self._on_signal), ExitStack() as stack:
            job, places = self._placed(stack)
            mounts = [stack.enter_context(closing(self._mount(data, place))) for data, place in places]
            for mount in mounts:
                mount.wait_until_ready()
            sealing = stack.enter_context(self._sealing()) if self._seals_here else None
            relay = stack.enter_context(self._relaying(job)) if self._executor.is_enclave else None
            self._workload = workload = stack.enter_context(self._prepared(job))
            with watched(mounts, self._on_damage) as look:
                code = workload.run(lambda: self._damage is not None)
                look()  # a workload that swallowed the error is caught here
            if relay is not None:
                relay()  # whatever has happened: what an enclave has sealed, it has vouched for
            if self._damage is None and code != INTEGRITY_EXIT:
                return code if sealing is None else sealing(code)
        if self._damage is None:
            return code
        self._damage.message += "; the workload was killed"
        raise self._damage

    @contextmanager
    def _prepared(self, job: Job) -> Iterator[Workload]:
        """Yield what is to be started, with the keys where the launcher expects them: never in an argument."""
        environment = {**os.environ, **self._executor.environment(job)}
        command = self._executor.command(job)
        if not self._executor.is_enclave and not job.preload:
            yield Workload(command, environment)
            return
        with in_memory(self._keys.to_text() if self._keys is not None else "") as secrets:
            if self._executor.is_enclave:
                yield Workload(command, environment, str(job.enclave), stdin=secrets)
                return
            os.dup2(secrets, SECRETS_FD)
            try:
                yield Workload(command, environment, pass_fds=(SECRETS_FD,))
            finally:
                os.close(SECRETS_FD)

    @property
    def _seals_here(self) -> bool:
        return self._job.output is not None and not self._executor.is_enclave

    def _placed(self, stack: ExitStack) -> tuple[Job, list[tuple[DataMount, str]]]:
        """Return the job as it is to be started, and what this process mounts for it, and where."""
        job = self._job
        if self._executor.is_enclave:
            return job, [
                (data, _made(Path(job.enclave or "."), CIPHERTEXT, str(n))) for n, data in enumerate(job.datasets)
            ]
        if not job.preload:
            return job, [(data, os.path.realpath(data.path)) for data in job.datasets]
        return self._brought_near(stack)

    def _brought_near(self, stack: ExitStack) -> tuple[Job, list[tuple[DataMount, str]]]:
        """Mount ciphertext where the in-process reader can get at it: it reads local folders only."""
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sealfs-run-")))
        datasets: list[DataMount] = []
        places: list[tuple[DataMount, str]] = []
        for number, data in enumerate(self._job.datasets):
            if data.address.startswith("file://"):
                datasets.append(data)
                continue
            with closing((dataset := self._open_dataset(data)).store):
                place = _made(base, str(number))
                near = DataMount(normalize(place), dataset.ref.sha256, data.path, dataset.snapshot.signer)
            stack.callback(TrustStore().forget, near.address)
            datasets.append(near)
            places.append((replace(data, version=dataset.ref.sha256), place))
        return replace(self._job, datasets=tuple(datasets)), places

    def _mount(self, data: DataMount, place: str) -> MountChild:
        return MountChild(lambda: self._open(data), place)

    def _open(self, data: DataMount) -> tuple[Dataset, OpenView]:
        """Open a dataset, in the process that serves it."""
        dataset = self._open_dataset(data)
        plaintext = not self._executor.is_enclave and not self._job.preload
        keys = self._keys.keys(dataset) if isinstance(self._keys, KeySource) and plaintext else None
        settings = CacheSettings()
        if plaintext and self._job.cache_memory is not None:
            settings = replace(settings, memory_size=self._job.cache_memory)
        return dataset, how_to_open(dataset, keys, settings)

    @contextmanager
    def _sealing(self) -> Iterator[Callable[[int], int]]:
        """Seal results for the length of the block; yields what to call with the workload's exit code."""
        output = self._job.output
        assert output is not None  # noqa: S101 - for the type checker
        with memory_folder(Path(output.path)) as folder, closing(open_store(output.address)) as store:
            recipients = [Recipient.parse(text) for text in output.recipients]
            sealer = OutputSealer(
                folder.content,
                store,
                recipients,
                folder.state,
                interval=output.interval,
                single_writer=self._single_writer,
                level=self._keys.proven if isinstance(self._keys, KeySource) else None,
            )
            sealer.start()
            self._tell(f"results go to {store.uri}, signed by {sealer.signer}")
            try:
                yield lambda code: self._finish(sealer, folder, output, code)
            finally:
                sealer.abandon()

    @contextmanager
    def _relaying(self, job: Job) -> Iterator[Callable[[], None] | None]:
        """Have a folder in which the enclave puts its results; yields what to call when it has ended."""
        if job.output is None or job.enclave is None:
            yield None
            return
        with results_folder(job.output, job.enclave, single_writer=self._single_writer) as (folder, finish):
            link = job.enclave / RESULTS
            link.unlink(missing_ok=True)
            link.symlink_to(folder)
            try:
                yield finish
            finally:
                link.unlink(missing_ok=True)

    def _finish(self, sealer: OutputSealer, folder: MemoryFolder, output: Output, code: int) -> int:
        """Seal the last snapshot; its failure is the run's."""
        try:
            sealer.finish(f"end of the run, exit code {code}")
        except SealfsError as error:
            folder.keep = True
            error.message = f"the results did not get to {output.address}: {error.message}"
            error.hint = f"they are in memory now: sealfs push {folder.content} SOMEWHERE, then remove it"
            raise
        return code

    def _on_damage(self, error: SealfsError) -> None:
        self._damage = error
        if self._workload is not None:
            self._workload.kill()

    def _on_signal(self, number: int) -> None:
        if self._workload is None or not self._workload.signal(number):
            sys.exit(128 + number)


@contextmanager
def in_memory(text: str) -> Iterator[int]:
    """Yield a descriptor that gives a text, which is on no disk."""
    with open(os.memfd_create("sealfs-secrets"), "w+b", buffering=0) as file:
        file.write(text.encode())
        file.seek(0)
        yield file.fileno()


def _made(base: Path, *parts: str) -> str:
    """Return the real path of a folder, made if it is missing."""
    folder = base.joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True)
    return os.path.realpath(folder)


def check_enclave(job: Job, executor: Executor) -> None:
    """Make sure that what was measured is what is asked for now.

    Raises:
        ExecutorError: It is not, or this machine can't run it.
    """
    executor.check(job)
    for name, content in executor.files(job).items():
        if job.enclave is None or not _has(job.enclave / name, content):
            raise ExecutorError(
                f"{job.enclave} was made for another run: its {name} differs",
                "run 'sealfs measure' with the same options and the same command first",
            )


def _has(path: Path, content: str) -> bool:
    try:
        return path.read_text() == content
    except OSError:
        return False
