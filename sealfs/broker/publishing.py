"""What a provider does at their broker when a dataset changes: put the keys and the newest version there.

The store comes first: its head has moved when the broker is told. Until it knows, readers that ask it are refused,
because a version that the owner has not published could be the store's own. Telling it again does no harm.

Threading: one thread.
"""

from __future__ import annotations

from dataclasses import dataclass

from sealfs.attestation.policy import Policy
from sealfs.broker.address import BrokerAddress
from sealfs.broker.checkpoints import CheckpointStore
from sealfs.broker.members import Role
from sealfs.broker.owner import BrokerMember, Greeting
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.snapshot import BrokerHint
from sealfs.errors import KeyRefusedError, SealfsError, TrustError, UsageError
from sealfs.keys import Identity, Recipient


@dataclass(frozen=True, slots=True)
class Published:
    """What the broker knows now.

    Attributes:
        version: Of the dataset.
        policy: What it demands.
        withdrawn: Whether nothing is released all the same.
    """

    version: int
    policy: Policy
    withdrawn: bool


class Publishing:
    """A provider's dealings with the broker of one dataset.

    Args:
        address: Which broker.
        identity: The provider's.
        checkpoints: How far the provider has seen brokers' logs.
    """

    def __init__(
        self, address: BrokerAddress, identity: Identity, checkpoints: CheckpointStore | None = None
    ) -> None:
        self._member = BrokerMember(address, identity)
        self._identity = identity
        self._checkpoints = checkpoints or CheckpointStore()

    @property
    def recipient(self) -> Recipient:
        """The provider's own, who always can open the dataset."""
        return self._identity.recipient

    def greet(self) -> BrokerHint:
        """Make sure, before anything is sealed, that the broker is there and lets this identity own datasets.

        Returns:
            What the dataset's snapshots will say.

        Raises:
            KeyRefusedError: It does not.
            BrokerError: It is not there.
            AuditError: Its log has lost what this user saw of it.
        """
        greeting = self._hello()
        if Role.OWNER not in greeting.roles:
            raise KeyRefusedError(
                f"'{greeting.name}' owns no datasets at the broker",
                "its admin runs: sealfs broker member NAME --role owner",
            )
        return BrokerHint(str(self._member.address), greeting.name)

    def check_policy(self, dataset: bytes | None, policy: Policy | None) -> None:
        """Make sure that the broker will know what to demand.

        Args:
            dataset: Its id; None if it is still to be made.
            policy: What the provider has named.

        Raises:
            UsageError: It won't.
        """
        if policy is None and (dataset is None or self._member.held(dataset).policy is None):
            raise UsageError(
                "the broker has to know what to demand for the keys", "name it: --policy FILE (docs/attestation.md)"
            )

    def bring_up_to_date(self, dataset: Dataset, policy: Policy | None = None) -> Published:
        """Tell the broker of a dataset's newest version, its keys and, if one is given, its policy.

        Raises:
            TrustError: The dataset is another identity's.
            SealfsError: It could not be told; the message says what holds now.
        """
        if dataset.newest.signer != self._identity.signer:
            raise TrustError(f"{dataset.store.uri} belongs to {dataset.newest.signer}, not to this identity")
        snapshot = dataset.newest
        known = 0
        try:
            keys = dataset.keys(self._identity)
            held = self._member.held(snapshot.dataset)
            known = held.version
            is_there = (held.version, held.sha256) == (snapshot.version, dataset.ref.sha256.hex())
            if not is_there or policy not in (None, held.policy) or (policy is not None and held.withdrawn):
                self._member.publish(
                    keys, snapshot.version, dataset.ref.sha256, snapshot.signer, policy, held.revision
                )
                held = self._member.held(snapshot.dataset)
            self._hello()
        except SealfsError as error:
            has = f"still has version {known}" if known else "has nothing of it yet"
            error.message = (
                f"version {snapshot.version} is in the store, but the broker at {self._member.address} {has}, "
                f"and refuses whoever asks it for the keys: {error.message}"
            )
            error.hint = f"nothing is lost; run the same command again ({error.hint})"
            raise
        assert held.policy is not None  # noqa: S101 - it holds the dataset now
        return Published(held.version, held.policy, held.withdrawn)

    def _hello(self) -> Greeting:
        """Greet, and hold the broker's log against what this user saw of it."""
        identity = self._member.address.identity
        seen = self._checkpoints.get(identity) if identity is not None else None
        greeting = self._member.hello(seen)
        self._checkpoints.keep(greeting.checkpoint)
        return greeting
