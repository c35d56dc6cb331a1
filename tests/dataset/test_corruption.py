"""Every stored object flipped, cut, extended, swapped, deleted, rolled back: right bytes or an error."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataset.tools import State, names, opened, push, read, state_of_folder, state_of_view
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.objects import HEAD, INDEXES, KEYRINGS, PACKS, SNAPSHOTS, ObjectRef
from sealfs.dataset.snapshot import Head
from sealfs.dataset.trust import TrustStore
from sealfs.dataset.verify import Verdict, verify
from sealfs.errors import IntegrityError, SealfsError
from sealfs.floe import HEADER_SIZE, Encryptor, _Message, encrypt_with
from sealfs.keys import Identity
from sealfs.progress import Silent
from sealfs.pull import Pull
from sealfs.store.local import LocalStore

pytestmark = pytest.mark.error_logs  # a poisoned view says so loudly

KINDS = (HEAD, SNAPSHOTS, KEYRINGS, INDEXES, PACKS)


def in_pack_header(key: str, place: int) -> bool:
    """Whether nobody reads this byte: packs' headers are taken from the index."""
    return key.startswith(PACKS) and place < HEADER_SIZE


class Victim:
    """A small dataset of two versions, with its objects in memory to restore them from."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.identity, self.trust = Identity.generate(), TrustStore(top / "trust")
        self.store = LocalStore(top / "store", max_open_files=0)
        source = top / "source"
        (source / "folder").mkdir(parents=True)
        for number in range(5):
            (source / "folder" / f"{number}").write_bytes(os.urandom(700))
        (source / "large").write_bytes(os.urandom(9_000))
        (source / "link").symlink_to("large")
        self.states: dict[int, State] = {}
        self._push(source, 1)
        (source / "folder" / "1").write_bytes(os.urandom(700))
        (source / "new").write_bytes(os.urandom(3_000))
        self._push(source, 2)
        self.objects = {key: self.store.get(key, max_size=1 << 30)[0] for key in names(self.store)}

    def _push(self, source: Path, version: int) -> None:
        push(source, self.store, self.identity, self.trust, segment_length=1024)
        self.states[version] = state_of_folder(source)

    def of_kind(self, kind: str) -> list[str]:
        return sorted(key for key in self.objects if key.startswith(kind))

    def restore(self) -> None:
        for key in names(self.store) - self.objects.keys():
            self.store.delete([key])
        for key, data in self.objects.items():
            path = self.top / "store" / key
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)

    def write(self, key: str, data: bytes) -> None:
        (self.top / "store" / key).write_bytes(data)  # what an attacker with the bucket's keys does

    def attempt(self, version: int, trust: TrustStore | None = None) -> bool:
        """Open and read everything; False if something was refused. Wrong bytes fail the test."""
        try:
            with opened(self.store, self.identity, trust or self.trust, version) as view:
                state = state_of_view(view)
        except SealfsError:
            return False
        assert state == self.states[version], "WRONG BYTES WERE SERVED"
        return True

    def verdict(self, version: int, with_keys: bool) -> Verdict | None:
        """What verify says; None if the dataset does not even open."""
        try:
            dataset = Dataset.open(self.store, self.trust, version=version)
            keys = dataset.keys(self.identity) if with_keys else None
        except SealfsError:
            return None
        return verify(dataset, keys, Silent())

    def notices(self, key: str) -> None:
        """Check that verify, with keys and without, names `key` for one of the versions."""
        for with_keys in (False, True):
            verdicts = [self.verdict(version, with_keys) for version in (1, 2)]
            refused = any(verdict is None for verdict in verdicts)
            named = any(verdict is not None and key in verdict.bad_objects for verdict in verdicts)
            assert refused or named, f"verify {'with' if with_keys else 'without'} keys missed {key}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    with pytest.MonkeyPatch.context() as patch:
        top = tmp_path_factory.mktemp("victim")
        patch.setenv("XDG_STATE_HOME", str(top / "state"))
        patch.setattr("sealfs.dataset.packer.PACK_SIZE", 4096)
        yield Victim(top)


@pytest.fixture
def victim(made: Victim) -> Iterator[Victim]:
    made.restore()
    yield made
    made.restore()


def test_the_victim_is_well(victim: Victim) -> None:
    assert victim.attempt(1)
    assert victim.attempt(2)
    assert len(victim.of_kind(PACKS)) > 4
    for with_keys in (False, True):
        for version in (1, 2):
            verdict = victim.verdict(version, with_keys)
            assert verdict is not None
            assert verdict.is_good
            assert verdict.authenticated == with_keys


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes(victim: Victim, kind: str) -> None:
    dice = random.Random(kind)
    for key in victim.of_kind(kind):
        data = victim.objects[key]
        for place in sorted({0, len(data) - 1, *dice.sample(range(len(data)), 10)}):
            forged = bytearray(data)
            forged[place] ^= 1 << dice.randrange(8)
            victim.write(key, bytes(forged))
            results = [victim.attempt(1), victim.attempt(2)]
            if kind != HEAD and not in_pack_header(key, place):
                assert not all(results), f"byte {place} of {key} was believed"
        victim.notices(key)
        victim.write(key, data)


@pytest.mark.parametrize(
    ("kind", "step"), [(HEAD, 1), (PACKS, 7), *(pytest.param(kind, 1, marks=pytest.mark.slow) for kind in KINDS)]
)
def test_every_single_byte_of_a_small_object(victim: Victim, kind: str, step: int) -> None:
    key = min(victim.of_kind(kind), key=lambda key: len(victim.objects[key]))
    data = victim.objects[key]
    for place in range(0, len(data), step):
        victim.write(key, data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        served = victim.attempt(1) and victim.attempt(2)
        assert not served or kind == HEAD or in_pack_header(key, place)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_and_extended(victim: Victim, kind: str) -> None:
    for key in victim.of_kind(kind):
        data = victim.objects[key]
        for forged in (b"", data[:1], data[:73], data[:74], data[:-1], data[: len(data) // 2], data[:-32]):
            victim.write(key, forged)
            assert not (victim.attempt(1) and victim.attempt(2)), f"{key} cut to {len(forged)} was believed"
            victim.notices(key)
        for forged in (data + b"\0", data + data, b"\0" + data):
            victim.write(key, forged)
            victim.attempt(1)
            victim.attempt(2)
            if key != HEAD:
                victim.notices(key)
        victim.write(key, data)


@pytest.mark.parametrize("kind", KINDS)
def test_deleted(victim: Victim, kind: str) -> None:
    for key in victim.of_kind(kind):
        victim.store.delete([key])
        assert not (victim.attempt(1) and victim.attempt(2)), key
        victim.notices(key)
        victim.restore()


@pytest.mark.parametrize("kind", [SNAPSHOTS, KEYRINGS, INDEXES, PACKS])
def test_swapped_with_every_other_object_of_its_kind(victim: Victim, kind: str) -> None:
    keys = victim.of_kind(kind)
    for key in keys:
        for other in keys:
            if other != key:
                victim.write(key, victim.objects[other])
                assert not (victim.attempt(1) and victim.attempt(2)), f"{other} in the place of {key}"
        if len(keys) > 1:
            victim.notices(key)
        victim.write(key, victim.objects[key])


def test_rolled_back_one_by_one(victim: Victim, tmp_path: Path) -> None:
    """Each object replaced by its likes from the dataset as it was one version ago."""
    head_of_one = victim.objects[HEAD]
    first = Dataset.open(victim.store, victim.trust, version=1).ref
    victim.write(HEAD, Head(1, first).to_bytes())
    assert not victim.attempt(2)
    assert victim.verdict(2, with_keys=False) is None
    # somebody new cannot know better, but gets version 1 whole
    assert victim.attempt(1, TrustStore(tmp_path / "somebody new"))
    victim.write(HEAD, head_of_one)
    assert victim.attempt(2)


def test_objects_of_another_dataset_of_the_same_provider(victim: Victim, tmp_path: Path) -> None:
    other = LocalStore(tmp_path / "other")
    push(victim.top / "source", other, victim.identity, TrustStore(tmp_path / "trust"), segment_length=1024)
    for kind in (SNAPSHOTS, KEYRINGS, INDEXES, PACKS):
        for theirs in sorted(names(other, kind)):
            foreign = other.get(theirs, max_size=1 << 30)[0]
            for key in victim.of_kind(kind):
                victim.write(key, foreign)
                assert not (victim.attempt(1) and victim.attempt(2)), key
                victim.write(key, victim.objects[key])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(data=st.data())
def test_any_few_changes_at_once(victim: Victim, data: st.DataObject) -> None:
    victim.restore()
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from(sorted(victim.objects)))
        old = victim.objects[key]
        place = data.draw(st.integers(0, len(old) - 1))
        forgeries = [
            old[:place] + bytes([old[place] ^ 1]) + old[place + 1 :],
            old[:place],
            old + old[:place],
            old[:place] + bytes(len(old) - place),
            old[place:] + old[:place],
            victim.objects[data.draw(st.sampled_from(sorted(victim.objects)))],
        ]
        victim.write(key, data.draw(st.sampled_from(forgeries)))
    victim.attempt(1)
    victim.attempt(2)


def test_verify_with_keys_names_the_files_and_no_others(victim: Victim) -> None:
    dataset = Dataset.open(victim.store, victim.trust)
    index = dataset.index(dataset.keys(victim.identity))
    for path in (b"large", b"new", b"folder/3"):
        number = index.resolve(path)
        extent = index.extents(number)[0]
        pack = index.pack(extent.pack)
        segment = extent.offset // (1024 - 32)
        offset, _ = pack.layout.segment_range(segment)
        forged = bytearray(victim.objects[pack.name])
        forged[offset + 20] ^= 1
        victim.write(pack.name, bytes(forged))
        verdict = victim.verdict(2, with_keys=True)
        assert verdict is not None
        assert list(verdict.bad_objects) == [pack.name]
        room = 1024 - 32
        expected = [
            index.path(n)
            for n in index.walk()
            if index.entry(n).is_file
            and any(
                e.pack == extent.pack and e.offset // room <= segment <= (e.offset + e.length - 1) // room
                for e in index.extents(n)
            )
        ]
        assert path in expected
        assert verdict.bad_files == expected
        without = victim.verdict(2, with_keys=False)
        assert without is not None
        assert list(without.bad_objects) == [pack.name]
        assert without.bad_files == []
        victim.write(pack.name, victim.objects[pack.name])


def test_a_file_beside_the_damage_is_still_right_before_the_view_knows(victim: Victim) -> None:
    dataset = Dataset.open(victim.store, victim.trust)
    index = dataset.index(dataset.keys(victim.identity))
    large, small = index.resolve(b"large"), index.resolve(b"folder/0")
    bad = index.pack(index.extents(large)[0].pack).name
    assert bad != index.pack(index.extents(small)[0].pack).name
    victim.store.delete([bad])
    with opened(victim.store, victim.identity, victim.trust) as view:
        assert read(view, small) == victim.states[2][b"/folder/0"][2]
        with pytest.raises(IntegrityError, match=bad):
            read(view, large)
        with pytest.raises(IntegrityError):
            read(view, small)


def test_pull_leaves_whole_files_or_none(victim: Victim, tmp_path: Path) -> None:
    for key in victim.of_kind(PACKS):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        forged = bytearray(victim.objects[key])
        forged[len(forged) // 2] ^= 1
        victim.write(key, bytes(forged))
        with contextlib.suppress(IntegrityError), opened(victim.store, victim.identity, victim.trust) as view:
            Pull(view, tmp_path / "out", Silent()).run()
        for path, (_, _, content) in state_of_folder(tmp_path / "out").items():
            if (tmp_path / "out" / os.fsdecode(path[1:])).is_file():
                assert content == victim.states[2][path][2]
        victim.write(key, victim.objects[key])


def test_an_older_object_of_the_very_same_size_is_not_taken_for_the_newer(
    source: Path, local_store: LocalStore, identity: Identity, trust: TrustStore
) -> None:
    # same key, same dataset, same length: only the signed digest tells one version's index from another's
    for number in range(3):
        (source / "file").write_bytes(bytes([number]) * 3000)
        push(source, local_store, identity, trust)
    snapshots = [Dataset.open(local_store, trust, version=version).snapshot for version in (1, 2, 3)]
    first, newest = snapshots[0], snapshots[2]
    assert first.index.size == newest.index.size
    old, _ = local_store.get(first.index.name, max_size=1 << 20)
    good, _ = local_store.get(newest.index.name, max_size=1 << 20)
    local_store.put(newest.index.name, old)
    dataset = Dataset.open(local_store, trust)
    with pytest.raises(IntegrityError, match="not what the provider signed"):
        dataset.index(dataset.keys(identity))
    local_store.put(newest.index.name, good)
    assert dataset.index(dataset.keys(identity)).version == 3


@given(data=st.binary(min_size=1, max_size=50), other=st.binary(min_size=1, max_size=50))
def test_a_reference_takes_the_bytes_it_was_made_of_and_no_others(data: bytes, other: bytes) -> None:
    class One:
        def get(self, key: str, *, max_size: int) -> tuple[bytes, str]:
            return other, ""

    ref = ObjectRef.of("packs/x", data)
    if other == data:
        assert ref.fetch(One(), 50) == data  # type: ignore[arg-type]
    else:
        with pytest.raises(IntegrityError):
            ref.fetch(One(), 50)  # type: ignore[arg-type]
    with pytest.raises(IntegrityError, match="at most"):
        ref.fetch(One(), len(data) - 1)  # type: ignore[arg-type]


def test_what_a_recipient_forges_is_found_by_verify_and_pull(
    source: Path, tmp_path: Path, identity: Identity, trust: TrustStore, local_store: LocalStore
) -> None:
    """Whoever has the keys can seal other content at the same place: a reader of segments can't tell."""
    (source / "file").write_bytes(b"honest")
    push(source, local_store, identity, trust)
    dataset = Dataset.open(local_store, trust)
    keys = dataset.keys(identity)
    pack = dataset.index(keys).pack(0)
    forger, iv = object.__new__(Encryptor), pack.header[10:42]
    _Message.__init__(forger, keys.pack_key(pack.epoch), keys.dataset, pack.layout.segment_length, iv)
    assert forger.header == pack.header
    path = tmp_path / "store" / pack.name
    path.write_bytes(encrypt_with(forger, memoryview(b"forged")))
    with opened(local_store, identity, trust) as view:
        assert read(view, view.lookup(b"file")) == b"forged"
    with opened(local_store, identity, trust) as view, pytest.raises(IntegrityError, match="'file' is not what"):
        Pull(view, tmp_path / "pulled", Silent()).run([])
    assert os.listdir(tmp_path / "pulled") == []
    found = verify(Dataset.open(local_store, trust), keys, Silent())
    assert list(found.bad_objects) == [pack.name]
    assert found.bad_files == [b"file"]
