"""Frozen datasets: whatever format they have, this version reads them to the recorded digests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest
from dataset.tools import opened, push, read, state_of_folder, state_of_view

from golden.make_golden import PASSPHRASE, describe, make
from sealfs.dataset.dataset import Dataset, Summary
from sealfs.dataset.gc import delete_garbage, find_garbage
from sealfs.dataset.trust import TrustStore
from sealfs.dataset.verify import verify
from sealfs.errors import KeyAccessError
from sealfs.keys import Identity, load_identity
from sealfs.progress import Silent
from sealfs.pull import Pull
from sealfs.store.local import LocalStore
from sealfs.vfs import View

HERE = Path(__file__).parent
FORMATS = sorted(path.name for path in HERE.glob("format-*"))
ALL = [
    (form, dataset.stem, version)
    for form in FORMATS
    for dataset in sorted((HERE / form).glob("*.json"))
    for version in json.loads(dataset.read_text())
]


def expected(form: str, dataset: str, version: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((HERE / form / f"{dataset}.json").read_text())[version]
    return found


def identity(form: str, name: str, tmp_path: Path, passphrase: str | None = None) -> Identity:
    path = tmp_path / f"{name}.identity"
    path.write_bytes((HERE / form / f"{name}.identity").read_bytes())
    path.chmod(0o600)  # which version control does not keep
    return load_identity(path, passphrase)


def described(view: View) -> list[dict[str, Any]]:
    found = []
    for path, (mode, mtime_ns, content) in state_of_view(view).items():
        entry: dict[str, Any] = {"path": path.decode("latin-1"), "mode": mode, "mtime_ns": mtime_ns}
        if stat.S_ISLNK(mode):
            entry["target"] = content.decode("latin-1")
        elif stat.S_ISREG(mode):
            entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            number = view.lookup(path)
            assert view.index.sha256(number).hex() == entry["sha256"]
            assert read(view, number, len(content) // 3, 100) == content[len(content) // 3 :][:100]
        found.append(entry)
    return found


def test_there_is_something_to_read() -> None:
    assert "format-1" in FORMATS
    assert len(ALL) >= 6
    for form in FORMATS:
        assert sum(p.stat().st_size for p in (HERE / form).rglob("*") if p.is_file()) < 300_000


@pytest.mark.parametrize(("form", "dataset", "version"), ALL)
def test_every_version_reads_as_recorded(
    form: str, dataset: str, version: str, trust: TrustStore, tmp_path: Path
) -> None:
    provider = identity(form, "provider", tmp_path)
    with opened(LocalStore(HERE / form / dataset), provider, trust, int(version)) as view:
        assert described(view) == expected(form, dataset, version)


@pytest.mark.parametrize("form", FORMATS)
def test_the_frozen_data_is_as_varied_as_it_should_be(form: str, trust: TrustStore, tmp_path: Path) -> None:
    dataset = Dataset.open(LocalStore(HERE / form / "many"), trust, version=4)
    index = dataset.index(dataset.keys(identity(form, "provider", tmp_path)))
    assert len(index.extents(index.resolve(b"large"))) > 3
    assert any(extent.pack == 0xFFFFFFFF for extent in index.extents(index.resolve(b"sparse")))
    assert {index.pack(n).epoch for n in range(index.packs)} == {1, 2}
    assert index.entry(index.resolve(b"link")).is_symlink
    index.resolve(b"odd \xff\xfe names/new\nline")


@pytest.mark.parametrize(("form", "dataset", "version"), [one for one in ALL if one[2] in {"1", "5"}])
def test_pull_and_verify(form: str, dataset: str, version: str, trust: TrustStore, tmp_path: Path) -> None:
    provider, store = identity(form, "provider", tmp_path), LocalStore(HERE / form / dataset)
    snapshot = Dataset.open(store, trust, version=int(version))
    for keys in (None, snapshot.keys(provider)):
        assert verify(snapshot, keys, Silent()).is_good
    with opened(store, provider, trust, int(version)) as view:
        Pull(view, tmp_path / "out", Silent()).run()
    found = sorted(describe(os.fsencode(tmp_path / "out")), key=lambda entry: entry["path"])
    assert found == sorted(expected(form, dataset, version), key=lambda entry: entry["path"])


@pytest.mark.parametrize("form", FORMATS)
def test_the_locked_and_since_revoked_reader_opens_what_it_could(
    form: str, trust: TrustStore, tmp_path: Path
) -> None:
    reader, store = identity(form, "reader", tmp_path, PASSPHRASE), LocalStore(HERE / form / "many")
    for version in ("1", "2", "3", "4"):
        with opened(store, reader, trust, int(version)) as view:
            assert described(view) == expected(form, "many", version)
    with pytest.raises(KeyAccessError):
        Dataset.open(store, trust).keys(reader)


@pytest.mark.parametrize("form", FORMATS)
def test_messages_are_kept(form: str, trust: TrustStore, tmp_path: Path) -> None:
    provider, store, told = identity(form, "provider", tmp_path), LocalStore(HERE / form / "many"), []
    for version in range(1, 6):
        dataset = Dataset.open(store, trust, version=version)
        summary = Summary.open(dataset.snapshot, dataset.keys(provider))
        told.append((summary.action, summary.message))
    assert told == [
        ("push", "first, for two"),
        ("push", "a file of several packs \N{SNOWMAN}"),
        ("rotate", ""),
        ("push", "two epochs in one version"),
        ("revoke", ""),
    ]


@pytest.mark.parametrize("form", FORMATS)
def test_a_frozen_dataset_can_be_gone_on_with(form: str, trust: TrustStore, tmp_path: Path) -> None:
    provider = identity(form, "provider", tmp_path)
    shutil.copytree(HERE / form / "many", tmp_path / "store")
    store = LocalStore(tmp_path / "store")
    with opened(store, provider, trust) as view:
        Pull(view, tmp_path / "source", Silent()).run()
    assert push(tmp_path / "source", store, provider, trust).plan.pending_size == 0
    (tmp_path / "source" / "more").write_bytes(b"more" * 1000)
    result = push(tmp_path / "source", store, provider, trust)
    assert result.plan.pending_size == 4000
    delete_garbage(store, find_garbage(store, trust, keep=1))
    with opened(store, provider, trust) as view:
        assert state_of_view(view) == state_of_folder(tmp_path / "source")
    store.close()


def test_the_maker_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("sealfs.dataset.packer.PACK_SIZE", 1)  # to have it put back
    make(tmp_path / "made")
    assert {path.name for path in (tmp_path / "made").iterdir()} >= {"many", "default", "many.json"}
