"""Push: one that was interrupted goes on, and sends nothing twice."""

from __future__ import annotations

import os

import pytest

from dataset.tools import Provider, Spy, names, sparse_file, state_of_folder
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.objects import PACKS
from sealfs.errors import (
    NotADatasetError,
    StoreError,
)
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
def test_a_push_interrupted_at_any_object_goes_on_and_sends_nothing_twice(provider: Provider, version: int) -> None:
    (provider.source / "large").write_bytes(os.urandom(300_000))
    before = None
    if version == 2:
        provider.push()
        before = state_of_folder(provider.source)
    for number in range(30):
        (provider.source / f"{number}").write_bytes(os.urandom(9_000))
    (provider.source / "large too").write_bytes(os.urandom(200_000))
    sparse_file(provider.source / "sparse", 3)
    own, at = names(provider.store, PACKS), 0
    while True:
        plug = Plug(provider.store, at)
        try:
            result = provider.push(plug, jobs=1)
        except StoreError:
            at += 1
            if before is None:
                with pytest.raises(NotADatasetError):
                    Dataset.open(provider.store, provider.trust)
            else:
                assert provider.served() == before
            continue
        break
    assert at > 3
    assert result.snapshot is not None
    assert result.snapshot.version == version
    # one pack object more than the snapshot has is one that was cut off between its write and its journal line
    sent = names(provider.store, PACKS) - own
    used = {ref.name for ref in result.snapshot.packs} - own
    assert sent == used
    assert list(provider.served().items()) == list(state_of_folder(provider.source).items())


@pytest.mark.usefixtures("small_packs")
def test_a_file_changed_since_the_interruption_is_read_again(provider: Provider) -> None:
    for number in range(30):
        (provider.source / f"{number:02}").write_bytes(bytes([number]) * 9_000)
    with pytest.raises(StoreError):
        provider.push(Plug(provider.store, 5), jobs=1)
    for path in provider.source.iterdir():
        before = path.stat()
        path.write_bytes(bytes([255]) * 9_000)  # same size, and even the same time
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert provider.push().resumed == 0
    assert provider.served() == state_of_folder(provider.source)


@pytest.mark.usefixtures("small_packs")
def test_packs_that_the_store_lost_or_cut_in_between_are_sent_again(provider: Provider) -> None:
    for number in range(40):
        (provider.source / f"{number:02}").write_bytes(os.urandom(9_000))
    with pytest.raises(StoreError):
        provider.push(Plug(provider.store, 6), jobs=1)
    gone, cut, *rest = sorted(names(provider.store, PACKS))
    assert rest
    provider.store.delete([gone])
    data, _ = provider.store.get(cut, max_size=1 << 30)
    provider.store.put(cut, data[:-1])
    assert provider.push().resumed > 0
    assert provider.served() == state_of_folder(provider.source)
