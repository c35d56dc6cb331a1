"""Identities, recipients, and the wrapping of dataset keys.

An identity is one person's or machine's secret half: a hybrid ML-KEM-768 + X25519 key that opens what was
wrapped for it (HPKE, RFC 9180, KEM MLKEM768-X25519, so that stored data outlives quantum computers) and an
Ed25519 key that signs snapshots. A `Recipient` is the public half of the first, a `Signer` of the second.

Public strings are `sealfs-recipient-1:` or `sealfs-signer-1:` and unpadded base64url of the raw key followed
by the first four bytes of its SHA-256, which catches typing errors.

Threading: all types are immutable.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from sealfs.dsse import CryptoSigner, SSlibKey
from sealfs.errors import KeyAccessError, LocalIOError, UsageError
from sealfs.xdg import config_directory

RECIPIENT_PREFIX = "sealfs-recipient-1:"
SIGNER_PREFIX = "sealfs-signer-1:"
_SECRET_PREFIX = "sealfs-identity-1:"  # noqa: S105 - the public name of a format
_LOCKED_PREFIX = "sealfs-identity-1-scrypt:"

_MLKEM_SEED_SIZE = 64
_MLKEM_PUBLIC_SIZE = 1184
_X25519_SIZE = 32
_ED25519_SIZE = 32
_SECRET_SIZE = _MLKEM_SEED_SIZE + _X25519_SIZE + _ED25519_SIZE
_CHECKSUM_SIZE = 4
_SALT_SIZE = 16
_NONCE_SIZE = 12
_MAX_IDENTITY_FILE = 64 * 1024
_SCRYPT_LOG_N = 17  # 128 MiB and about half a second: OWASP's advice for stored secrets
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def _encode(prefix: str, raw: bytes) -> str:
    checked = raw + hashlib.sha256(raw).digest()[:_CHECKSUM_SIZE]
    return prefix + base64.urlsafe_b64encode(checked).rstrip(b"=").decode()


def _decode(prefix: str, text: str, size: int, what: str) -> bytes:
    body = text.strip().removeprefix(prefix)
    try:
        checked = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        checked = b""
    raw = checked[:-_CHECKSUM_SIZE]
    if len(raw) != size or hashlib.sha256(raw).digest()[:_CHECKSUM_SIZE] != checked[-_CHECKSUM_SIZE:]:
        raise UsageError(f"that {what} string is incomplete or mistyped", "copy the whole line again")
    return raw


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who may open a dataset: the public half of an identity's hybrid KEM key.

    Attributes:
        raw: ML-KEM-768 public key (1184 bytes), then X25519 public key (32 bytes).
    """

    raw: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """Read a recipient string.

        Raises:
            UsageError: It is not one, or was damaged on the way.
        """
        if not text.strip().startswith(RECIPIENT_PREFIX):
            raise UsageError(
                f"a recipient starts with '{RECIPIENT_PREFIX}'",
                "'sealfs keygen' prints it, and writes it to the .pub file beside the identity",
            )
        recipient = cls(_decode(RECIPIENT_PREFIX, text, _MLKEM_PUBLIC_SIZE + _X25519_SIZE, "recipient"))
        recipient._public_key()  # a malformed lattice key is refused here, not at the first push
        return recipient

    def __str__(self) -> str:
        return _encode(RECIPIENT_PREFIX, self.raw)

    @property
    def fingerprint(self) -> str:
        """16 hex digits to tell recipients apart in print."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    def _public_key(self) -> hpke.MLKEM768X25519PublicKey:
        try:
            return hpke.MLKEM768X25519PublicKey(
                mlkem.MLKEM768PublicKey.from_public_bytes(self.raw[:_MLKEM_PUBLIC_SIZE]),
                x25519.X25519PublicKey.from_public_bytes(self.raw[_MLKEM_PUBLIC_SIZE:]),
            )
        except ValueError:
            raise UsageError("that recipient string does not hold a valid key") from None

    def wrap(self, secret: bytes, context: bytes) -> bytes:
        """Encrypt `secret` so that only this recipient opens it, and only in this `context`."""
        return _SUITE.encrypt(secret, self._public_key(), info=context)


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose snapshots to believe: an Ed25519 public key (32 bytes)."""

    raw: bytes

    @classmethod
    def parse(cls, text: str) -> Signer:
        """Read a signer string.

        Raises:
            UsageError: It is not one, or was damaged on the way.
        """
        if not text.strip().startswith(SIGNER_PREFIX):
            raise UsageError(f"a signer starts with '{SIGNER_PREFIX}'", "ask the data's provider for it")
        return cls(_decode(SIGNER_PREFIX, text, _ED25519_SIZE, "signer"))

    def __str__(self) -> str:
        return _encode(SIGNER_PREFIX, self.raw)

    def verification_key(self) -> SSlibKey:
        """Return the key in the form that DSSE envelopes are verified with."""
        return SSlibKey.from_crypto(ed25519.Ed25519PublicKey.from_public_bytes(self.raw))


