"""Keys that belong to several: a dataset's keys in as many shares as it has owners, of which all are needed.

A share looks like the keys of a dataset, epoch by epoch, so that a broker keeps it as such. All but the last are
derived from the key itself (HKDF, RFC 5869) and from whose they are, the last is the XOR of the key and the others:
who lacks one of them has nothing, and sharing the same dataset again after a rotation gives the same shares of the
epochs that there were. Shares are put together inside the enclave only.

Threading: stateless.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from sealfs.dataset.keyring import DatasetKeys
from sealfs.errors import KeyAccessError, UsageError
from sealfs.floe import KEY_SIZE
from sealfs.keys import Signer

_STEP = 4 + KEY_SIZE


def split(keys: DatasetKeys, owners: Sequence[Signer]) -> list[DatasetKeys]:
    """Return a share of a dataset's keys for each of its owners, in their order.

    Raises:
        UsageError: Fewer than two owners, or one twice.
    """
    if len(set(owners)) != len(owners) or len(owners) < 2:
        raise UsageError("shares are for two or more owners", "a single one has the whole key")
    shares: list[dict[int, bytes]] = [{} for _ in owners]
    for epoch, key in _epochs(keys).items():
        last = key
        for owner, share in zip(owners[:-1], shares[:-1], strict=True):
            info = b"sealfs 1 share " + keys.dataset + epoch.to_bytes(4, "little") + owner.raw
            share[epoch] = HKDFExpand(SHA384(), KEY_SIZE, info).derive(key)
            last = _xor(last, share[epoch])
        shares[-1][epoch] = last
    return [DatasetKeys(keys.dataset, share) for share in shares]


def combine(shares: Sequence[DatasetKeys]) -> DatasetKeys:
    """Put all shares of a dataset's keys together. Whether the result is right shows when it opens the dataset.

    Raises:
        KeyAccessError: They are not of the same dataset and epochs.
    """
    epochs = [_epochs(share) for share in shares]
    if not epochs or any(share.dataset != shares[0].dataset for share in shares):
        raise KeyAccessError(
            "the shares are not of one dataset", "ask the owners what they have put at their brokers"
        )
    if any(set(found) != set(epochs[0]) for found in epochs):
        raise KeyAccessError(
            "the owners' shares are of different epochs of the dataset", "each owner publishes the newest share"
        )
    combined = {}
    for epoch in epochs[0]:
        key = bytes(KEY_SIZE)
        for found in epochs:
            key = _xor(key, found[epoch])
        combined[epoch] = key
    return DatasetKeys(shares[0].dataset, combined)


def _epochs(keys: DatasetKeys) -> dict[int, bytes]:
    packed = keys.pack()
    records = [packed[i : i + _STEP] for i in range(0, len(packed), _STEP)]
    return {int.from_bytes(record[:4], "little"): record[4:] for record in records}


def _xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))
