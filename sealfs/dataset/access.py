"""`sealfs grant`, `revoke`, `rotate`: who can open a dataset.

Each is a new snapshot. A grant wraps all epoch keys for somebody more. A revocation or rotation starts a new
epoch, whose key the ones who left never see; what was sealed before stays readable to whoever had its key, unless
all packs are sealed anew under the new epoch (`reencrypt`) and the old ones deleted (`sealfs gc --keep 1`).

Threading: one thread; packs are sealed by the pack writer's workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

from sealfs.dataset.dataset import Dataset, Summary
from sealfs.dataset.index import Index
from sealfs.dataset.index_builder import replace_packs
from sealfs.dataset.keyring import DatasetKeys, Keyring
from sealfs.dataset.packer import DEFAULT_JOBS, PackSealer, SealedPack
from sealfs.dataset.publish import Publisher
from sealfs.dataset.push import check_ownership
from sealfs.dataset.reader import PackReader
from sealfs.dataset.session import PushSession
from sealfs.dataset.snapshot import Snapshot
from sealfs.dataset.trust import TrustStore
from sealfs.errors import SealfsError, UsageError
from sealfs.keys import Identity, Recipient
from sealfs.progress import Progress
from sealfs.store.base import ObjectStore
from sealfs.store.source import DirectSource


class AccessChange:
    """Changes who can open a dataset.

    Args:
        store: Where it lies.
        identity: Its provider.
        trust: The user's pins.
        single_writer: The user's word that nobody else pushes.
    """

    def __init__(
        self, store: ObjectStore, identity: Identity, trust: TrustStore, *, single_writer: bool = False
    ) -> None:
        self._store = store
        self._identity = identity
        self._dataset = Dataset.open(store, trust)
        check_ownership(self._dataset, identity)
        self._keyring = self._dataset.keyring()
        self._keys = self._keyring.open(identity)
        session = PushSession(store)
        self._publisher = Publisher(store, trust, identity, self._dataset, session, single_writer)

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """Who can open the dataset now."""
        return self._keyring.recipients

    def grant(self, recipients: Sequence[Recipient]) -> Snapshot | None:
        """Let more recipients open everything, old and new; None if they all can already."""
        added = [r for r in dict.fromkeys(recipients) if r not in self.recipients]
        if not added:
            return None
        with self._session():
            keyring = self._publisher.put_keyring(Keyring.seal(self._keys, [*self.recipients, *added]))
            return self._publish("grant", self._keys, replace(self._dataset.snapshot, keyring=keyring))

    def revoke(self, fingerprints: Sequence[str], reencrypt: bool, progress: Progress) -> Snapshot:
        """Start a new epoch without some recipients.

        Raises:
            UsageError: There is no such recipient, or it is the provider.
        """
        gone = [r for r in self.recipients if any(r.fingerprint.startswith(f) for f in fingerprints)]
        for fingerprint in fingerprints:
            matches = [r for r in gone if r.fingerprint.startswith(fingerprint)]
            if len(matches) != 1 or not fingerprint:
                raise UsageError(
                    f"'{fingerprint}' names {len(matches)} recipients", "'sealfs stat URI' lists their fingerprints"
                )
        if self._identity.recipient in gone:
            raise UsageError("the provider is always a recipient", "push to another address with another identity")
        return self._new_epoch("revoke", [r for r in self.recipients if r not in gone], reencrypt, progress)

    def rotate(self, reencrypt: bool, progress: Progress) -> Snapshot:
        """Start a new epoch for the same recipients."""
        return self._new_epoch("rotate", self.recipients, reencrypt, progress)

    @contextmanager
    def _session(self) -> Iterator[None]:
        """Protect what is sent while the block runs; if that fails it is garbage at once."""
        self._publisher.check_store()
        self._publisher.session.renew()
        try:
            yield
        except BaseException:
            with suppress(SealfsError):
                self._publisher.session.end()
            raise

    def _new_epoch(
        self, action: str, recipients: Sequence[Recipient], reencrypt: bool, progress: Progress
    ) -> Snapshot:
        with self._session():
            return self._start_epoch(action, recipients, reencrypt, progress)

    def _start_epoch(
        self, action: str, recipients: Sequence[Recipient], reencrypt: bool, progress: Progress
    ) -> Snapshot:
        snapshot, keys = self._dataset.snapshot, self._keys.with_new_epoch()
        keyring = self._publisher.put_keyring(Keyring.seal(keys, recipients))
        index, packs = self._dataset.index(self._keys), snapshot.packs
        data = bytearray(index.data)
        if reencrypt:
            sealed = self._seal_anew(index, keys, progress)
            data = replace_packs(index, sealed)
            packs = tuple(pack.ref for pack in sealed)
        ref = self._publisher.put_index(data, keys, keys.latest, snapshot.segment_length)
        changed = replace(snapshot, keyring=keyring, index=ref, epoch=keys.latest, packs=packs)
        return self._publish(action, keys, changed)

    def _seal_anew(self, index: Index, keys: DatasetKeys, progress: Progress) -> list[SealedPack]:
        progress.begin("sealing anew", sum(index.pack(n).layout.plaintext_size for n in range(index.packs)))
        reader = PackReader(index, self._keys, DirectSource(self._store), cache_size=0)
        length = self._dataset.snapshot.segment_length
        session = self._publisher.session
        seal = PackSealer(self._store, keys, keys.latest, length, session.push)

        def renew(number: int) -> SealedPack:
            plaintext = memoryview(bytearray(index.pack(number).layout.plaintext_size))
            reader.read_into(number, 0, plaintext)
            sealed = seal(plaintext)
            progress.advance(len(plaintext))
            return sealed

        sealed: list[SealedPack] = []
        with ThreadPoolExecutor(DEFAULT_JOBS, thread_name_prefix="sealfs-seal") as pool:
            for start in range(0, index.packs, DEFAULT_JOBS):
                sealed += pool.map(renew, range(start, min(start + DEFAULT_JOBS, index.packs)))
                session.renew()
        return sealed

    def _publish(self, action: str, keys: DatasetKeys, changed: Snapshot) -> Snapshot:
        before = Summary.open(self._dataset.snapshot, self._keys)
        return self._publisher.publish(
            keys,
            epoch=changed.epoch,
            segment_length=changed.segment_length,
            index=changed.index,
            keyring=changed.keyring,
            packs=changed.packs,
            summary=Summary(action, "", before.files, before.size),
        )