class Identity:
    """One party's secret keys.

    Nothing of it shows in its repr; `save` and `to_text` are the only ways out.
    """

    __slots__ = ("_kem", "_secret", "_signing")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != _SECRET_SIZE:
            raise KeyAccessError("that identity is damaged", "restore it from your backup")
        self._secret = secret
        seed, rest = secret[:_MLKEM_SEED_SIZE], secret[_MLKEM_SEED_SIZE:]
        self._kem = hpke.MLKEM768X25519PrivateKey(
            mlkem.MLKEM768PrivateKey.from_seed_bytes(seed),
            x25519.X25519PrivateKey.from_private_bytes(rest[:_X25519_SIZE]),
        )
        self._signing = ed25519.Ed25519PrivateKey.from_private_bytes(rest[_X25519_SIZE:])

    def __repr__(self) -> str:
        return f"<Identity {self.recipient.fingerprint}>"

    @classmethod
    def generate(cls) -> Identity:
        """Return a new random identity."""
        return cls(os.urandom(_SECRET_SIZE))

    @property
    def recipient(self) -> Recipient:
        """The public half that others wrap keys for."""
        seed, rest = self._secret[:_MLKEM_SEED_SIZE], self._secret[_MLKEM_SEED_SIZE:]
        lattice = mlkem.MLKEM768PrivateKey.from_seed_bytes(seed).public_key().public_bytes_raw()
        curve = x25519.X25519PrivateKey.from_private_bytes(rest[:_X25519_SIZE]).public_key()
        return Recipient(lattice + curve.public_bytes_raw())

    @property
    def signer(self) -> Signer:
        """The public half that readers check snapshots with."""
        return Signer(self._signing.public_key().public_bytes_raw())

    def signing_key(self) -> CryptoSigner:
        """Return the signing key in the form that DSSE envelopes are signed with."""
        return CryptoSigner(self._signing)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Open what was wrapped for this identity.

        Raises:
            KeyAccessError: It was wrapped for somebody else, for another context, or was changed.
        """
        try:
            return _SUITE.decrypt(wrapped, self._kem, info=context)
        except (InvalidTag, ValueError):
            raise KeyAccessError(
                "the key wrapped for this identity does not open",
                "the dataset's keyring is damaged or forged",
            ) from None

    def to_text(self) -> str:
        """Return the line of an identity file, unlocked: for a descriptor that only a child of ours reads."""
        return _encode(_SECRET_PREFIX, self._secret) + "\n"

    def save(self, path: Path, passphrase: str | None = None) -> None:
        """Write the identity to a new file that only its owner can read, and its public half to `path`.pub.

        Raises:
            LocalIOError: The file exists already (it is never overwritten) or can't be written.
        """
        if passphrase is None:
            line = _encode(_SECRET_PREFIX, self._secret)
        else:
            salt, nonce = os.urandom(_SALT_SIZE), os.urandom(_NONCE_SIZE)
            head = bytes([_SCRYPT_LOG_N]) + salt + nonce
            sealed = AESGCM(_stretch(passphrase, salt, _SCRYPT_LOG_N)).encrypt(nonce, self._secret, head)
            line = _encode(_LOCKED_PREFIX, head + sealed)
        public = f"{self.recipient}\n{self.signer}\n"
        text = f"# sealfs identity {self.recipient.fingerprint}: keep it secret, keep a backup\n{line}\n"
        try:
            os.makedirs(path.parent, mode=0o700, exist_ok=True)
        except OSError as error:
            raise LocalIOError(f"cannot make {path.parent}: {error.strerror}") from None
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(descriptor)
            path.with_name(path.name + ".pub").write_text(public)
        except FileExistsError:
            raise LocalIOError(f"{path} exists already", "choose another file with --output") from None
        except OSError as error:
            raise LocalIOError(f"cannot write {path}: {error.strerror}") from None


def _stretch(passphrase: str, salt: bytes, log_n: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=1 << log_n, r=8, p=1).derive(passphrase.encode())


def default_identity_path() -> Path:
    """Return where an identity lies unless told otherwise."""
    return config_directory() / "identity"


def is_locked(path: Path) -> bool:
    """Whether the identity at `path` needs a passphrase."""
    return _identity_line(path).startswith(_LOCKED_PREFIX)


def load_identity(path: Path, passphrase: str | None = None) -> Identity:
    """Read an identity file.

    Raises:
        KeyAccessError: No such file, open to other users, not an identity, or a wrong passphrase.
    """
    return _parse_line(_identity_line(path), str(path), passphrase)


def parse_identity(text: str, name: str, passphrase: str | None = None) -> Identity:
    """Read the text of an identity file that came by another way; `name` says which, for messages.

    Raises:
        KeyAccessError: Not an identity, or a wrong passphrase.
    """
    return _parse_line(_line_in(text, name), name, passphrase)


def _parse_line(line: str, path: str, passphrase: str | None) -> Identity:
    damaged = KeyAccessError(f"{path} is damaged", "restore it from your backup")
    try:
        if line.startswith(_SECRET_PREFIX):
            return Identity(_decode(_SECRET_PREFIX, line, _SECRET_SIZE, "identity"))
        head_size = 1 + _SALT_SIZE + _NONCE_SIZE
        raw = _decode(_LOCKED_PREFIX, line, head_size + _SECRET_SIZE + 16, "identity")
    except UsageError:
        raise damaged from None
    head, log_n = raw[:head_size], raw[0]
    if not 10 <= log_n <= 20:
        raise damaged
    if passphrase is None:
        raise KeyAccessError(
            f"{path} is locked with a passphrase", "name a file that holds it with SEALFS_PASSPHRASE_FILE"
        )
    key = _stretch(passphrase, head[1 : 1 + _SALT_SIZE], log_n)
    try:
        return Identity(AESGCM(key).decrypt(head[1 + _SALT_SIZE :], raw[head_size:], head))
    except InvalidTag:
        raise KeyAccessError(f"wrong passphrase for {path}", "try again") from None


def _identity_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise KeyAccessError(
                    f"{path} can be read by other users",
                    f"run: chmod 600 {path} (and think about who has a copy)",
                )
            text = file.read(_MAX_IDENTITY_FILE).decode("ascii", "replace")
    except FileNotFoundError:
        raise KeyAccessError(
            f"no identity at {path}", "make one with 'sealfs keygen', or name yours with --identity"
        ) from None
    except OSError as error:
        raise KeyAccessError(f"cannot read {path}: {error.strerror}", "name yours with --identity") from None
    return _line_in(text, str(path))


def _line_in(text: str, path: str) -> str:
    for line in text.splitlines():
        if line.startswith((_SECRET_PREFIX, _LOCKED_PREFIX)):
            return line
    raise KeyAccessError(f"{path} is not a sealfs identity", "make one with 'sealfs keygen'")
