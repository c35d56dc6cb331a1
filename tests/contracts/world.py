"""Three brokers, four parties, their data: everything that an agreement needs, on loopback."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from broker.tools import Broker, serving, wrapper

from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.attestation.verdict import RegisteredManifest
from sealfs.broker.client import BrokerClient, Released
from sealfs.broker.exchange import bring, exchange
from sealfs.broker.home import create, open_home
from sealfs.contracts.contract import Contract
from sealfs.contracts.shares import split
from sealfs.contracts.task import Task
from sealfs.contracts.terms import Function, Input, Output, Party, SealedData
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.push import Push, PushOptions
from sealfs.dataset.trust import TrustStore
from sealfs.keys import Identity, Signer
from sealfs.store.local import LocalStore

ONLY_BY_CONTRACT = Policy(Level.L1, development=True, contract=True)
RUN = "ab" * 16  # a run's id
LOANS = {"a": {"1": b"1\n2\n", "2": b"4\n"}, "b": {"1": b"10\n20\n"}}
SCRIPT = b"""
import os, sys
data, out = sys.argv[1:3]
lines = []
for name in sorted(os.listdir(data)):
    with open(os.path.join(data, name)) as file:
        lines.append(f"{name}={sum(map(int, file))}")
with open(os.path.join(out, "sums"), "w") as file:
    file.write(" ".join(lines))
print("trained on", len(lines), "files; setting", os.environ.get("SETTING"))
"""


@dataclass
class Somebody:
    """A party: their identity, their broker, and what they have sealed."""

    name: str
    identity: Identity
    broker: Broker | None = None
    data: dict[str, SealedData] = field(default_factory=dict)
    keys: dict[str, DatasetKeys] = field(default_factory=dict)

    @property
    def party(self) -> Party:
        address = str(self.broker.address) if self.broker else None
        return Party(self.identity.signer, self.identity.recipient, address)


class World:
    """All of them.

    Args:
        folder: The test's.
        parties: By name.
    """

    def __init__(self, folder: Path, parties: dict[str, Somebody]) -> None:
        self.folder = folder
        self.parties = parties
        self.script = folder / "train.py"
        self.script.write_bytes(SCRIPT)
        self.data_path = str(folder / "run" / "data")
        self.out_path = str(folder / "run" / "out")
        (folder / "run").mkdir()

    def __getitem__(self, name: str) -> Somebody:
        return self.parties[name]

    def seal(
        self, owner: str, name: str, files: dict[str, bytes], *others: str, policy: Policy | None = None
    ) -> SealedData:
        """Seal files as a push would, and entrust the key, or a share of it each, to the owners' brokers."""
        plain = self.folder / f"plain-{name}"
        plain.mkdir(exist_ok=True)
        for path, content in files.items():
            (plain / path).parent.mkdir(parents=True, exist_ok=True)
            (plain / path).write_bytes(content)
        somebody = self[owner]
        with contextlib.closing(LocalStore(self.folder / f"store-{name}")) as store:
            trust = TrustStore(self.folder / "trust" / name)
            Push(plain, store, somebody.identity, trust, PushOptions()).run()
            dataset = Dataset.open(store, trust)
            keys = dataset.keys(somebody.identity)
            snapshot = dataset.snapshot
            data = SealedData(snapshot.dataset.hex(), snapshot.version, dataset.ref.sha256.hex(), store.uri)
        owners = [owner, *others]
        shares = split(keys, [self[each].identity.signer for each in owners]) if others else [keys]
        for each, share in zip(owners, shares, strict=True):
            self.publish(each, share, data, somebody.identity.signer, policy)
        somebody.data[name], somebody.keys[name] = data, keys
        return data

    def seal_loans(self) -> None:
        """What the contract is about: a dataset of each bank."""
        for letter, files in LOANS.items():
            self.seal(f"bank-{letter}", f"loans-{letter}", files)

    def publish(
        self, owner: str, keys: DatasetKeys, data: SealedData, signer: Signer, policy: Policy | None = None
    ) -> None:
        broker = self[owner].broker
        assert broker is not None
        member = broker.member()
        revision = member.held(keys.dataset).revision
        snapshot = bytes.fromhex(data.snapshot)
        member.publish(keys, data.version, snapshot, signer, policy or ONLY_BY_CONTRACT, revision)

    def damage(self, name: str) -> None:
        """Flip a bit of what was sealed."""
        for pack in (self.folder / f"store-{name}" / "packs").iterdir():
            data = bytearray(pack.read_bytes())
            data[-1] ^= 1
            pack.chmod(0o600)
            pack.write_bytes(data)

    def rehearse(self, runner: Signer, manifest: str) -> Policy:
        """Have the banks demand one manifest (L2), and their brokers believe a runner; returns what they demand."""
        demanded = Policy(Level.L2, measurements={"sealfs-runner": frozenset({manifest})})
        for letter in "ab":
            owner = f"bank-{letter}"
            self.seal(owner, f"loans-{letter}", {"rehearsal": b"7\n"}, policy=replace(demanded, contract=True))
            broker = self[owner].broker
            assert broker is not None
            enrolled = {"kind": "sealfs-runner", "name": "node-1", "value": str(runner), "revision": 0}
            broker.member().call("enrol", enrolled)
            broker.member().register(RegisteredManifest(manifest, Level.L2))
        return demanded

    def contract(self, **changes: Any) -> Contract:
        """Two banks' data as one folder, a public script, results for the first bank."""
        begin = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
        import hashlib

        agreed = Contract(
            id=os.urandom(16).hex(),
            title="Loans that fail",
            creator="bank-a",
            operator="cloud",
            parties={name: somebody.party for name, somebody in self.parties.items()},
            function=Function(
                "sums",
                "model-co",
                public=False,
                executor="native",
                script="train.py",
                sha256=hashlib.sha256(SCRIPT).hexdigest(),
                arguments=(self.data_path, self.out_path),
                environment={"SETTING": "agreed"},
            ),
            inputs={
                f"loans-{letter}": Input(
                    (f"bank-{letter}",),
                    self.data_path,
                    f"{letter}_",
                    self[f"bank-{letter}"].data.get(f"loans-{letter}"),
                )
                for letter in "ab"
            },
            outputs={"model": Output(("bank-a",), self.out_path, 1 << 20)},
            policy=Policy(Level.L1, development=True),
            network="services",
            stdout="sealed",
            not_before=begin,
            expires=begin + timedelta(days=1),
            runs=2,
        )
        return replace(agreed, **changes)

    def approved(self, agreed: Contract | None = None, but: tuple[str, ...] = ()) -> Task:
        """A task that everybody has signed, brought to every broker."""
        task = Task(agreed or self.contract())
        for name in task.contract.approvers:
            if name not in but:
                task = task.approve(self[name].identity, datetime.now(UTC))
        self.bring(task)
        return task

    def bring(self, task: Task, *names: str) -> None:
        """Bring a task to brokers, by their owners."""
        for somebody in self.parties.values():
            if somebody.broker is not None and (not names or somebody.name in names):
                bring(somebody.broker.member(), task)

    def known_to(self, name: str, task: Task) -> Task:
        """What a party's broker knows of a task."""
        broker = self[name].broker
        assert broker is not None
        return exchange(broker.address, task)

    def log_of(self, name: str) -> list[dict[str, Any]]:
        """The records of a broker's log, verified."""
        broker = self[name].broker
        assert broker is not None
        return list(broker.member().log())


