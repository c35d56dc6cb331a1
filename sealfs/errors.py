"""What can go wrong, in one family, so that every surface tells it alike.

Each error knows what happened (its message), what the user can do about it (`hint`), the exit code of a
command that ends with it, and the errno a file system reports for it. No error text carries a secret.
"""

from __future__ import annotations

import errno as _errno
from typing import ClassVar


class SealfsError(Exception):
    """Root of all errors that sealfs raises on purpose.

    Args:
        message: What went wrong, one line, in the user's terms.
        hint: What the user can do about it, one line.
    """

    exit_code: ClassVar[int] = 1
    errno: ClassVar[int] = _errno.EIO
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint


class UsageError(SealfsError):
    """The command was asked for something that makes no sense."""

    exit_code = 2
    errno = _errno.EINVAL


class DocumentError(UsageError):
    """A document that was handed in (a policy, evidence, a contract, a request) is malformed or out of bounds."""

    default_hint = "nothing of it was used; correct it and hand it in again"


class NotADatasetError(SealfsError):
    """There is no sealed dataset at this address, or no such version or path in it."""

    exit_code = 3
    errno = _errno.ENOENT


class KeyAccessError(SealfsError):
    """No usable key: identity missing, wrong passphrase, or not a recipient."""

    exit_code = 4
    errno = _errno.EACCES


class IntegrityError(SealfsError):
    """Bytes from the store are not what the provider sealed. Nothing of them was used."""

    exit_code = 5
    default_hint = "the store served damaged or forged data: run 'sealfs verify' and tell the data's provider"


class TrustError(SealfsError):
    """A snapshot is unsigned, signed by somebody else, or older than one already seen."""

    exit_code = 6
    errno = _errno.EACCES


class StoreError(SealfsError):
    """The object store could not be reached or refused the request."""

    exit_code = 7
    default_hint = "check the address, the network and the credentials with 'sealfs doctor URI'"


class ObjectNotFoundError(StoreError):
    """The store says that it has no such object."""

    errno = _errno.ENOENT


class ObjectSizeError(StoreError):
    """The object is shorter or longer than it must be; trying again will not help."""

    default_hint = "the object was cut or replaced in the store: run 'sealfs verify'"


class PreconditionFailedError(StoreError):
    """A conditional write lost: the object is not in the state the writer expected."""


class ConflictError(SealfsError):
    """Somebody else pushed in the meantime."""

    exit_code = 8
    errno = _errno.EAGAIN


class LocalIOError(SealfsError):
    """A local file could not be read or written: unreadable source, full disk, unfit target."""

    exit_code = 9


class SourceFileError(LocalIOError):
    """One file or directory of a folder can't be sealed as it is: unreadable, gone, special, never quiet.

    Args:
        message: See `SealfsError`.
        hint: See `SealfsError`.
        path: Which one, below the folder.
    """

    def __init__(self, message: str, hint: str, path: bytes) -> None:
        super().__init__(message, hint)
        self.path = path


class MountError(SealfsError):
    """FUSE is missing, the mount point is unfit, or the mount did not come up or go away."""

    exit_code = 10


class FormatError(SealfsError):
    """Authentic but unknown: written by a newer sealfs, or outside this version's bounds."""

    exit_code = 11
    default_hint = "a newer sealfs wrote this: upgrade sealfs"


class ExecutorError(SealfsError):
    """A workload cannot be run in the place that was asked for: a tool or a file is missing, or does not fit."""

    exit_code = 12


class EvidenceError(SealfsError):
    """Evidence does not prove what it is taken to prove, or the policy demands more than was proven."""

    exit_code = 14
    errno = _errno.EACCES
    default_hint = "'sealfs policy check' explains a verdict line by line"


class ContractError(SealfsError):
    """A contract does not allow this: not approved, not its time, no runs left, not by this party."""

    exit_code = 15
    errno = _errno.EACCES
    default_hint = "'sealfs task status' says how it stands"


class BrokerError(SealfsError):
    """A key broker could not be reached, is not the one it should be, or did not understand."""

    exit_code = 13
    errno = _errno.EIO
    default_hint = "check the broker's address, and that it runs: 'sealfs broker serve'"


class KeyRefusedError(KeyAccessError):
    """A key broker was asked and refused; the message is its reason."""

    default_hint = "the dataset's owner decides: the policy says what is demanded"


class AuditError(IntegrityError):
    """A broker's log was cut, edited or reordered."""

    default_hint = "keep this copy of the log, and ask the broker's operator: it is evidence"
