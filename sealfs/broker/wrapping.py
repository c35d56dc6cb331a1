"""What makes a stolen database worthless: every secret in it lies under a master key that is not in it.

The master key is random and is itself wrapped, by a key file, a passphrase or a KMS; only the wrapped form is
stored. To move to another wrapper one short record changes; to get a new master key, all do.

Threading: all types are immutable; a KMS client is boto3's, which threads may share.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sealfs.errors import IntegrityError, KeyAccessError, LocalIOError

KEY_SIZE = 32
_NONCE_SIZE = 12
_SALT_SIZE = 16
_SCRYPT_LOG_N = 17  # as an identity's passphrase: 128 MiB and about half a second
_FILE_PREFIX = "sealfs-broker-key-1:"
_KMS_CONTEXT = {"application": "sealfs broker", "holds": "master key"}
_MASTER_CONTEXT = b"sealfs 1 broker master key"


class Vault:
    """Seals what the database holds, each thing for its own place.

    Args:
        master: 32 random bytes. They show nowhere.
    """

    __slots__ = ("_cipher",)

    def __init__(self, master: bytes) -> None:
        self._cipher = AESGCM(master)

    def __repr__(self) -> str:
        return "<Vault>"

    def seal(self, secret: bytes, context: bytes) -> bytes:
        """Return what may be stored: nonce (12 bytes), ciphertext, tag. AES-256-GCM (NIST SP 800-38D)."""
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, secret, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Undo `seal`.

        Raises:
            IntegrityError: It was changed, or belongs to another place.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], context)
        except (InvalidTag, ValueError):
            raise IntegrityError(
                "a secret in the broker's database does not open",
                "the database was changed, or put together from two: restore a backup",
            ) from None


class Wrapper(Protocol):
    """Keeps the master key safe while the broker is not running."""

    kind: str
    """Stored beside what was wrapped, so that a broker knows what to ask for: file, passphrase or kms."""

    def wrap(self, master: bytes) -> bytes:
        """Return a form of the master key that may be stored."""

    def unwrap(self, wrapped: bytes) -> bytes:
        """Undo `wrap`.

        Raises:
            KeyAccessError: Another key or passphrase, or the KMS refuses.
        """


class FileWrapper:
    """Wraps with a key in a file, which is to lie elsewhere than the database and its backups.

    Args:
        path: The file; read on each use, so that it can be on a medium that goes away.
    """

    kind = "file"

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def create(cls, path: Path) -> FileWrapper:
        """Write a new random key to a new file that only its owner can read.

        Raises:
            LocalIOError: The file exists already, or can't be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w") as file:
                file.write(f"{_FILE_PREFIX}{os.urandom(KEY_SIZE).hex()}\n")
                file.flush()
                os.fsync(descriptor)
        except OSError as error:
            raise LocalIOError(
                f"cannot write the broker's key file {path}: {error.strerror}", "choose another with --key-file"
            ) from None
        return cls(path)

    def wrap(self, master: bytes) -> bytes:
        """See `Wrapper`."""
        return Vault(self._key()).seal(master, _MASTER_CONTEXT)

    def unwrap(self, wrapped: bytes) -> bytes:
        """See `Wrapper`."""
        try:
            return Vault(self._key()).open(wrapped, _MASTER_CONTEXT)
        except IntegrityError:
            raise KeyAccessError(
                f"the key in {self._path} is not the one this broker's database was made with",
                "name the right one with --key-file",
            ) from None

    def _key(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & 0o077:
                    raise KeyAccessError(
                        f"{self._path} can be read by other users",
                        f"run: chmod 600 {self._path} (and think about who has a copy)",
                    )
                text = file.read(4096).decode("ascii", "replace").strip()
        except OSError as error:
            raise KeyAccessError(
                f"cannot read the broker's key file {self._path}: {error.strerror}",
                "without it nothing in the database opens: restore it, or name it with --key-file",
            ) from None
        try:
            key = bytes.fromhex(text.removeprefix(_FILE_PREFIX))
        except ValueError:
            key = b""
        if not text.startswith(_FILE_PREFIX) or len(key) != KEY_SIZE:
            raise KeyAccessError(f"{self._path} is no key file of a broker", "restore it from your backup")
        return key


class PassphraseWrapper:
    """Wraps with a key stretched from a passphrase by scrypt (RFC 7914).

    Args:
        passphrase: Shows nowhere.
    """

    kind = "passphrase"

    def __init__(self, passphrase: str) -> None:
        self._passphrase = passphrase.encode()

    def __repr__(self) -> str:
        return "<PassphraseWrapper>"

    def wrap(self, master: bytes) -> bytes:
        """See `Wrapper`."""
        salt = os.urandom(_SALT_SIZE)
        return salt + Vault(self._stretched(salt)).seal(master, _MASTER_CONTEXT)

    def unwrap(self, wrapped: bytes) -> bytes:
        """See `Wrapper`."""
        try:
            return Vault(self._stretched(wrapped[:_SALT_SIZE])).open(wrapped[_SALT_SIZE:], _MASTER_CONTEXT)
        except IntegrityError:
            raise KeyAccessError("wrong passphrase for the broker's database", "try again") from None

    def _stretched(self, salt: bytes) -> bytes:
        return Scrypt(salt=salt, length=KEY_SIZE, n=1 << _SCRYPT_LOG_N, r=8, p=1).derive(self._passphrase)


class KmsWrapper:
    """Lets AWS KMS, or what speaks its protocol, wrap.

    The master key is encrypted under a KMS key that never leaves the service, with an encryption context that the
    service logs and demands again.

    Args:
        key_id: Id, ARN or alias of the KMS key.
    """

    kind = "kms"

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id

    def wrap(self, master: bytes) -> bytes:
        """See `Wrapper`."""
        return self._call("encrypt", "CiphertextBlob", Plaintext=master)

    def unwrap(self, wrapped: bytes) -> bytes:
        """See `Wrapper`."""
        return self._call("decrypt", "Plaintext", CiphertextBlob=wrapped)

    def _call(self, operation: str, result: str, **arguments: bytes) -> bytes:
        try:
            import boto3  # noqa: PLC0415 - only brokers with a KMS need it
            from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415
        except ImportError:
            raise KeyAccessError("a KMS needs boto3", "pip install 'sealfs[s3]'") from None
        try:
            client: Any = boto3.client("kms")  # type: ignore[no-untyped-call]
            try:
                answer = getattr(client, operation)(KeyId=self.key_id, EncryptionContext=_KMS_CONTEXT, **arguments)
            finally:
                client.close()
        except (BotoCoreError, ClientError) as error:
            raise KeyAccessError(
                f"the KMS does not {operation} with {self.key_id}: {error}",
                "check the key's id and policy, and the AWS configuration",
            ) from None
        value = answer[result]
        assert isinstance(value, bytes)  # noqa: S101 - boto3 has no types
        return value
