"""Push: one that was interrupted goes on, and sends nothing twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dataset.tools import Spy, names, opened, push, sparse_file, state_of_folder, state_of_view
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.objects import PACKS
from sealfs.dataset.trust import TrustStore
from sealfs.errors import (
    NotADatasetError,
    StoreError,
)
from sealfs.keys import Identity
from sealfs.store.local import LocalStore


class Plug(Spy):
    """Pulls the plug before the write of the n-th object."""

    def __init__(self, store: LocalStore, after: int) -> None:
        super().__init__(store)
        self._left = after

    def before_put(self, key: str) -> None:
        self._left -= 1
        if self._left < 0:
            raise StoreError("the plug was pulled")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.usefixtures("small_packs")
def test_a_push_interrupted_at_any_object_goes_on_and_sends_nothing_twice(
    tmp_path: Path, local_store: LocalStore, identity: Identity, trust: TrustStore, version: int
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "large").write_bytes(os.urandom(300_000))
    before = None
    if version == 2:
        push(source, local_store, identity, trust)
        before = state_of_folder(source)
    for number in range(30):
        (source / f"{number}").write_bytes(os.urandom(9_000))
    (source / "large too").write_bytes(os.urandom(200_000))
    sparse_file(source / "sparse", 3)
    own, at = names(local_store, PACKS), 0
    while True:
        plug = Plug(local_store, at)
        try:
            result = push(source, plug, identity, trust, jobs=1)
        except StoreError:
            at += 1
            if before is None:
                with pytest.raises(NotADatasetError):
                    Dataset.open(local_store, trust)
            else:
                with opened(local_store, identity, trust) as view:
                    assert state_of_view(view) == before
            continue
        break
    assert at > 3
    assert result.snapshot is not None
    assert result.snapshot.version == version
    # one pack object more than the snapshot has is one that was cut off between its write and its journal line
    sent = names(local_store, PACKS) - own
    used = {ref.name for ref in result.snapshot.packs} - own
    assert sent == used
    with opened(local_store, identity, trust) as view:
        assert list(state_of_view(view).items()) == list(state_of_folder(source).items())


@pytest.mark.usefixtures("small_packs")
def test_a_file_changed_since_the_interruption_is_read_again(
    tmp_path: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(30):
        (source / f"{number:02}").write_bytes(bytes([number]) * 9_000)
    with pytest.raises(StoreError):
        push(source, Plug(local_store, 5), identity, trust, jobs=1)
    for path in source.iterdir():
        before = path.stat()
        path.write_bytes(bytes([255]) * 9_000)  # same size, and even the same time
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert push(source, local_store, identity, trust).resumed == 0
    with opened(local_store, identity, trust) as view:
        assert state_of_view(view) == state_of_folder(source)


@pytest.mark.usefixtures("small_packs")
def test_packs_that_the_store_lost_or_cut_in_between_are_sent_again(
    tmp_path: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(40):
        (source / f"{number:02}").write_bytes(os.urandom(9_000))
    with pytest.raises(StoreError):
        push(source, Plug(local_store, 6), identity, trust, jobs=1)
    gone, cut, *rest = sorted(names(local_store, PACKS))
    assert rest
    local_store.delete([gone])
    data, _ = local_store.get(cut, max_size=1 << 30)
    local_store.put(cut, data[:-1])
    assert push(source, local_store, identity, trust).resumed > 0
    with opened(local_store, identity, trust) as view:
        assert state_of_view(view) == state_of_folder(source)
