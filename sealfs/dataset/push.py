"""`sealfs push`: seals a folder as a new snapshot.

Compare with the newest snapshot, seal what is new, publish. Nothing is visible before the head has moved, and
everything sent before a crash counts when the push is run again (journal.py).

Threading: the caller's thread reads and decides; the pack writer's workers seal and send.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes

from sealfs.dataset.compare import Comparison, Notice, Plan
from sealfs.dataset.dataset import Dataset, Summary
from sealfs.dataset.index import Index
from sealfs.dataset.index_builder import empty_index
from sealfs.dataset.journal import Journal, Start
from sealfs.dataset.keyring import DATASET_ID_SIZE, MAX_KEYRING_SIZE, DatasetKeys, Keyring
from sealfs.dataset.objects import PACKS, ObjectRef
from sealfs.dataset.packer import DEFAULT_JOBS, PackSealer, Piece, SealedPack
from sealfs.dataset.publish import Publisher
from sealfs.dataset.scan import Refuse, fail, leaves_out, shown
from sealfs.dataset.sealing import Earlier, FileSealer
from sealfs.dataset.session import PushSession
from sealfs.dataset.snapshot import BrokerHint, Snapshot
from sealfs.dataset.trust import TrustStore
from sealfs.errors import IntegrityError, KeyAccessError, NotADatasetError, TrustError, UsageError
from sealfs.floe import MAX_SEGMENT_LENGTH, MIN_SEGMENT_LENGTH
from sealfs.keys import Identity, Recipient, Signer
from sealfs.progress import Progress, Silent
from sealfs.store.base import ObjectStore

DEFAULT_SEGMENT_LENGTH = 64 << 10  # docs/adr/0002-segment-length.md has the measurement


@dataclass(frozen=True, slots=True)
class PushOptions:
    """What the user may say about a push.

    Attributes:
        recipients: Who else may read; added to those that the dataset has.
        excludes: Globs of what to leave out.
        refuse: Told of each file and directory that can't be sealed. If it returns, these stay as the newest
            snapshot has them, or out, and what is gone is out; otherwise what it raises ends the push.
        message: Kept, sealed, in the snapshot.
        checksum: Compare contents, where otherwise equal size and mtime mean unchanged.
        live: Take files that are being written as they are at one moment; needs `checksum`. Otherwise a push waits
            for them, and fails in the end.
        single_writer: The user's word that nobody else pushes.
        jobs: How many packs are sent at once.
        segment_length: For a new dataset, bytes.
        signer: Whom to believe at first use of the address.
        broker: Which broker gets the keys; None leaves it as it was.
        level: For results, see `Snapshot.level`.
        max_size: Most bytes of names and content that may be sent, whatever grows meanwhile; None for any number.
    """

    recipients: Sequence[Recipient] = ()
    excludes: Sequence[str] = ()
    refuse: Refuse = fail
    message: str = ""
    checksum: bool = False
    live: bool = False
    single_writer: bool = False
    jobs: int = DEFAULT_JOBS
    segment_length: int = DEFAULT_SEGMENT_LENGTH
    signer: Signer | None = None
    broker: BrokerHint | None = None
    level: str | None = None
    max_size: int | None = None


@dataclass(frozen=True, slots=True)
class PushResult:
    """What a push did.

    Attributes:
        plan: What it found.
        snapshot: What it made; None when there was nothing to do.
        sent: Bytes of packs sent.
        resumed: Bytes of files that an earlier, killed push had sent.
    """

    plan: Plan
    snapshot: Snapshot | None
    sent: int = 0
    resumed: int = 0


@dataclass(frozen=True, slots=True)
class _Parent:
    """The newest snapshot, opened."""

    dataset: Dataset
    keyring: Keyring
    keys: DatasetKeys
    index: Index


@dataclass(frozen=True, slots=True)
class _Underway:
    """A push that has begun, now or before it was killed.

    Attributes:
        session: Its marker.
        start: How its journal begins.
        keys: What it seals with.
        earlier: What it had sent before it was killed.
    """

    session: PushSession
    start: Start
    keys: DatasetKeys
    earlier: Earlier


class Push:
    """One push.

    Args:
        source: The folder.
        store: Where to.
        identity: Who signs; always a recipient.
        trust: The user's pins.
        options: See `PushOptions`.
        progress: Whom to tell.
        state: Where the journal lies, if not in the user's own state folder: it holds names of files.
    """

    def __init__(
        self,
        source: Path,
        store: ObjectStore,
        identity: Identity,
        trust: TrustStore,
        options: PushOptions | None = None,
        progress: Progress | None = None,
        state: Path | None = None,
    ) -> None:
        self._state = state
        self._top = os.fsencode(source.resolve())
        self._store = store
        self._identity = identity
        self._trust = trust
        self._options = options or PushOptions()
        self._progress = progress or Silent()
        self._sent = 0

    def plan(self, notice: Notice | None = None) -> Plan:
        """Return what a push would do, and do nothing.

        Args:
            notice: Told of each file that differs: "A", "M" or "D", and its path.
        """
        self._check_apart()
        return self._compare(self._open_parent(), notice).plan

    def run(self) -> PushResult:
        """Push.

        Raises:
            ConflictError: Somebody else pushed in the meantime.
            LocalIOError: A source file can't be read or sealed.
            TrustError: The dataset is signed by somebody else.
            StoreError: The store can't be used.
            UsageError: The options make no dataset that could be read.
        """
        self._check_options()
        with contextlib.closing(Journal(self._top, self._store.uri, self._state)) as journal:
            parent = self._open_parent()
            self._progress.begin("scanning", 0)
            comparison = self._compare(parent, None)
            known = self._recipients(parent)
            added = [r for r in dict.fromkeys(self._options.recipients) if r not in known]
            if not self._is_needed(parent, comparison.plan, added):
                self._forget(journal.read()[0])
                journal.end()
                return PushResult(comparison.plan, None)
            return self._seal_and_publish(journal, parent, comparison, added)

    def _is_needed(self, parent: _Parent | None, plan: Plan, added: list[Recipient]) -> bool:
        """Whether there is anything to publish."""
        if parent is None or added or not plan.is_empty:
            return True
        return self._options.broker not in (None, parent.dataset.newest.broker)  # who has the keys from now on

    def _check_apart(self) -> None:
        """Refuse to seal a store into itself, or to lay ciphertext beside the plaintext that it is of."""
        if not self._store.uri.startswith("file://"):
            return
        place = unquote_to_bytes(self._store.uri.removeprefix("file://"))
        inside, outside = place + b"/", self._top.rstrip(b"/") + b"/"
        if outside.startswith(inside):
            raise UsageError(f"the folder lies in the store {self._store.uri}", "push to a folder of its own")
        below = inside.removeprefix(outside).rstrip(b"/")
        if inside.startswith(outside) and not leaves_out(below, self._options.excludes):
            raise UsageError(
                f"the store {self._store.uri} lies in the folder that is pushed",
                f"push to a folder of its own, or leave it out: --exclude '{shown(below)}'",
            )

    def _check_options(self) -> None:
        self._check_apart()
        Summary("push", self._options.message).check()
        if not MIN_SEGMENT_LENGTH <= self._options.segment_length <= MAX_SEGMENT_LENGTH:
            raise UsageError(
                f"a segment has {MIN_SEGMENT_LENGTH} to {MAX_SEGMENT_LENGTH} bytes", "leave out --segment-length"
            )

    def _open_parent(self) -> _Parent | None:
        try:
            dataset = Dataset.open(self._store, self._trust, signer=self._options.signer)
        except NotADatasetError:
            if self._trust.get(self._store.uri) is not None:
                raise TrustError(
                    f"a dataset was seen at {self._store.uri} before, and is gone now",
                    f"if it was deleted on purpose, run: sealfs trust --forget {self._store.uri}",
                ) from None
            return None
        check_ownership(dataset, self._identity)
        keyring = dataset.keyring()
        keys = keyring.open(self._identity)
        return _Parent(dataset, keyring, keys, dataset.index(keys))

    def _compare(self, parent: _Parent | None, notice: Notice | None) -> Comparison:
        return Comparison(
            self._top,
            parent.index if parent else empty_index(),
            parent.dataset.snapshot.packs if parent else (),
            excludes=self._options.excludes,
            refuse=self._options.refuse,
            checksum=self._options.checksum,
            notice=notice,
        )

    def _recipients(self, parent: _Parent | None) -> Sequence[Recipient]:
        """Return who can open the dataset before this push."""
        return parent.keyring.recipients if parent else (self._identity.recipient,)

    def _forget(self, start: Start | None) -> None:
        """Clear up after a push that was killed when its head had moved, or that nobody will go on with."""
        if start is not None:
            PushSession(self._store, start.push).end()

    def _seal_and_publish(
        self, journal: Journal, parent: _Parent | None, comparison: Comparison, added: list[Recipient]
    ) -> PushResult:
        underway = self._resume(journal, parent) or self._begin(journal, parent)
        session, start, keys = underway.session, underway.start, underway.keys
        publisher = self._publisher(parent, session)
        options, plan = self._options, comparison.plan
        segment_length = parent.dataset.snapshot.segment_length if parent else options.segment_length

        def sent(pack: SealedPack, pieces: list[Piece]) -> None:
            journal.add(pack, pieces)
            session.renew()
            self._sent += pack.ref.size

        self._progress.begin("sealing", plan.pending_size)
        sealer = FileSealer(
            self._top,
            self._store,
            PackSealer(self._store, keys, start.epoch, segment_length, start.push),
            comparison.builder,
            comparison.packs,
            earlier=underway.earlier,
            sent=sent,
            progress=self._progress,
            refuse=comparison.refuse,
            jobs=options.jobs,
            live=options.live,
            max_size=None if options.max_size is None else options.max_size - comparison.builder.names_size,
        )
        sealer.seal(comparison.pending)
        builder = comparison.finish()
        if not self._is_needed(parent, plan, added):  # all that was to be sealed was refused
            self._forget(start)
            journal.end()
            return PushResult(plan, None, self._sent)
        self._progress.begin("publishing", 0)
        index = builder.build(keys.dataset, publisher.version)
        snapshot = publisher.publish(
            keys,
            epoch=start.epoch,
            segment_length=segment_length,
            index=publisher.put_index(index, keys, start.epoch, segment_length),
            keyring=self._keyring(publisher, parent, keys, added) if added else start.keyring,
            packs=comparison.packs.refs,
            summary=Summary("push", options.message, plan.files, plan.size, plan.added, plan.changed, plan.removed),
        )
        journal.end()
        return PushResult(plan, snapshot, self._sent, sealer.resumed)

    def _keyring(
        self, publisher: Publisher, parent: _Parent | None, keys: DatasetKeys, added: list[Recipient]
    ) -> ObjectRef:
        return publisher.put_keyring(Keyring.seal(keys, [*self._recipients(parent), *added]))

    def _publisher(self, parent: _Parent | None, session: PushSession) -> Publisher:
        dataset = parent.dataset if parent else None
        options = self._options
        return Publisher(
            self._store,
            self._trust,
            self._identity,
            dataset,
            session,
            options.single_writer,
            options.broker,
            options.level,
        )

    def _begin(self, journal: Journal, parent: _Parent | None) -> _Underway:
        session = PushSession(self._store)
        publisher = self._publisher(parent, session)
        publisher.check_store()
        session.renew()
        if parent:
            keys, snapshot = parent.keys, parent.dataset.snapshot
            start = Start(session.push, keys.dataset, snapshot.epoch, snapshot.keyring)
        else:
            keys = DatasetKeys.generate(os.urandom(DATASET_ID_SIZE))
            keyring = publisher.put_keyring(Keyring.seal(keys, [self._identity.recipient]))
            start = Start(session.push, keys.dataset, keys.latest, keyring)
        journal.begin(start)
        return _Underway(session, start, keys, Earlier([]))

    def _resume(self, journal: Journal, parent: _Parent | None) -> _Underway | None:
        """Go on with the push that the journal tells of, if what it sent still counts; else clear up after it."""
        start, packs = journal.read()
        if start is None:
            return None
        session = PushSession(self._store, start.push)
        keys = self._keys_of(start, parent) if session.exists() else None
        if keys is None:
            self._forget(start)
            return None
        session.renew()  # before looking at what is there: from now on `gc` keeps its hands off it
        there = {info.key: info.size for info in self._store.list(f"{PACKS}{start.push.hex()}-")}
        packs = [(pack, pieces) for pack, pieces in packs if there.get(pack.ref.name) == pack.ref.size]
        if parent:
            start = Start(start.push, start.dataset, start.epoch, parent.dataset.snapshot.keyring)
        journal.keep(start, packs)
        return _Underway(session, start, keys, Earlier(packs))

    def _keys_of(self, start: Start, parent: _Parent | None) -> DatasetKeys | None:
        if parent:
            snapshot = parent.dataset.snapshot
            same = (snapshot.dataset, snapshot.epoch) == (start.dataset, start.epoch)
            return parent.keys if same else None
        try:
            keyring = Keyring.parse(start.keyring.fetch(self._store, MAX_KEYRING_SIZE), start.dataset)
            return keyring.open(self._identity)
        except (IntegrityError, KeyAccessError):
            return None


def check_ownership(dataset: Dataset, identity: Identity) -> None:
    """Make sure that `identity` is the provider who signs this dataset's snapshots.

    Raises:
        TrustError: It is not.
    """
    if dataset.newest.signer != identity.signer:
        raise TrustError(
            f"{dataset.store.uri} belongs to {dataset.newest.signer}, which is not this identity",
            "use an address of your own, or the identity that made this dataset",
        )
