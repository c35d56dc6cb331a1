"""FLOE, the content cipher, and nothing else.

Fast Lightweight Online Encryption (https://c2sp.org/FLOE, IACR ePrint 2025/2275) with its one parameter set:
AES-256-GCM, HKDF-Expand-SHA-384, a 32-byte IV; only the segment length varies. It gives random access,
commits to its key, and tells truncation from an honest end.

A ciphertext is a header of 74 bytes, then segments of `segment_length` bytes, of which the last may be
shorter. Every segment carries `SEGMENT_OVERHEAD` bytes more than its plaintext.

Threading: an `Encryptor` or `Decryptor` may be used from many threads at once; AES runs outside the GIL.
"""

from __future__ import annotations

import hmac
import os
import struct
from dataclasses import dataclass
from typing import TypeAlias

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from sealfs.errors import FormatError, IntegrityError

Buffer: TypeAlias = bytes | bytearray | memoryview

KEY_SIZE = 32
HEADER_SIZE = 74
SEGMENT_OVERHEAD = 32  # length field 4, AEAD IV 12, AEAD tag 16
MIN_SEGMENT_LENGTH = SEGMENT_OVERHEAD + 1
MAX_SEGMENT_LENGTH = 16 << 20  # a reader allocates whole segments, so what it accepts is bounded
MAX_SEGMENTS = 1 << 40

