"""One run: puts data where the workload looks for it, runs it, and brings its results out sealed.

Natively this process mounts or leaves attaching to the launcher, and seals the results, so that they survive a
workload that is killed. Of an enclave it is only the untrusted outside: it provides ciphertext and starts it.

**Fails closed.** When data turns out to be damaged the workload is killed at once, and nothing that it wrote since
the last snapshot is sealed: it may have been made from half an image.

Threading: a run belongs to the main thread, where signals arrive; a thread watches the mounts.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from sealfs.ciphertext import open_objects
from sealfs.dataset.dataset import Dataset
from sealfs.enclave.keysource import KeySource
from sealfs.enclave.memory import MemoryFolder, memory_folder
from sealfs.enclave.output import OutputSealer
from sealfs.errors import ExecutorError, SealfsError
from sealfs.executors.base import DataMount, Executor, Job, Output
from sealfs.keys import Recipient
from sealfs.mount.child import MountChild, OpenView
from sealfs.opening import CacheSettings, open_view
from sealfs.store.address import open_store
from sealfs.store.source import CiphertextSource
from sealfs.vfs import View
from sealfs.workload import Workload, signals_sent_to

PRELOAD_INTEGRITY = 85  # exit code of a process whose in-process reader found damage (runtime/include/sealfs.h)
CIPHERTEXT = "ciphertext"  # folder, below the enclave's, at which an enclave finds the datasets' objects
_POLL = 0.1  # seconds

OpenDataset = Callable[[DataMount], Dataset]


class Run:
    """A job, and everything around it for as long as it runs.

    Args:
        job: What to run.
        executor: Where.
        open_dataset: Opens and verifies a dataset.
        keys: Opens datasets that this process mounts; None if it mounts only ciphertext.
        single_writer: The user's word for output stores without conditional writes.
        tell: Told what the user should know.
    """

    def __init__(
        self,
        job: Job,
        executor: Executor,
        open_dataset: OpenDataset,
        keys: KeySource | None,
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
        folder = str(job.enclave) if job.enclave is not None else None
        environment = {**os.environ, **executor.environment(job)}
        self._workload = Workload(executor.command(job), environment, folder)

    def run(self) -> int:
        """Run it.

        Returns:
            The workload's exit code.

        Raises:
            IntegrityError: A mounted dataset is damaged, and the workload was killed.
            SealfsError: It could not be run, or its results could not be sealed.
        """
        self._check_enclave()
        with signals_sent_to(self._on_signal), ExitStack() as stack:
            mounts = [stack.enter_context(closing(self._mount(data, place))) for data, place in self._mounts()]
            for mount in mounts:
                mount.wait_until_ready()
            sealing = stack.enter_context(self._sealing()) if self._seals_here else None
            with self._watching(mounts):
                code = self._workload.run(lambda: self._damage is not None)
            if self._damage is None and code != PRELOAD_INTEGRITY:
                return code if sealing is None else sealing(code)
        if self._damage is None:
            return code
        self._damage.message += "; the workload was killed"
        raise self._damage

    def _check_enclave(self) -> None:
        """Make sure that what was measured is what is asked for now."""
        self._executor.check(self._job)
        folder = self._job.enclave
        for name, content in self._executor.files(self._job).items():
            if folder is None or not _has(folder / name, content):
                raise ExecutorError(
                    f"{folder} was made for another run: its {name} differs",
                    "run 'sealfs measure' with the same options and the same command first",
                )

    @property
    def _seals_here(self) -> bool:
        return self._job.output is not None and not self._executor.is_enclave

    def _mounts(self) -> Iterator[tuple[DataMount, str]]:
        """Yield what is to be mounted by this process, and where."""
        if self._executor.is_enclave:
            for number, data in enumerate(self._job.datasets):
                folder = Path(self._job.enclave or ".") / CIPHERTEXT / str(number)
                folder.mkdir(parents=True, exist_ok=True)
                yield data, os.path.realpath(folder)
        elif not self._job.preload:
            for data in self._job.datasets:
                yield data, os.path.realpath(data.path)

    def _mount(self, data: DataMount, place: str) -> MountChild:
        return MountChild(lambda: self._open(data), place)

    def _open(self, data: DataMount) -> tuple[Dataset, OpenView]:
        """Open a dataset, in the process that serves it."""
        dataset = self._open_dataset(data)
        keys = self._keys.keys(dataset) if self._keys is not None else None

        def open_it(about_to_block: Callable[[], None]) -> tuple[View, CiphertextSource]:
            if keys is None:
                return open_objects(dataset, CacheSettings(), about_to_block)
            return open_view(dataset, keys, CacheSettings(), about_to_block)

        return dataset, open_it

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
            )
            sealer.start()
            self._tell(f"results go to {store.uri}, signed by {sealer.signer}")
            try:
                yield lambda code: self._finish(sealer, folder, output, code)
            finally:
                sealer.abandon()

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

    @contextmanager
    def _watching(self, mounts: list[MountChild]) -> Iterator[None]:
        """Kill the workload as soon as a mount is damaged or gone."""
        over = threading.Event()

        def check(timeout: float) -> None:
            for mount in select.select(mounts, [], [], timeout)[0]:
                try:
                    mount.check()
                except SealfsError as error:
                    self._damage = self._damage or error
                    self._workload.kill()

        def watch() -> None:
            while not over.is_set() and self._damage is None:
                check(_POLL)

        thread = threading.Thread(target=watch, name="sealfs-watch")
        if mounts:
            thread.start()
        try:
            yield
        finally:
            over.set()
            if mounts:
                thread.join()
        if mounts and self._damage is None:
            check(0)  # a mount says so before its reads fail: a workload that swallowed the error is caught here

    def _on_signal(self, number: int) -> None:
        if not self._workload.signal(number):
            sys.exit(128 + number)


def _has(path: Path, content: str) -> bool:
    try:
        return path.read_text() == content
    except OSError:
        return False
