"""What a push has sent so far, kept at the provider, so that a push that was killed goes on where it was.

A file of JSON lines: the first names the push, each other one a pack that lies in the store and whose bytes it
holds. A line that a crash cut short is ignored. The journal holds file names and no keys; it lies in the
provider's own state folder and is private.

Threading: one thread; a lock keeps a second push of the same folder to the same address away.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sealfs.dataset.content import FileState
from sealfs.dataset.keyring import DATASET_ID_SIZE, MAX_EPOCHS
from sealfs.dataset.objects import KEYRINGS, OBJECT_ID_SIZE, PACKS, PUSH_ID_SIZE, ObjectRef, object_name
from sealfs.dataset.packer import Piece, SealedPack
from sealfs.errors import ConflictError, IntegrityError, LocalIOError
from sealfs.fields import FORMAT_VERSION, Fields, canonical_json
from sealfs.floe import HEADER_SIZE
from sealfs.locking import lock_file
from sealfs.xdg import state_directory


@dataclass(frozen=True, slots=True)
class Start:
    """The journal's first line.

    Attributes:
        push: The push's id, 8 bytes.
        dataset: The dataset's id, 16 bytes.
        epoch: Whose key seals.
        keyring: The keyring object that holds the key, written before the first pack.
    """

    push: bytes
    dataset: bytes
    epoch: int
    keyring: ObjectRef


class Journal:
    """The journal of pushes from one folder to one address.

    Args:
        source: The folder's absolute path.
        uri: The normalized address.
        state: The private folder to keep it below; None for the user's own (`xdg.state_directory`).

    Raises:
        ConflictError: Another process is pushing the same folder there.
    """

    def __init__(self, source: bytes, uri: str, state: Path | None = None) -> None:
        digest = hashlib.sha256(uri.encode() + b"\0" + source).hexdigest()[:32]
        path = (state or state_directory()) / "pushes" / f"{digest}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file: IO[bytes] = open(  # noqa: SIM115 - held open for as long as the push lasts
                os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b"
            )
        except OSError as error:
            raise LocalIOError(
                f"cannot keep a journal at {path}: {error.strerror}", "point XDG_STATE_HOME at a writable folder"
            ) from None
        self._path: Path = path
        try:
            lock_file(self._file, wait=False)
        except BlockingIOError:
            self._file.close()
            raise ConflictError(
                "another process is pushing this folder to this address", "wait for it to end"
            ) from None

    def read(self) -> tuple[Start | None, list[tuple[SealedPack, list[Piece]]]]:
        """Return what an earlier push left: its start, and the packs it sent.

        Raises:
            FormatError: A newer sealfs left it.
        """
        self._file.seek(0)
        start: Start | None = None
        packs: list[tuple[SealedPack, list[Piece]]] = []
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            try:
                fields = Fields.parse(line, "journal")
                if start is None:
                    fields.check_version()
                    start = _parse_start(fields)
                else:
                    packs.append(_parse_pack(fields))
            except (ValueError, IntegrityError):  # ValueError: base64 and hex
                break
        return start, packs

    def begin(self, start: Start) -> None:
        """Drop what is there and begin a new push."""
        self._file.seek(0)
        self._file.truncate()
        self._append(
            {
                "format_version": FORMAT_VERSION,
                "push": start.push.hex(),
                "dataset": start.dataset.hex(),
                "epoch": start.epoch,
                "keyring": start.keyring.to_json(),
            }
        )

    def add(self, pack: SealedPack, pieces: list[Piece]) -> None:
        """Remember a pack that lies in the store."""
        self._append(
            {
                "id": pack.object_id.hex(),
                "size": pack.ref.size,
                "sha256": pack.ref.sha256.hex(),
                "header": pack.header.hex(),
                "epoch": pack.epoch,
                "plaintext_size": pack.plaintext_size,
                "pieces": [_piece_to_json(piece) for piece in pieces],
            }
        )

    def keep(self, start: Start, packs: list[tuple[SealedPack, list[Piece]]]) -> None:
        """Go on with an earlier push, without a last line that was cut short."""
        self.begin(start)
        for pack, pieces in packs:
            self.add(pack, pieces)

    def _append(self, document: object) -> None:
        try:
            self._file.write(canonical_json(document) + b"\n")
            self._file.flush()
        except OSError as error:
            raise LocalIOError(f"cannot write the journal {self._path}: {error.strerror}") from None

    def end(self) -> None:
        """The push is visible: forget it."""
        self._file.truncate(0)
        with contextlib.suppress(OSError):
            self._path.unlink()

    def close(self) -> None:
        """Let another process push."""
        self._file.close()


def _parse_start(fields: Fields) -> Start:
    return Start(
        fields.hexadecimal("push", PUSH_ID_SIZE),
        fields.hexadecimal("dataset", DATASET_ID_SIZE),
        fields.integer("epoch", 1, MAX_EPOCHS),
        ObjectRef.from_fields(fields.object("keyring"), KEYRINGS),
    )


def _parse_pack(fields: Fields) -> tuple[SealedPack, list[Piece]]:
    object_id = fields.hexadecimal("id", OBJECT_ID_SIZE)
    ref = ObjectRef(object_name(PACKS, object_id), fields.integer("size"), fields.hexadecimal("sha256", 32))
    header = fields.hexadecimal("header", HEADER_SIZE)
    pack = SealedPack(
        object_id, ref, header, fields.integer("epoch", 1, MAX_EPOCHS), fields.integer("plaintext_size")
    )
    return pack, [_parse_piece(member) for member in fields.array("pieces", 1 << 32)]


def _piece_to_json(piece: Piece) -> list[object]:
    state = piece.state
    path = base64.b64encode(state.path).decode()
    status = [state.inode, state.size, state.mtime_ns, state.ctime_ns]
    return [path, *status, piece.offset, piece.length, piece.pack_offset, piece.sha256.hex()]


def _parse_piece(member: object) -> Piece:
    match member:
        case [
            str(path), int(inode), int(size), int(mtime), int(ctime),
            int(offset), int(length), int(pack_offset), str(sha256),
        ]:  # fmt: skip
            state = FileState(base64.b64decode(path, validate=True), inode, size, mtime, ctime)
            return Piece(state, offset, length, pack_offset, bytes.fromhex(sha256))
    raise IntegrityError("journal has no valid piece")
