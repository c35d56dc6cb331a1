"""A version is named by its number or its digest, and what is served under either name is it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.push import Push
from sealfs.dataset.trust import TrustStore
from sealfs.dataset.version import split_version, with_version
from sealfs.errors import NotADatasetError
from sealfs.keys import Identity
from sealfs.store.local import LocalStore


@given(
    address=st.text(min_size=1).filter(lambda text: split_version(text)[1] is None),
    version=st.none() | st.integers(1, 999_999_999) | st.binary(min_size=32, max_size=32),
)
def test_what_is_written_is_read(address: str, version: int | bytes | None) -> None:
    assert split_version(with_version(address, version)) == (address, version)


@pytest.mark.parametrize("uri", ["s3://bucket/a@", "/a@b", "/a@sha256:00", f"/a@sha256:{'0G' * 32}", "@3", "/a@-1"])
def test_what_names_no_version_is_an_address(uri: str) -> None:
    assert split_version(uri) == (uri, None)


def test_digest_names_the_snapshot(
    tree: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    Push(tree, local_store, identity, trust).run()
    (tree / "added").write_text("second")
    Push(tree, local_store, identity, trust).run()
    first, second = (Dataset.open(local_store, trust, version=number) for number in (1, 2))
    for dataset in (first, second):
        again = Dataset.open(local_store, trust, version=dataset.ref.sha256)
        assert (again.ref, again.snapshot) == (dataset.ref, dataset.snapshot)
    with pytest.raises(NotADatasetError, match=f"no version sha256:{'00' * 32}"):
        Dataset.open(local_store, trust, version=bytes(32))
