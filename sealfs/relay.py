"""Takes an enclave's sealed results on to an object store, for the host: it has the store's credentials and no key.

An enclave writes its results, sealed, to a folder of the host, as it has no credentials and should need none. What
is here copies that folder's objects to another store as they appear, and its head last, so that whatever the store
shows is a whole dataset at any time. Nothing is verified: who could not be trusted to copy could as well have kept
the results to himself, and readers verify.

Threading: `start` begins a thread of its own; the other methods belong to the thread that called it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import unquote

from sealfs.dataset.objects import HEAD, WRITE_ONCE
from sealfs.dataset.snapshot import MAX_HEAD_SIZE
from sealfs.enclave.output import check_free
from sealfs.errors import (
    ConflictError,
    LocalIOError,
    ObjectNotFoundError,
    PreconditionFailedError,
    SealfsError,
    StoreError,
)
from sealfs.periodic import PATIENCE, Periodic
from sealfs.placement import Output
from sealfs.store.address import open_store
from sealfs.store.base import ObjectStore
from sealfs.store.local import LocalStore


class Relay:
    """Copies one dataset that grows, for as long as a run lasts.

    Args:
        source: Where the enclave writes.
        target: Where the results are to be; nothing may be there yet.
        interval: Seconds between copies.
        single_writer: The user's word for stores without conditional writes.
        patience: Seconds for which the last copy is tried again while the store is away.
    """

    def __init__(
        self,
        source: ObjectStore,
        target: ObjectStore,
        *,
        interval: float,
        single_writer: bool = False,
        patience: float = PATIENCE,
    ) -> None:
        self._source = source
        self._target = target
        self._single_writer = single_writer
        self._copied: set[str] = set()
        self._head = b""
        self._etag: str | None = None
        self._periodic = Periodic("sealfs-relay", self._copy, interval, "the results were not copied", patience)

    def start(self) -> None:
        """Make sure that the address is free and can be written to, and begin to copy.

        Raises:
            UsageError: Something is there already.
            StoreError: The store can't be used, or ignores conditional writes.
        """
        check_free(self._target)
        if not self._single_writer and not self._target.has_conditional_writes():
            raise StoreError(
                f"{self._target.uri} ignores conditional writes: two runs at once would lose one's results",
                "if you are sure to be the only writer, say so with --single-writer",
            )
        self._periodic.start()

    def finish(self) -> None:
        """Copy what is there now, once and for all; the enclave has ended.

        Raises:
            SealfsError: The results are not, or not all, at the target.
        """
        self._periodic.finish(self._copy)

    def abandon(self) -> None:
        """Copy nothing more; what was copied stays."""
        self._periodic.stop()

    def _copy(self) -> None:
        """Copy every object that the head of this moment may name, then the head."""
        try:
            head, _ = self._source.get(HEAD, max_size=MAX_HEAD_SIZE)
        except ObjectNotFoundError:
            return  # the enclave has not got so far
        if head == self._head:
            return
        for kind in WRITE_ONCE:
            for found in self._source.list(kind):
                if found.key not in self._copied:
                    self._target.put(found.key, self._source.get(found.key, max_size=found.size)[0])
                    self._copied.add(found.key)
        self._etag = self._put_head(head)
        self._head = head

    def _put_head(self, head: bytes) -> str:
        if not self._target.has_conditional_writes():
            return self._target.put(HEAD, head)
        try:
            return self._target.put(HEAD, head, if_absent=self._etag is None, if_match=self._etag)
        except PreconditionFailedError:
            there, etag = self._target.get(HEAD, max_size=MAX_HEAD_SIZE)
            if there == head:  # it was ours: only the answer got lost
                return etag
        raise ConflictError(
            f"somebody else has written to {self._target.uri}", "give each run an address of its own"
        )


@contextmanager
def results_folder(
    output: Output, beside: Path, *, single_writer: bool = False, patience: float = PATIENCE
) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Have a folder for an enclave's results: the store itself if it is one, else a new one that is copied there.

    Args:
        output: Where results go in the end.
        beside: Folder in which the new one is made.
        single_writer: The user's word for stores without conditional writes.
        patience: Seconds for which the last copy is tried again while the store is away.

    Yields:
        The folder, and what to call when the enclave has ended.

    Raises:
        UsageError: Something is at the address already.
        StoreError: The store can't be used.
        LocalIOError: The folder can't be made.
    """
    if output.address.startswith("file://"):
        folder = Path(unquote(output.address.removeprefix("file://")))
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LocalIOError(f"cannot make {folder}: {error.strerror}", "choose another --out") from None
        yield folder, lambda: None
        return
    folder = Path(tempfile.mkdtemp(prefix="results-", dir=beside))
    copied = False

    def finish() -> None:
        nonlocal copied
        try:
            relay.finish()
        except SealfsError as error:
            error.message = f"the results did not get to {output.address}: {error.message}"
            error.hint = f"they are in {folder}, sealed: sealfs fetch {folder} {output.address}"
            raise
        copied = True

    try:
        with closing(open_store(output.address)) as target, closing(LocalStore(folder)) as source:
            relay = Relay(source, target, interval=output.interval, single_writer=single_writer, patience=patience)
            relay.start()
            try:
                yield folder, finish
            finally:
                relay.abandon()
    finally:
        if copied or not (folder / HEAD).exists():
            shutil.rmtree(folder, ignore_errors=True)
