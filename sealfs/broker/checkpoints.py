"""How far this user has seen brokers' logs: what makes it show when a log is cut or rewritten.

Threading: safe between processes: files are replaced whole, and a lost race keeps an older checkpoint.
"""

from __future__ import annotations

from pathlib import Path

from sealfs.attestation.canonical import Members, canonical, parse_json
from sealfs.broker.audit import Checkpoint
from sealfs.dataset.trust import replace_file
from sealfs.errors import AuditError, LocalIOError, SealfsError
from sealfs.xdg import state_directory

_MAX_SIZE = 4096


class CheckpointStore:
    """The checkpoints of one user.

    Args:
        directory: Where they lie; made when needed.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory or state_directory() / "broker-checkpoints"

    def get(self, broker: str) -> Checkpoint | None:
        """Return how far a broker's log was seen; None if never.

        Raises:
            AuditError: The file is there but unreadable; it is never taken for absent.
        """
        path = self._path(broker)
        try:
            found = read_checkpoint(path)
        except FileNotFoundError:
            return None
        if found.broker != broker:
            raise AuditError(f"{path} is another broker's checkpoint")
        return found

    def keep(self, checkpoint: Checkpoint) -> None:
        """Remember how far a broker's log was seen; what was seen further on stays.

        Raises:
            AuditError: What is kept can't be read.
            LocalIOError: It can't be written.
        """
        known = self.get(checkpoint.broker)
        if known is not None and known.sequence > checkpoint.sequence:
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(self._path(checkpoint.broker), canonical(checkpoint.to_json()))
        except OSError as error:
            raise LocalIOError(
                f"cannot keep checkpoints in {self._directory}: {error.strerror}",
                "point XDG_STATE_HOME at a writable folder",
            ) from None

    def _path(self, broker: str) -> Path:
        return self._directory / f"{broker.removeprefix('sha256:')}.json"


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint from a file.

    Raises:
        FileNotFoundError: There is none.
        AuditError: It is unreadable, or not signed by whom it names.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_SIZE)
        what = "the checkpoint"
        return Checkpoint.from_fields(Members(parse_json(data, what), what))
    except FileNotFoundError:
        raise
    except (OSError, SealfsError) as error:
        raise AuditError(f"cannot read the checkpoint {path}: {error}", "mend it, or take another") from None
