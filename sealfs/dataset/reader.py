"""The reader core: authenticated plaintext out of packs, at random access.

Ciphertext is copied into this process's own memory before it is authenticated, and nothing is handed out that
was not. Whole segments are decrypted straight into the caller's buffer; a segment of which only a part is wanted
goes through a small cache, since its neighbours are usually wanted next.

It knows packs and keys, neither paths nor FUSE nor S3.

Threading: safe from many threads; each has a scratch buffer of its own.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from sealfs.dataset.index import Index
from sealfs.dataset.keyring import DatasetKeys
from sealfs.errors import IntegrityError, ObjectNotFoundError, ObjectSizeError
from sealfs.floe import SEGMENT_OVERHEAD, Decryptor, Layout
from sealfs.lru import ByteCache
from sealfs.store.source import CiphertextSource

READ_AHEAD = 16 << 20  # ciphertext to ask for beyond a sequential read: what keeps a fast link busy
_MAX_RUN = 2 << 20  # ciphertext decrypted at a time, and so the size of a scratch buffer
_MAX_OPEN_PACKS = 4096


@dataclass(slots=True)
class _OpenPack:
    name: str
    layout: Layout
    decryptor: Decryptor
    cursor: int = 0  # where the last read ended, to notice sequential reading


class PackReader:
    """Reads ranges of packs' plaintext.

    Args:
        index: Where packs are listed.
        keys: The dataset's keys.
        source: Where their ciphertext comes from.
        cache_size: Bytes of decrypted segments to keep.
    """

    def __init__(self, index: Index, keys: DatasetKeys, source: CiphertextSource, cache_size: int) -> None:
        self._index = index
        self._keys = keys
        self._source = source
        self._segments: ByteCache[tuple[int, int]] = ByteCache(cache_size)
        self._open: dict[int, _OpenPack] = {}
        self._local = threading.local()

    def _pack(self, number: int) -> _OpenPack:
        opened = self._open.get(number)
        if opened is None:
            pack = self._index.pack(number)
            try:
                decryptor = Decryptor(self._keys.pack_key(pack.epoch), self._keys.dataset, pack.header)
            except IntegrityError as error:
                raise IntegrityError(f"{pack.name}: {error.message}") from None
            if len(self._open) >= _MAX_OPEN_PACKS:
                self._open.clear()
            opened = self._open[number] = _OpenPack(pack.name, pack.layout, decryptor)
        return opened

    def _scratch(self, size: int) -> memoryview:
        scratch: memoryview | None = getattr(self._local, "scratch", None)
        if scratch is None or len(scratch) < size:
            scratch = self._local.scratch = memoryview(bytearray(size))
        return scratch[:size]

    def read_into(self, number: int, offset: int, out: memoryview) -> None:
        """Fill the whole of `out` with pack `number`'s plaintext from `offset` on.

        Raises:
            IntegrityError: The pack is missing, or not what was sealed; `out` holds nothing to rely on.
            StoreError: The store could not be reached in time.
        """
        pack = self._pack(number)
        room = pack.layout.segment_length - SEGMENT_OVERHEAD
        end = offset + len(out)
        position, last = offset // room, (end - 1) // room
        longest = max(1, _MAX_RUN // pack.layout.segment_length)
        while position <= last:
            segment = self._segments.get((number, position))
            if segment is not None:
                _copy_part(segment, position * room, offset, out)
                position += 1
                continue
            stop = position + 1
            while stop <= last and stop - position < longest and (number, stop) not in self._segments:
                stop += 1
            self._decrypt_run(number, pack, range(position, stop), offset, out)
            position = stop
        if offset == pack.cursor:
            self._prefetch(pack, end, READ_AHEAD)
        pack.cursor = end

    def prefetch(self, number: int, offset: int, length: int) -> None:
        """Say that a range of pack `number`'s plaintext will probably be wanted soon."""
        self._prefetch(self._pack(number), offset, length)

    def _prefetch(self, pack: _OpenPack, offset: int, length: int) -> None:
        layout = pack.layout
        position = offset // (layout.segment_length - SEGMENT_OVERHEAD)
        if position < layout.segments:
            start, _ = layout.segment_range(position)
            self._source.prefetch(pack.name, layout.ciphertext_size, start, length)

    def _decrypt_run(self, number: int, pack: _OpenPack, run: range, offset: int, out: memoryview) -> None:
        layout = pack.layout
        start, _ = layout.segment_range(run[0])
        last_offset, last_length = layout.segment_range(run[-1])
        ciphertext = self._scratch(last_offset + last_length - start)
        for retried in (False, True):
            try:
                self._source.read_into(pack.name, layout.ciphertext_size, start, ciphertext)
                self._decrypt(number, pack, run, ciphertext, offset, out)
                return
            except ObjectNotFoundError:
                raise IntegrityError(f"{pack.name} is missing from the store") from None
            except ObjectSizeError:
                raise IntegrityError(f"{pack.name} has been cut") from None
            except IntegrityError as error:
                # a cached copy may have rotted: only what the store itself serves now is evidence
                if retried or not self._source.discard(pack.name, start, len(ciphertext)):
                    raise IntegrityError(f"{pack.name}: {error.message}") from None

    def _decrypt(
        self, number: int, pack: _OpenPack, run: range, ciphertext: memoryview, offset: int, out: memoryview
    ) -> None:
        length, final = pack.layout.segment_length, pack.layout.segments - 1
        room = length - SEGMENT_OVERHEAD
        decrypt = pack.decryptor.decrypt_segment_into
        for i, position in enumerate(run):
            sealed = ciphertext[i * length : (i + 1) * length]
            at = position * room - offset
            stop = at + len(sealed) - SEGMENT_OVERHEAD
            if at >= 0 and stop <= len(out):
                decrypt(sealed, position, position == final, out[at:stop])
            else:
                segment = bytearray(len(sealed) - SEGMENT_OVERHEAD)
                decrypt(sealed, position, position == final, memoryview(segment))
                self._segments.put((number, position), segment)
                _copy_part(segment, position * room, offset, out)

    def close(self) -> None:
        """Drop plaintext and release the source."""
        self._segments.clear()
        self._open.clear()
        self._source.close()


def _copy_part(segment: bytes | bytearray | memoryview, segment_offset: int, offset: int, out: memoryview) -> None:
    """Copy to `out`, which starts at `offset`, what a segment that starts at `segment_offset` has of it."""
    skip = max(0, offset - segment_offset)
    at = max(0, segment_offset - offset)
    count = min(len(segment) - skip, len(out) - at)
    out[at : at + count] = memoryview(segment)[skip : skip + count]