@contextlib.contextmanager
def three_brokers(folder: Path) -> Iterator[World]:
    """Two banks and a model company with a broker each, and an operator without."""
    with contextlib.ExitStack() as stack:
        parties = {}
        for name in ("bank-a", "bank-b", "model-co", "cloud"):
            identity = Identity.generate()
            parties[name] = Somebody(name, identity)
            if name == "cloud":
                continue
            home = folder / f"broker-{name}"
            home.mkdir()
            key = wrapper(home)
            create(home / "home", key, identity.signer, name)
            opened = stack.enter_context(contextlib.closing(open_home(home / "home", key)))
            address, clock, intel = stack.enter_context(serving(opened))
            parties[name] = Somebody(name, identity, Broker(opened, address, identity, clock, intel))
        yield World(folder, parties)


def client(world: World, owner: str, bound: str | None) -> BrokerClient:
    """What an enclave without evidence asks an owner's broker with."""
    broker = world[owner].broker
    assert broker is not None
    return BrokerClient(broker.address, None, bound=bound)


def ask(world: World, owner: str, bound: Contract | str | None, name: str | None = None) -> Released:
    """Ask an owner's broker for their data, as an enclave that is bound to a contract would."""
    data = world[owner].data[name or f"loans-{owner[-1]}"]
    digest = bound.digest if isinstance(bound, Contract) else bound
    return client(world, owner, digest).resource(owner, bytes.fromhex(data.dataset), data.version)


def plain_results(folder: Path) -> dict[str, str]:
    """What results hold, once opened."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def dumps(value: object) -> bytes:
    return json.dumps(value).encode()
