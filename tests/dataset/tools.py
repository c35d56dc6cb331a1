"""Pushing, opening and comparing, in as few words as tests deserve."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.index import ROOT
from sealfs.dataset.push import Push, PushOptions, PushResult
from sealfs.dataset.trust import TrustStore
from sealfs.keys import Identity
from sealfs.opening import CacheSettings, open_view
from sealfs.progress import Silent
from sealfs.pull import Pull
from sealfs.store.base import ObjectInfo, ObjectStore, ReadableBuffer
from sealfs.store.local import LocalStore
from sealfs.vfs import View

SEGMENT = 4096  # bytes: small, so that small files have several

# path to (mode, mtime_ns, content or target), in the order in which directories list
State = dict[bytes, tuple[int, int, bytes]]


def push(source: Path, store: ObjectStore, identity: Identity, trust: TrustStore, **options: Any) -> PushResult:
    options.setdefault("segment_length", SEGMENT)
    return Push(source, store, identity, trust, PushOptions(**options)).run()


class Unclosed:
    """A store that a view may close and that goes on all the same."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self) -> None:
        pass


@contextlib.contextmanager
def opened(
    store: ObjectStore, identity: Identity, trust: TrustStore, version: int | None = None, memory: int = 1 << 20
) -> Iterator[View]:
    """A view that leaves no cached file handles behind; the store stays open."""
    if isinstance(store, LocalStore):
        store.close()  # forgets open files, so that what is on disk now counts
    dataset = Dataset.open(store, trust, version=version)
    keys = dataset.keys(identity)
    view, _ = open_view(dataset, keys, CacheSettings(memory_size=memory, deadline=0.5))
    try:
        yield view
    finally:
        view.close()


def read(view: View, number: int, offset: int = 0, size: int | None = None) -> bytes:
    out = bytearray(view.entry(number).size if size is None else size)
    count = view.read_into(number, offset, memoryview(out))
    return bytes(out[:count])


def state_of_view(view: View) -> State:
    state: State = {}

    def visit(number: int, path: bytes) -> None:
        entry = view.entry(number)
        if entry.is_directory:
            state[path] = (entry.mode, entry.mtime_ns, b"")
            for name, child in view.list(number):
                visit(child, path + b"/" + name)
        elif entry.is_symlink:
            state[path] = (entry.mode, entry.mtime_ns, view.readlink(number))
        else:
            state[path] = (entry.mode, entry.mtime_ns, read(view, number))

    visit(ROOT, b"")
    return state


def served(store: ObjectStore, identity: Identity, trust: TrustStore, version: int | None = None) -> State:
    """All of a version, as a view of it reads."""
    with opened(store, identity, trust, version) as view:
        return state_of_view(view)


@dataclass(frozen=True)
class Provider:
    """Somebody who fills a folder and pushes it."""

    source: Path
    store: LocalStore
    identity: Identity
    trust: TrustStore

    def push(self, store: ObjectStore | None = None, **options: Any) -> PushResult:
        """Push it, to `store` where something stands between it and the provider's own."""
        return push(self.source, self.store if store is None else store, self.identity, self.trust, **options)

    def served(self, version: int | None = None) -> State:
        return served(self.store, self.identity, self.trust, version)


@contextlib.contextmanager
def mounted(view: View, point: Path) -> Iterator[None]:
    """A real FUSE mount, served by this process; nothing here may hold the interpreter while it looks in."""
    from sealfs.mount.loop import Loop
    from sealfs.mount.operations import mount

    loop, ready = Loop(), threading.Event()
    words = {"name": "test", "allow_other": False, "on_mounted": ready.set}
    thread = threading.Thread(target=mount, args=(view, str(point), loop), kwargs=words, daemon=True)
    thread.start()
    try:
        assert ready.wait(30), "the mount did not come up"
        yield
    finally:
        loop.stop(30)
        thread.join(30)


def state_of_folder(folder: Path | bytes) -> State:
    state: State = {}

    def visit(place: bytes, path: bytes) -> None:
        status = os.lstat(place)
        content = b""
        if stat.S_ISLNK(status.st_mode):
            content = os.readlink(place)
        elif stat.S_ISREG(status.st_mode):
            with open(place, "rb") as file:
                content = file.read()
        state[path] = (status.st_mode, status.st_mtime_ns, content)
        if stat.S_ISDIR(status.st_mode):
            for name in os.listdir(place):
                visit(os.path.join(place, name), path + b"/" + name)

    visit(os.fsencode(folder), b"")
    return state


def pull(
    store: ObjectStore, identity: Identity, trust: TrustStore, destination: Path, version: int | None = None
) -> State:
    """Pull into a folder, check that what was pulled is all there is, and return its state."""
    with opened(store, identity, trust, version) as view:
        Pull(view, destination, Silent()).run()
    return state_of_folder(destination)


def names(store: ObjectStore, prefix: str = "") -> set[str]:
    return {info.key for info in store.list(prefix)}


class Spy:
    """A store that does what another does, and tells before each write.

    Subclasses override what they want to interfere with.
    """

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self.puts: list[str] = []

    @property
    def uri(self) -> str:
        return self.store.uri

    def get(self, key: str, *, max_size: int) -> tuple[bytes, str]:
        return self.store.get(key, max_size=max_size)

    def read_into(self, key: str, offset: int, buffer: memoryview) -> None:
        self.store.read_into(key, offset, buffer)

    def put(self, key: str, data: ReadableBuffer, *, if_absent: bool = False, if_match: str | None = None) -> str:
        self.before_put(key)
        self.puts.append(key)
        etag = self.store.put(key, data, if_absent=if_absent, if_match=if_match)
        self.after_put(key)
        return etag

    def before_put(self, key: str) -> None:
        pass

    def after_put(self, key: str) -> None:
        pass

    def stat(self, key: str) -> ObjectInfo:
        return self.store.stat(key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self.store.list(prefix)

    def delete(self, keys: Iterable[str]) -> None:
        self.store.delete(keys)

    def has_conditional_writes(self) -> bool:
        return self.store.has_conditional_writes()

    def close(self) -> None:
        pass


def sparse_file(path: Path, pieces: int) -> None:
    """Make a file of so many MiB that is almost all holes."""
    with path.open("wb") as file:
        for piece in range(pieces):
            file.seek(piece << 20)
            file.write(b"piece %d" % piece * 100)
        file.truncate(pieces << 20)
