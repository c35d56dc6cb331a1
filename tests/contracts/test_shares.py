"""A dataset of several owners on the command line: shares that only their owners can take, at a broker each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from commands import InProcess

from contracts.world import RUN, World, three_brokers
from sealfs.attestation.sample import SampleProvider
from sealfs.contracts.terms import Input, SealedData
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.errors import KeyRefusedError
from sealfs.keys import Identity
from sealfs.store.local import LocalStore
from sealfs.tasks.inside import release

POLICY = 'level = "L1"\ndevelopment = true\ncontract = true\n'


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with three_brokers(tmp_path) as found:
        yield found


def test_shares_from_the_pusher_to_each_owners_broker(world: World, tmp_path: Path) -> None:
    users = {name: InProcess(tmp_path / f"home-{name}", world[name].identity) for name in ("bank-a", "bank-b")}
    plain, store, policy = tmp_path / "plain", tmp_path / "store", tmp_path / "policy.toml"
    plain.mkdir()
    (plain / "1").write_text("5\n")
    policy.write_text(POLICY)
    a, b = users["bank-a"], users["bank-b"]
    for name, user in users.items():
        (tmp_path / f"{name}.pub").write_text(user.identity_path.with_name("identity.pub").read_text())
    a("push", plain, store)
    owners = [tmp_path / "bank-a.pub", tmp_path / "bank-b.pub"]
    files = [Path(line) for line in a("task", "share", store, *owners, "--to", tmp_path / "shares").lines]
    assert [path.name for path in files] == ["bank-a.share", "bank-b.share"]
    brokers = {name: world[name].party.broker for name in users}
    assert "does not open" in b("task", "entrust", files[0], "--broker", brokers["bank-b"], code=4).complaint
    a("task", "entrust", files[0], "--broker", brokers["bank-a"], "--policy", policy)
    stat = a("stat", store, "--json").json
    opened = LocalStore(store)
    dataset = Dataset.open(opened, TrustStore(tmp_path / "pins"))
    data = SealedData(stat["dataset"], stat["version"], dataset.ref.sha256.hex(), opened.uri)
    opened.close()
    joint = {"joint": Input(("bank-a", "bank-b"), world.data_path, "", data)}
    task = world.approved(world.contract(inputs=joint))
    with pytest.raises(KeyRefusedError, match="no bank-b/"):
        release(task.contract, Identity.generate(), RUN, SampleProvider())
    b("task", "entrust", files[1], "--broker", brokers["bank-b"], "--policy", policy)
    keys = release(task.contract, Identity.generate(), RUN, SampleProvider()).keys["joint"]
    assert keys.pack() == dataset.keys(world["bank-a"].identity).pack()


def test_no_share_takes_anothers_place(tmp_path: Path) -> None:
    user = InProcess(tmp_path / "home", Identity.generate())
    owners = [tmp_path / name / "key.pub" for name in ("bank-a", "bank-b")]
    for path in owners:
        path.parent.mkdir()
        made = Identity.generate()
        path.write_text(f"{made.recipient}\n{made.signer}\n")
    shared = user("task", "share", tmp_path / "store", *owners, "--to", tmp_path / "shares", code=2)
    assert "the same name" in shared.complaint
    assert not (tmp_path / "shares").exists()


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 10**5, b'{"format":"sealfs-share-1"}'])
def test_what_is_no_share(tmp_path: Path, content: bytes) -> None:
    user = InProcess(tmp_path / "home", Identity.generate())
    path = tmp_path / "x.share"
    path.write_bytes(content)
    user("task", "entrust", path, "--broker", f"https://127.0.0.1:1#sha256:{'0' * 64}", code=2)
    user("task", "entrust", tmp_path / "none", "--broker", f"https://127.0.0.1:1#sha256:{'0' * 64}", code=9)