_PARAMETERS = struct.Struct(">BBII")  # AEAD id, KDF id, segment length, IV length
_AEAD_AES_256_GCM = 0
_KDF_HKDF_EXPAND_SHA_384 = 0
_IV_SIZE = 32
_TAG_SIZE = 32
_MESSAGE_KEY_SIZE = 48
_ROTATION_BITS = 20
_NOT_FINAL = b"\xff\xff\xff\xff"
_LENGTH = struct.Struct(">I")
_SEGMENT_AAD = struct.Struct(">QB")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where things lie in one FLOE ciphertext.

    Attributes:
        segment_length: Bytes of a whole ciphertext segment.
        ciphertext_size: Bytes of the whole ciphertext, header included.
    """

    segment_length: int
    ciphertext_size: int

    def __post_init__(self) -> None:
        body = self.ciphertext_size - HEADER_SIZE
        if not MIN_SEGMENT_LENGTH <= self.segment_length <= MAX_SEGMENT_LENGTH:
            raise FormatError(f"unsupported FLOE segment length {self.segment_length}")
        if body < SEGMENT_OVERHEAD or 0 < body % self.segment_length < SEGMENT_OVERHEAD:
            raise IntegrityError(f"no FLOE ciphertext is {self.ciphertext_size} bytes long")
        if self.segments > MAX_SEGMENTS:
            raise IntegrityError("a FLOE ciphertext has at most 2^40 segments")

    @classmethod
    def of_plaintext(cls, size: int, segment_length: int) -> Layout:
        """Return the layout that a plaintext of `size` bytes gets."""
        segments = max(1, -(-size // (segment_length - SEGMENT_OVERHEAD)))
        return cls(segment_length, HEADER_SIZE + size + segments * SEGMENT_OVERHEAD)

    @property
    def segments(self) -> int:
        """Number of segments, at least 1."""
        return -(-(self.ciphertext_size - HEADER_SIZE) // self.segment_length)

    @property
    def plaintext_size(self) -> int:
        """Bytes of the whole plaintext."""
        return self.ciphertext_size - HEADER_SIZE - self.segments * SEGMENT_OVERHEAD

    def is_final(self, position: int) -> bool:
        """Whether segment `position` is the last."""
        return position == self.segments - 1

    def segment_range(self, position: int) -> tuple[int, int]:
        """Return (offset, length) in the ciphertext of segment `position`."""
        offset = HEADER_SIZE + position * self.segment_length
        return offset, min(self.segment_length, self.ciphertext_size - offset)


def segment_length_of(header: Buffer) -> int:
    """Return the segment length that a header names, before anything is authenticated.

    Raises:
        IntegrityError: These are not the bytes of a FLOE header.
        FormatError: A parameter set that this code does not know.
    """
    if len(header) != HEADER_SIZE:
        raise IntegrityError(f"a FLOE header is {HEADER_SIZE} bytes long, not {len(header)}")
    aead, kdf, segment_length, iv_size = _PARAMETERS.unpack_from(header)
    if (aead, kdf, iv_size) != (_AEAD_AES_256_GCM, _KDF_HKDF_EXPAND_SHA_384, _IV_SIZE):
        raise FormatError(f"unknown FLOE parameters (AEAD {aead}, KDF {kdf}, IV of {iv_size} bytes)")
    if not MIN_SEGMENT_LENGTH <= segment_length <= MAX_SEGMENT_LENGTH:
        raise FormatError(f"unsupported FLOE segment length {segment_length}")
    return int(segment_length)


class _Message:
    """The keys of one ciphertext, shared by both directions."""

    def __init__(self, key: bytes, aad: bytes, segment_length: int, iv: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"a FLOE key is {KEY_SIZE} bytes long")
        self.segment_length = segment_length
        self._prefix = _PARAMETERS.pack(
            _AEAD_AES_256_GCM, _KDF_HKDF_EXPAND_SHA_384, segment_length, _IV_SIZE
        ) + bytes(iv)
        self._aad = aad
        self._header_tag = self._derive(key, b"HEADER_TAG:", _TAG_SIZE)
        self._message_key = self._derive(key, b"MESSAGE_KEY:", _MESSAGE_KEY_SIZE)
        self._cipher: tuple[int, AESGCM] = (0, self._derive_cipher(0))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, segments of {self.segment_length} bytes>"

    def _derive(self, key: bytes, purpose: bytes, size: int) -> bytes:
        return HKDFExpand(SHA384(), size, self._prefix + purpose + self._aad).derive(key)

    def _derive_cipher(self, rotation: int) -> AESGCM:
        purpose = b"DEK:" + (rotation << _ROTATION_BITS).to_bytes(8, "big")
        return AESGCM(self._derive(self._message_key, purpose, KEY_SIZE))

    def cipher_at(self, position: int) -> AESGCM:
        """Return the AEAD for segment `position`; keys rotate every 2^20 segments."""
        rotation, cipher = self._cipher  # one tuple, so that threads never see half of a change
        if rotation != position >> _ROTATION_BITS:
            rotation = position >> _ROTATION_BITS
            cipher = self._derive_cipher(rotation)
            self._cipher = (rotation, cipher)
        return cipher


class Encryptor(_Message):
    """Encrypts one message under a fresh random IV.

    Args:
        key: 32 bytes.
        aad: What the whole ciphertext is bound to.
        segment_length: Bytes of a ciphertext segment.
    """

    def __init__(self, key: bytes, aad: bytes, segment_length: int) -> None:
        if not MIN_SEGMENT_LENGTH <= segment_length <= MAX_SEGMENT_LENGTH:
            raise FormatError(f"unsupported FLOE segment length {segment_length}")
        super().__init__(key, aad, segment_length, os.urandom(_IV_SIZE))

    @property
    def header(self) -> bytes:
        """The 74 bytes that come first."""
        return self._prefix + self._header_tag

    def encrypt_segment_into(self, plaintext: Buffer, position: int, final: bool, out: memoryview) -> None:
        """Encrypt one segment; `out` is exactly `SEGMENT_OVERHEAD` bytes longer than `plaintext`.

        Each position must be encrypted once only, and all but the final one must be full.
        """
        room = self.segment_length - SEGMENT_OVERHEAD
        if len(plaintext) > room or (not final and len(plaintext) != room):
            raise ValueError("only the final segment may be shorter than the others")
        iv = os.urandom(12)
        out[:4] = _LENGTH.pack(len(plaintext) + SEGMENT_OVERHEAD) if final else _NOT_FINAL
        out[4:16] = iv
        self.cipher_at(position).encrypt_into(iv, plaintext, _SEGMENT_AAD.pack(position, final), out[16:])


class Decryptor(_Message):
    """Decrypts segments of one message in any order.

    Args:
        key: 32 bytes.
        aad: What the whole ciphertext is bound to.
        header: The ciphertext's first 74 bytes.

    Raises:
        IntegrityError: The header was not made with this key and `aad`.
        FormatError: A parameter set that this code does not know.
    """

    def __init__(self, key: bytes, aad: bytes, header: Buffer) -> None:
        segment_length = segment_length_of(header)
        super().__init__(key, aad, segment_length, bytes(header[_PARAMETERS.size : -_TAG_SIZE]))
        if not hmac.compare_digest(self._header_tag, bytes(header[-_TAG_SIZE:])):
            raise IntegrityError("FLOE header does not authenticate: wrong key, or not this dataset's")

    def decrypt_segment_into(self, segment: memoryview, position: int, final: bool, out: memoryview) -> None:
        """Authenticate one segment and write its plaintext to `out`.

        Args:
            segment: The whole ciphertext segment, in memory nobody else can change meanwhile.
            position: Its number, from 0.
            final: Whether the caller knows it, from authentic data, to be the last one.
            out: Exactly `SEGMENT_OVERHEAD` bytes shorter than `segment`; zeroed when authentication fails.

        Raises:
            IntegrityError: The segment is not the one that was encrypted at this position.
        """
        expected = _LENGTH.pack(len(segment)) if final else _NOT_FINAL
        whole = len(segment) == self.segment_length or (
            final and SEGMENT_OVERHEAD <= len(segment) < self.segment_length
        )
        if not whole or segment[:4] != expected:
            raise IntegrityError(f"segment {position} is cut or misplaced")
        try:
            self.cipher_at(position).decrypt_into(
                segment[4:16], segment[16:], _SEGMENT_AAD.pack(position, final), out
            )
        except InvalidTag:
            out[:] = bytes(len(out))
            raise IntegrityError(f"segment {position} does not authenticate") from None


def encrypt(key: bytes, aad: bytes, plaintext: Buffer, segment_length: int) -> bytearray:
    """Return the FLOE ciphertext of a message that fits into memory."""
    encryptor = Encryptor(key, aad, segment_length)
    return encrypt_with(encryptor, memoryview(plaintext))


def encrypt_with(encryptor: Encryptor, plaintext: memoryview) -> bytearray:
    """Return the whole ciphertext of `plaintext` (an encryptor encrypts one message only)."""
    layout = Layout.of_plaintext(len(plaintext), encryptor.segment_length)
    ciphertext = bytearray(layout.ciphertext_size)
    ciphertext[:HEADER_SIZE] = encryptor.header
    out = memoryview(ciphertext)
    room = encryptor.segment_length - SEGMENT_OVERHEAD
    for position in range(layout.segments):
        offset, length = layout.segment_range(position)
        encryptor.encrypt_segment_into(
            plaintext[position * room : (position + 1) * room],
            position,
            layout.is_final(position),
            out[offset : offset + length],
        )
    return ciphertext


def decrypt(key: bytes, aad: bytes, ciphertext: Buffer) -> bytearray:
    """Return the plaintext of a message that fits into memory.

    Raises:
        IntegrityError: Not a byte of it is to be believed.
    """
    source = memoryview(ciphertext)
    decryptor = Decryptor(key, aad, source[:HEADER_SIZE])
    layout = Layout(decryptor.segment_length, len(source))
    plaintext = bytearray(layout.plaintext_size)
    out = memoryview(plaintext)
    room = decryptor.segment_length - SEGMENT_OVERHEAD
    for position in range(layout.segments):
        offset, length = layout.segment_range(position)
        decryptor.decrypt_segment_into(
            source[offset : offset + length],
            position,
            layout.is_final(position),
            out[position * room : position * room + length - SEGMENT_OVERHEAD],
        )
    return plaintext
