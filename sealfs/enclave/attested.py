"""Keys by evidence: asks the dataset's broker, proves this environment to it, and holds it to what it says.

The broker also says which version its owner has published. A store can serve an old snapshot, which is as authentic
as the new one; the owner's word is what tells them apart, also for a reader that has never seen the dataset.

Threading: for one thread.
"""

from __future__ import annotations

import re

from sealfs.attestation.detect import detect
from sealfs.attestation.evidence import EvidenceProvider
from sealfs.attestation.levels import Level
from sealfs.attestation.runner import RunnerProvider
from sealfs.broker.address import BrokerAddress
from sealfs.broker.client import BrokerClient, Released
from sealfs.broker.protocol import OWNER
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.keyring import DatasetKeys
from sealfs.dataset.snapshot import BrokerHint
from sealfs.enclave.keysource import KeySource, RunnerSecret
from sealfs.errors import KeyAccessError, TrustError, UsageError


class AttestedKeys:
    """Has keys released by brokers. One run: one key pair for each broker.

    Args:
        provider: Makes evidence here; None if nothing can be proven.
        broker: Which broker has all the datasets; None believes what each signed snapshot says.
        bound: Hex digest of what else evidence is to be bound to, such as a contract's.
    """

    def __init__(
        self, provider: EvidenceProvider | None, broker: BrokerHint | None = None, bound: str | None = None
    ) -> None:
        self._provider = provider
        self._broker = broker
        self._bound = bound
        self._clients: dict[str, BrokerClient] = {}
        self._level: Level | None = None

    def keys(self, dataset: Dataset) -> DatasetKeys:
        """See `KeySource`.

        Raises:
            KeyRefusedError: The broker refuses, and says why.
            KeyAccessError: No broker has its keys.
            TrustError: The store does not serve what the owner has published last.
            BrokerError: The broker can't be asked.
        """
        hint = self._broker or dataset.newest.broker
        if hint is None:
            raise KeyAccessError(
                f"no broker is known that has the keys of {dataset.store.uri}",
                "its provider names one with: sealfs push --broker",
            )
        client = self._clients.get(hint.url)
        if client is None:
            address = BrokerAddress.parse(hint.url)
            client = self._clients[hint.url] = BrokerClient(address, self._provider, bound=self._bound)
        snapshot = dataset.snapshot
        is_newest = snapshot is dataset.newest
        released = client.resource(hint.owner, snapshot.dataset, None if is_newest else snapshot.version)
        check_published(dataset, released)
        self._level = min(self._level or released.level, released.level)
        return released.keys

    @property
    def proven(self) -> str | None:
        """See `KeySource`: the least that any broker has found."""
        return str(self._level) if self._level is not None else None


def check_published(dataset: Dataset, released: Released) -> None:
    """Make sure that a dataset is opened as its owner has published it.

    Raises:
        TrustError: It is older, or not published yet, or something else altogether.
    """
    snapshot = dataset.snapshot
    if snapshot.signer != released.signer:
        raise TrustError(
            f"{dataset.store.uri} is signed by {snapshot.signer}, but its owner's broker says {released.signer}",
            "the store serves another's data: tell its operator and the provider",
        )
    if snapshot.version < released.version:
        raise TrustError(
            f"the store serves version {snapshot.version}, but the owner has published {released.version}",
            "the store is rolled back or stale: tell its operator and the provider",
        )
    if snapshot.version > released.version:
        raise TrustError(
            f"the store serves version {snapshot.version}, but the owner has published {released.version} only",
            "a push is not complete: its provider has to run it again",
        )
    if dataset.ref.sha256 != released.sha256:
        raise TrustError(
            f"version {snapshot.version} in the store is not the one that the owner has published",
            "the dataset has two histories: ask the provider which one is right",
        )


class OwnKeysFirst:
    """An identity's own keys where it is a recipient; else by evidence, if the dataset has a broker.

    Args:
        own: The identity's; or why there is none.
        attested: Asked for everything else.
    """

    def __init__(self, own: KeySource | KeyAccessError, attested: AttestedKeys) -> None:
        self._own = own
        self._attested = attested

    def keys(self, dataset: Dataset) -> DatasetKeys:
        """See `KeySource`."""
        try:
            if isinstance(self._own, KeyAccessError):
                raise self._own
            return self._own.keys(dataset)
        except KeyAccessError:
            if dataset.newest.broker is None:
                raise
        return self._attested.keys(dataset)

    @property
    def proven(self) -> str | None:
        """See `KeySource`."""
        return self._attested.proven


def keys_for_evidence(runner: str | None, broker: str | None) -> AttestedKeys:
    """Return what has keys released to this process.

    Args:
        runner: What a runner has handed to it; None for the evidence of the hardware that it runs on.
        broker: `OWNER@URL`; None for the brokers that snapshots name.

    Raises:
        KeyAccessError: The runner has handed something else.
        UsageError: That is no broker.
    """
    return AttestedKeys(provider_for(runner), parse_hint(broker) if broker else None)


def provider_for(runner: str | None) -> EvidenceProvider | None:
    """Return what makes evidence for this process; None if nothing can be proven.

    Args:
        runner: What a runner has handed to it; None for the evidence of the hardware that it runs on.

    Raises:
        KeyAccessError: The runner has handed something else.
    """
    if runner is None:
        return detect()
    secret = RunnerSecret.parse(runner)
    return RunnerProvider(secret.identity, secret.manifest)


def parse_hint(text: str) -> BrokerHint:
    """Read `OWNER@URL`.

    Raises:
        UsageError: It is not of that form.
    """
    owner, at, url = text.partition("@")
    if not at or not re.fullmatch(OWNER, owner):
        raise UsageError(f"'{text[:200]}' is not OWNER@URL", "such as hospital@https://host:8600#sha256:...")
    return BrokerHint(str(BrokerAddress.parse(url)), owner)
