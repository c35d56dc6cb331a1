"""A broker in this process or in one of its own, on a folder of the test's, and who deals with it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sealfs.attestation.policy import Policy
from sealfs.attestation.runner import RunnerProvider
from sealfs.attestation.verdict import RegisteredManifest
from sealfs.broker.address import BrokerAddress
from sealfs.broker.client import BrokerClient
from sealfs.broker.home import Home, create, open_home
from sealfs.broker.owner import BrokerMember
from sealfs.broker.serve import Options, application, verifier_for
from sealfs.broker.wrapping import FileWrapper
from sealfs.dataset.keyring import DatasetKeys
from sealfs.keys import Identity

MANIFEST = "ab" * 32  # what a runner says it runs
DIGEST = bytes(range(32))  # of a snapshot that nobody fetches
DEVELOPMENT = Policy.from_json({"level": "L1", "development": True})
REHEARSAL = Policy.from_json({"level": "L2", "measurements": {"sealfs-runner": [MANIFEST]}})
STRICT = Policy.from_json({"measurements": {"sgx": ["cd" * 32]}})


class Clock:
    """A clock that tests can move."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> datetime:
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + self.offset, UTC)


@dataclass
class Broker:
    """A broker that answers over TLS, and everybody's keys.

    Attributes:
        home: Open while it runs.
        address: Where it is.
        owner: Its first member: admin, owner and auditor in one.
        clock: Its clock.
    """

    home: Home
    address: BrokerAddress
    owner: Identity
    clock: Clock

    def member(self, identity: Identity | None = None) -> BrokerMember:
        return BrokerMember(self.address, identity or self.owner)

    def publish(self, policy: Policy | None, keys: DatasetKeys | None = None, version: int = 1) -> DatasetKeys:
        """Put a dataset there as a push would; returns its keys."""
        keys = keys or DatasetKeys.generate(os.urandom(16))
        member = self.member()
        revision = member.held(keys.dataset).revision
        member.publish(keys, version, digest_of(version), self.owner.signer, policy, revision)
        return keys

    def runner(self, manifest: str = MANIFEST, level: str = "L2") -> RunnerProvider:
        """Enrol a runner, register what it runs, and return what makes its evidence."""
        from sealfs.attestation.levels import Level

        identity = Identity.generate()
        member = self.member()
        name = identity.recipient.fingerprint
        member.call("enrol", {"kind": "sealfs-runner", "name": name, "value": str(identity.signer), "revision": 0})
        member.register(RegisteredManifest(manifest, Level.parse(level)))
        return RunnerProvider(identity, manifest)

    def client(self, provider: RunnerProvider | None = None) -> BrokerClient:
        return BrokerClient(self.address, provider)


def digest_of(version: int) -> bytes:
    """The digest of a snapshot that nobody fetches."""
    return bytes([version]) * 32


def wrapper(folder: Path) -> FileWrapper:
    path = folder / "broker.key"
    return FileWrapper(path) if path.exists() else FileWrapper.create(path)


def made(folder: Path, owner: Identity) -> FileWrapper:
    """Make a broker in a folder; returns what opens it."""
    key = wrapper(folder)
    create(folder / "home", key, owner.signer, "owner")
    return key


@contextlib.contextmanager
def running(folder: Path, owner: Identity, options: Options | None = None) -> Iterator[Broker]:
    """A broker in a thread of this process, made if it is not there yet."""
    key = wrapper(folder)
    if not (folder / "home").exists():
        create(folder / "home", key, owner.signer, "owner")
    with contextlib.closing(open_home(folder / "home", key)) as home, serving(home, options) as (address, clock):
        yield Broker(home, address, owner, clock)


@contextlib.contextmanager
def serving(home: Home, options: Options | None = None) -> Iterator[tuple[BrokerAddress, Clock]]:
    """Serve an open broker from a thread, as `serve` does from the main thread."""
    from sealfs.broker import serve

    clock = Clock()
    options = options or Options(port=0)
    server = serve.Service(application(home, verifier_for, options, clock), home, options)
    ready = threading.Event()
    thread = threading.Thread(target=server.run, args=(lambda address: ready.set(),), name="sealfs-test-broker")
    thread.start()
    try:
        assert ready.wait(30)
        yield server.address, clock
    finally:
        server.stop()
        thread.join()
