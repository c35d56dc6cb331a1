"""`sealfs gc`: deletes objects that nothing needs any more.

What a snapshot in the history needs stays. What a push in progress has sent stays too, by this order of looking:
first the objects, then the markers of pushes, then the head. An object seen in the first step either has its
marker in the second, or its push had ended by then, and the head of the third step knows it or nobody does.

Threading: one thread.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.objects import PUSH_ID_SIZE, PUSHES, WRITE_ONCE
from sealfs.dataset.session import ABANDONED_AFTER
from sealfs.dataset.snapshot import Snapshot
from sealfs.dataset.trust import TrustStore
from sealfs.errors import ObjectNotFoundError
from sealfs.store.base import ObjectInfo, ObjectStore


@dataclass(slots=True)
class Garbage:
    """What can go.

    Attributes:
        objects: Objects that nothing needs.
        versions: Versions that go because only the newest were to be kept.
        pushes: How many pushes in progress were respected.
    """

    objects: list[ObjectInfo] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    pushes: int = 0

    @property
    def size(self) -> int:
        """Bytes that would become free."""
        return sum(info.size for info in self.objects)


def find_garbage(
    store: ObjectStore,
    trust: TrustStore,
    *,
    keep: int | None = None,
    abandoned_after: float = ABANDONED_AFTER,
    now: float | None = None,
) -> Garbage:
    """Return what can be deleted.

    Args:
        store: Where the dataset lies.
        trust: The user's pins: nothing is deleted on the word of a forged head.
        keep: How many of the newest versions stay; None keeps all.
        abandoned_after: A push that gave no sign of life for so many seconds is over.
        now: Unix time, by the store's clock as far as it is known.

    Raises:
        IntegrityError: A snapshot that should stay can't be read; nothing is deleted then.
    """
    objects = [info for kind in WRITE_ONCE for info in store.list(kind)]
    markers = list(store.list(PUSHES))
    dataset = Dataset.open(store, trust)
    now = time.time() if now is None else now
    living = {m.key.removeprefix(PUSHES) for m in markers if now - m.modified < abandoned_after}
    garbage = Garbage(pushes=len(living))
    needed = {dataset.ref.name} | _needed_by(dataset.newest)
    oldest = dataset.newest.version - keep + 1 if keep else 1
    for ancestor in dataset.newest.history:
        try:
            store.stat(ancestor.ref.name)
        except ObjectNotFoundError:
            continue  # went in an earlier gc
        if ancestor.version < oldest:
            garbage.versions.append(ancestor.version)
            continue
        needed |= {ancestor.ref.name} | _needed_by(dataset.ancestor(ancestor.version))
    garbage.objects = [o for o in objects if o.key not in needed and _push_of(o.key) not in living]
    garbage.objects += [m for m in markers if m.key.removeprefix(PUSHES) not in living]
    return garbage


def _needed_by(snapshot: Snapshot) -> set[str]:
    return {snapshot.index.name, snapshot.keyring.name, *(ref.name for ref in snapshot.packs)}


def _push_of(key: str) -> str:
    return key.partition("/")[2][: 2 * PUSH_ID_SIZE]


def delete_garbage(store: ObjectStore, garbage: Garbage) -> None:
    """Delete snapshots first, so that what a crash leaves half-done is no snapshot without its packs."""
    names = [info.key for info in garbage.objects]
    store.delete([name for name in names if name.startswith("snapshots/")])
    store.delete([name for name in names if not name.startswith("snapshots/")])
