"""What the verbs that change a dataset share: they tell its broker, if it has one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sealfs.cli.common import note
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.errors import KeyAccessError, LocalIOError, NotADatasetError
from sealfs.keys import Identity, Signer
from sealfs.store.base import ObjectStore

if TYPE_CHECKING:
    from sealfs.attestation.policy import Policy
    from sealfs.broker.publishing import Publishing

_TOO_LITTLE = KeyAccessError("to talk to a broker takes more packages", "pip install 'sealfs[broker]'")


def publishing_at(url: str, identity: Identity) -> Publishing:
    """Return the provider's dealings with the broker at a URL."""
    try:
        from sealfs.broker.address import BrokerAddress  # noqa: PLC0415 - these talk to brokers
        from sealfs.broker.publishing import Publishing  # noqa: PLC0415
    except ImportError:
        raise _TOO_LITTLE from None
    return Publishing(BrokerAddress.parse(url), identity)


def read_policy(path: Path) -> Policy:
    """Read a policy's file.

    Raises:
        LocalIOError: It can't be read.
        DocumentError: It is no policy.
    """
    try:
        from sealfs.attestation.policy import Policy  # noqa: PLC0415 - with what talks to brokers
    except ImportError:
        raise _TOO_LITTLE from None
    try:
        return Policy.parse(path.read_bytes())
    except OSError as error:
        raise LocalIOError(f"cannot read {path}: {error.strerror}", "check the policy's name") from None


def existing(store: ObjectStore, signer: Signer | None = None) -> Dataset | None:
    """Return the dataset at a store; None if there is none yet."""
    try:
        return Dataset.open(store, TrustStore(), signer=signer)
    except NotADatasetError:
        return None


@contextmanager
def broker_told(store: ObjectStore, identity: Identity) -> Iterator[None]:
    """Change a dataset in the block; its broker, if it has one, must be there before, and is told afterwards."""
    dataset = existing(store)
    hint = dataset.newest.broker if dataset else None
    publishing = publishing_at(hint.url, identity) if hint else None
    if publishing is not None:
        publishing.greet()
    yield
    if publishing is not None:
        tell_broker(publishing, store, None)


def tell_broker(publishing: Publishing, store: ObjectStore, policy: Policy | None) -> None:
    """Tell a broker of the dataset's newest version, and the user what holds now."""
    dataset = Dataset.open(store, TrustStore())
    published = publishing.bring_up_to_date(dataset, policy)
    hint = dataset.newest.broker
    if hint is not None:
        level = published.policy.level
        note(f"the broker at {hint.url} releases version {published.version} to what proves {level}")
    if published.withdrawn:
        note("but the dataset is withdrawn: nothing is released before a push with --policy", bold=True)
    others = [r for r in dataset.keyring().recipients if r != publishing.recipient]
    if others:
        names = ", ".join(recipient.fingerprint for recipient in others)
        note(
            f"{len(others)} recipients can open it without proving anything: {names}; "
            f"sealfs revoke {store.uri} keeps them from what comes later",
            fg="yellow",
        )
