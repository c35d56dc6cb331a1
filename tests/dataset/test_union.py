"""Several owners' datasets as one folder: in the order agreed, and nobody in anybody else's place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dataset.tools import push, state_of_view
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.reader import PackReader
from sealfs.dataset.trust import TrustStore
from sealfs.dataset.union import Member, UnionPacks, merge
from sealfs.errors import IntegrityError, UsageError
from sealfs.keys import Identity
from sealfs.store.local import LocalStore
from sealfs.store.source import DirectSource
from sealfs.vfs import View


class Owner:
    """Somebody with a folder, sealed."""

    def __init__(self, folder: Path, name: str, files: dict[str, bytes]) -> None:
        self.name = name
        self.plain = folder / name
        for path, content in files.items():
            (self.plain / path).parent.mkdir(parents=True, exist_ok=True)
            (self.plain / path).write_bytes(content)
        self.store = LocalStore(folder / f"store-{name}")
        self.identity = Identity.generate()
        trust = TrustStore(folder / f"trust-{name}")
        push(self.plain, self.store, self.identity, trust)
        self.dataset = Dataset.open(self.store, trust)
        self.keys = self.dataset.keys(self.identity)

    def member(self, prefix: bytes = b"") -> Member:
        return Member(self.name, self.dataset.index(self.keys), self.keys, prefix)


def view(owners: list[Owner], members: list[Member]) -> View:
    union = merge(members)
    readers = [
        PackReader(m.index, o.keys, DirectSource(o.store), 1 << 20) for o, m in zip(owners, members, strict=True)
    ]
    return View(union.index, UnionPacks(union, readers))


@pytest.fixture
def banks(tmp_path: Path) -> list[Owner]:
    a = Owner(tmp_path, "a", {"1.csv": b"a one", "deep/er/2.csv": os.urandom(100_000), "empty/x": b""})
    b = Owner(tmp_path, "b", {"1.csv": b"b one", "3.csv": b"b three" * 1000})
    return [a, b]


def test_one_folder_with_everybodys_files(banks: list[Owner]) -> None:
    members = [banks[0].member(b"a_"), banks[1].member(b"b_")]
    seen = view(banks, members)
    names = [name for name, _ in seen.list(0)]
    assert set(names) == {b"a_1.csv", b"a_deep", b"a_empty", b"b_1.csv", b"b_3.csv"}
    assert all(name.startswith(b"a_") for name in names[:3])  # in the order of the contract
    state = state_of_view(seen)
    for owner, prefix in zip(banks, ("a_", "b_"), strict=True):
        for path in owner.plain.rglob("*"):
            if path.is_file():
                name = f"/{prefix}{path.relative_to(owner.plain)}"
                assert state[name.encode()][2] == path.read_bytes(), name
    seen.close()


def test_names_that_clash_are_an_error_and_nobodys_choice(banks: list[Owner]) -> None:
    with pytest.raises(UsageError, match=r"'1\.csv' is in 'a' and in 'b'"):
        merge([owner.member() for owner in banks])
    merge([banks[0].member(), banks[1].member(b"b_")])


def test_nobody_puts_a_file_among_anothers(banks: list[Owner], tmp_path: Path) -> None:
    smuggler = Owner(tmp_path, "c", {"a_4.csv": b"pretends to be of bank a"})
    with pytest.raises(UsageError, match=r"'a_4\.csv' of 'c' looks like one of 'a'"):
        merge([banks[0].member(b"a_"), smuggler.member()])
    merged = Owner(tmp_path, "d", {"deep/er/5.csv": b"into the folder of bank a"})
    with pytest.raises(UsageError, match="'deep' is in"):
        merge([banks[0].member(), merged.member()])


@pytest.mark.error_logs
def test_damage_of_one_owners_store_poisons_the_whole(banks: list[Owner]) -> None:
    members = [banks[0].member(b"a_"), banks[1].member(b"b_")]
    (pack,) = (Path(str(banks[1].store.uri).removeprefix("file://")) / "packs").iterdir()
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    seen = view(banks, members)
    out = memoryview(bytearray(5))
    assert seen.read_into(seen.lookup(b"a_1.csv"), 0, out) == 5
    with pytest.raises(IntegrityError):
        seen.read_into(seen.lookup(b"b_1.csv"), 0, out)
    with pytest.raises(IntegrityError):
        seen.lookup(b"a_1.csv")


def test_many_epochs_of_many_owners(tmp_path: Path) -> None:
    from sealfs.dataset.access import AccessChange
    from sealfs.progress import Silent

    owners = [Owner(tmp_path, f"o{n}", {f"{n}.bin": bytes([n]) * 1000}) for n in range(5)]
    for owner in owners[::2]:
        trust = TrustStore(tmp_path / f"trust-{owner.name}")
        AccessChange(owner.store, owner.identity, trust).rotate(False, Silent())
        (owner.plain / "later").mkdir()
        (owner.plain / "later" / f"{owner.name}").write_bytes(owner.name.encode())
        push(owner.plain, owner.store, owner.identity, trust)
        owner.dataset = Dataset.open(owner.store, trust)
        owner.keys = owner.dataset.keys(owner.identity)
    members = [owner.member(f"{owner.name}-".encode()) for owner in owners]
    assert len(merge(members).epochs) == 8
    seen = view(owners, members)
    for number, owner in enumerate(owners):
        out = memoryview(bytearray(1000))
        seen.read_into(seen.lookup(f"{owner.name}-{number}.bin".encode()), 0, out)
        assert bytes(out) == bytes([number]) * 1000
    out = memoryview(bytearray(2))
    seen.read_into(seen.lookup(b"o2-later/o2"), 0, out)
    assert bytes(out) == b"o2"
    seen.close()
