"""FLOE: answers of other implementations, a reader written straight from the specification, and an attacker."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import struct
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from sealfs import floe
from sealfs.errors import FormatError, IntegrityError, SealfsError

KNOWN = Path(__file__).parent / "fixtures" / "floe"
NAMES = sorted(path.name.removesuffix("_ct.txt") for path in KNOWN.glob("*_ct.txt"))
KEY = bytes(32)
AAD = b"This is AAD"
ROTATION = 1 << 20


def known(name: str) -> tuple[bytes, bytes]:
    """Ciphertext and plaintext of a known answer."""
    both = [bytes.fromhex((KNOWN / f"{name}_{kind}.txt").read_text().strip()) for kind in ("ct", "pt")]
    return both[0], both[1]


# --- a second FLOE, from the text of c2sp.org/FLOE alone: slow, plain, and independent of sealfs.floe ---


def i2be(value: int, size: int) -> bytes:
    return value.to_bytes(size, "big")


def hkdf_expand_sha384(prk: bytes, info: bytes, size: int) -> bytes:
    out, block = b"", b""
    for counter in itertools.count(1):
        if len(out) >= size:
            return out[:size]
        block = hmac.digest(prk, block + info + bytes([counter]), hashlib.sha384)
        out += block
    raise AssertionError


def floe_kdf(key: bytes, parameters: bytes, iv: bytes, aad: bytes, purpose: bytes, size: int) -> bytes:
    return hkdf_expand_sha384(key, parameters + iv + purpose + aad, size)


class PlainReader:
    """`startDecryption` and `decryptSegment` of the specification."""

    def __init__(self, key: bytes, aad: bytes, header: bytes) -> None:
        assert len(header) == 10 + 32 + 32
        self.parameters, self.iv, tag = header[:10], header[10:42], header[42:]
        self.aad = aad
        self.segment_length = int.from_bytes(self.parameters[2:6], "big")
        assert self.parameters == i2be(0, 1) + i2be(0, 1) + i2be(self.segment_length, 4) + i2be(32, 4)
        assert floe_kdf(key, self.parameters, self.iv, aad, b"HEADER_TAG:", 32) == tag
        self.message_key = floe_kdf(key, self.parameters, self.iv, aad, b"MESSAGE_KEY:", 48)

    def segment(self, sealed: bytes, position: int, final: bool) -> bytes:
        assert sealed[:4] == (i2be(len(sealed), 4) if final else b"\xff\xff\xff\xff")
        assert final or len(sealed) == self.segment_length
        masked = position >> 20 << 20
        key = floe_kdf(self.message_key, self.parameters, self.iv, self.aad, b"DEK:" + i2be(masked, 8), 32)
        return AESGCM(key).decrypt(sealed[4:16], sealed[16:], i2be(position, 8) + bytes([final]))

    def whole(self, body: bytes) -> bytes:
        segments = [body[i : i + self.segment_length] for i in range(0, len(body), self.segment_length)]
        last = len(segments) - 1
        return b"".join(self.segment(sealed, n, n == last) for n, sealed in enumerate(segments))


def read_plainly(key: bytes, aad: bytes, ciphertext: bytes) -> bytes:
    return PlainReader(key, aad, ciphertext[:74]).whole(ciphertext[74:])


def seal_segment(encryptor: floe.Encryptor, plaintext: bytes, position: int, final: bool) -> bytes:
    out = bytearray(len(plaintext) + floe.SEGMENT_OVERHEAD)
    encryptor.encrypt_segment_into(plaintext, position, final, memoryview(out))
    return bytes(out)


def open_segment(decryptor: floe.Decryptor, sealed: bytes, position: int, final: bool) -> bytes:
    out = bytearray(max(0, len(sealed) - floe.SEGMENT_OVERHEAD))
    decryptor.decrypt_segment_into(memoryview(sealed), position, final, memoryview(out))
    return bytes(out)


def segments_of(ciphertext: bytes) -> tuple[floe.Decryptor, floe.Layout, list[bytes]]:
    decryptor = floe.Decryptor(KEY, AAD, ciphertext[: floe.HEADER_SIZE])
    layout = floe.Layout(decryptor.segment_length, len(ciphertext))
    ranges = [layout.segment_range(n) for n in range(layout.segments)]
    return decryptor, layout, [ciphertext[offset : offset + length] for offset, length in ranges]


def refused(key: bytes, aad: bytes, ciphertext: bytes) -> bool:
    try:
        floe.decrypt(key, aad, ciphertext)
    except (IntegrityError, FormatError):
        return True
    return False


# --- other implementations' answers ---


def test_all_known_answers_are_here() -> None:
    assert len(NAMES) == 8


@pytest.mark.parametrize("name", NAMES)
def test_known_answer_decrypts_whole(name: str) -> None:
    ciphertext, plaintext = known(name)
    assert floe.decrypt(KEY, AAD, ciphertext) == plaintext
    assert read_plainly(KEY, AAD, ciphertext) == plaintext


@pytest.mark.parametrize("name", NAMES)
def test_known_answer_decrypts_at_random_access(name: str) -> None:
    ciphertext, plaintext = known(name)
    decryptor, layout, segments = segments_of(ciphertext)
    assert layout.plaintext_size == len(plaintext)
    room = layout.segment_length - floe.SEGMENT_OVERHEAD
    for position in reversed(range(layout.segments)):
        opened = open_segment(decryptor, segments[position], position, layout.is_final(position))
        assert opened == plaintext[position * room : (position + 1) * room]


@pytest.mark.parametrize("name", NAMES)
def test_known_answer_under_another_key_or_purpose_is_refused(name: str) -> None:
    ciphertext, _ = known(name)
    assert refused(bytes([1]) + KEY[1:], AAD, ciphertext)
    assert refused(KEY, AAD + b".", ciphertext)
    assert refused(KEY, b"", ciphertext)


# --- what sealfs writes ---


@given(plaintext=st.binary(max_size=400), length=st.integers(33, 200), aad=st.binary(max_size=40))
def test_what_is_written_is_read_by_the_plain_reader(plaintext: bytes, length: int, aad: bytes) -> None:
    key = hashlib.sha256(aad).digest()
    ciphertext = bytes(floe.encrypt(key, aad, plaintext, length))
    assert ciphertext[:10] == struct.pack(">BBII", 0, 0, length, 32)
    assert len(ciphertext) == floe.Layout.of_plaintext(len(plaintext), length).ciphertext_size
    assert read_plainly(key, aad, ciphertext) == plaintext
    assert floe.decrypt(key, aad, ciphertext) == plaintext


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 15, 16, 17, 24])
def test_lengths_around_segment_borders(size: int) -> None:
    plaintext, length = bytes(range(size)), floe.SEGMENT_OVERHEAD + 8
    ciphertext = bytes(floe.encrypt(KEY, AAD, plaintext, length))
    layout = floe.Layout(length, len(ciphertext))
    assert layout == floe.Layout.of_plaintext(size, length)
    assert layout.segments == max(1, -(-size // 8))
    assert layout.plaintext_size == size
    assert read_plainly(KEY, AAD, ciphertext) == plaintext


def test_every_message_gets_its_own_iv() -> None:
    assert len({bytes(floe.encrypt(KEY, AAD, b"same", 64))[10:42] for _ in range(50)}) == 50
    encryptor = floe.Encryptor(KEY, AAD, 36)
    assert len({seal_segment(encryptor, b"same", n, final=False)[4:16] for n in range(50)}) == 50


@given(
    plaintext=st.binary(min_size=1, max_size=600),
    length=st.integers(33, 120),
    cut=st.tuples(st.integers(0, 600), st.integers(0, 600)),
)
def test_random_access_equals_slices(plaintext: bytes, length: int, cut: tuple[int, int]) -> None:
    start, stop = sorted(min(place, len(plaintext)) for place in cut)
    decryptor, layout, segments = segments_of(bytes(floe.encrypt(KEY, AAD, plaintext, length)))
    room = length - floe.SEGMENT_OVERHEAD
    first, last = start // room, min(layout.segments - 1, stop // room)
    found = b"".join(open_segment(decryptor, segments[n], n, layout.is_final(n)) for n in range(first, last + 1))
    assert found[start - first * room : stop - first * room] == plaintext[start:stop]


@pytest.mark.parametrize(
    "position", [0, 1, ROTATION - 1, ROTATION, ROTATION + 1, 3 * ROTATION - 1, 3 * ROTATION, floe.MAX_SEGMENTS - 1]
)
def test_keys_rotate_every_2_to_the_20_segments(position: int) -> None:
    encryptor = floe.Encryptor(KEY, AAD, 40)
    sealed = seal_segment(encryptor, b"12345678", position, final=False)
    assert PlainReader(KEY, AAD, encryptor.header).segment(sealed, position, final=False) == b"12345678"
    assert open_segment(floe.Decryptor(KEY, AAD, encryptor.header), sealed, position, final=False) == b"12345678"


@pytest.mark.parametrize("shift", [1, -1, ROTATION, 1 << 32, 1 << 39])
def test_segment_at_another_position_is_refused_across_rotations(shift: int) -> None:
    position = ROTATION + 5
    encryptor = floe.Encryptor(KEY, AAD, 40)
    sealed = seal_segment(encryptor, b"12345678", position, final=False)
    decryptor = floe.Decryptor(KEY, AAD, encryptor.header)
    with pytest.raises(IntegrityError):
        open_segment(decryptor, sealed, position + shift, final=False)


def test_threads_that_jump_between_rotations_do_not_mix_keys() -> None:
    encryptor = floe.Encryptor(KEY, AAD, 40)
    positions = [rotation * ROTATION + n for n in range(40) for rotation in range(4)]
    with ThreadPoolExecutor(8) as pool:
        sealed = list(pool.map(lambda n: seal_segment(encryptor, i2be(n, 8), n, False), positions))
        decryptor = floe.Decryptor(KEY, AAD, encryptor.header)
        opened = list(pool.map(lambda n, s: open_segment(decryptor, s, n, False), positions, sealed))
    assert [int.from_bytes(data, "big") for data in opened] == positions


# --- an attacker ---


def test_every_flipped_bit_is_refused() -> None:
    ciphertext = bytes(floe.encrypt(KEY, AAD, bytes(range(30)), 44))
    for place, bit in itertools.product(range(len(ciphertext)), range(8)):
        forged = bytearray(ciphertext)
        forged[place] ^= 1 << bit
        assert refused(KEY, AAD, bytes(forged)), f"bit {bit} of byte {place}"


@pytest.mark.parametrize("size", [0, 5, 12, 24, 30])
def test_truncation_at_every_length_is_refused(size: int) -> None:
    ciphertext = bytes(floe.encrypt(KEY, AAD, bytes(size), 44))
    for length in range(len(ciphertext)):
        assert refused(KEY, AAD, ciphertext[:length]), f"cut to {length} of {len(ciphertext)}"


@given(tail=st.binary(min_size=1, max_size=150), size=st.sampled_from([0, 5, 12, 24, 30]))
def test_extension_is_refused(tail: bytes, size: int) -> None:
    assert refused(KEY, AAD, bytes(floe.encrypt(KEY, AAD, bytes(size), 44)) + tail)


def test_every_reordering_of_segments_is_refused() -> None:
    ciphertext = bytes(floe.encrypt(KEY, AAD, bytes(range(48)), 44))
    header, (_, _, segments) = ciphertext[:74], segments_of(ciphertext)
    assert len(segments) == 4
    for order in itertools.chain(
        itertools.permutations(range(4)),
        itertools.product(range(4), repeat=3),
        itertools.product(range(4), repeat=4),
    ):
        if list(order) != [0, 1, 2, 3]:
            assert refused(KEY, AAD, header + b"".join(segments[n] for n in order)), order


def test_segments_of_another_message_are_refused() -> None:
    one, other = (bytes(floe.encrypt(KEY, AAD, bytes(24), 44)) for _ in range(2))
    assert refused(KEY, AAD, one[:74] + other[74:])
    assert refused(KEY, AAD, one[: 74 + 44] + other[74 + 44 :])
    assert refused(KEY, AAD, other[:74] + one[74:])


def test_wrong_final_flag_is_refused_both_ways() -> None:
    ciphertext = bytes(floe.encrypt(KEY, AAD, bytes(24), 44))
    decryptor, _, (inner, last) = segments_of(ciphertext)
    for sealed, position, final in ((inner, 0, True), (last, 1, False)):
        with pytest.raises(IntegrityError):
            open_segment(decryptor, sealed, position, final)
    # and with the length field forged to match the claim, so that only the tag can tell
    with pytest.raises(IntegrityError):
        open_segment(decryptor, i2be(44, 4) + inner[4:], 0, final=True)
    with pytest.raises(IntegrityError):
        open_segment(decryptor, b"\xff\xff\xff\xff" + last[4:], 1, final=False)


def test_what_does_not_authenticate_leaves_no_plaintext_behind() -> None:
    ciphertext = bytearray(floe.encrypt(KEY, AAD, b"secret!!" * 4, 64))
    ciphertext[-1] ^= 1
    decryptor = floe.Decryptor(KEY, AAD, ciphertext[:74])
    out = bytearray(b"x" * 32)
    with pytest.raises(IntegrityError):
        decryptor.decrypt_segment_into(memoryview(ciphertext)[74:], 0, True, memoryview(out))
    assert out == bytes(32)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda h: b"\x01" + h[1:], FormatError),
        (lambda h: h[:1] + b"\x01" + h[2:], FormatError),
        (lambda h: h[:2] + i2be(32, 4) + h[6:], FormatError),
        (lambda h: h[:2] + i2be(0, 4) + h[6:], FormatError),
        (lambda h: h[:2] + i2be(floe.MAX_SEGMENT_LENGTH + 1, 4) + h[6:], FormatError),
        (lambda h: h[:2] + i2be(0xFFFFFFFF, 4) + h[6:], FormatError),
        (lambda h: h[:6] + i2be(12, 4) + h[10:], FormatError),
        (lambda h: h[:2] + i2be(65, 4) + h[6:], IntegrityError),
        (lambda h: h[:-1], IntegrityError),
        (lambda h: h + b"\0", IntegrityError),
        (lambda h: b"", IntegrityError),
    ],
)
def test_forged_header_is_refused(change: Callable[[bytes], bytes], error: type[SealfsError]) -> None:
    header = bytes(floe.encrypt(KEY, AAD, b"", 64)[:74])
    with pytest.raises(error):
        floe.Decryptor(KEY, AAD, change(header))


@given(st.binary(max_size=300) | st.binary(min_size=64, max_size=300).map(lambda b: known(NAMES[0])[0][:10] + b))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    assert refused(KEY, AAD, data)


@given(size=st.integers(0, 1 << 64), length=st.integers(0, 1 << 33))
def test_layout_of_any_size_is_consistent_or_refused(size: int, length: int) -> None:
    try:
        layout = floe.Layout(length, size)
    except (IntegrityError, FormatError):
        return
    assert layout.plaintext_size >= 0
    offset, last = layout.segment_range(layout.segments - 1)
    assert offset + last == size
    assert floe.SEGMENT_OVERHEAD <= last <= length


def test_a_forged_length_allocates_nothing_big() -> None:
    header = floe.Encryptor(KEY, AAD, floe.MAX_SEGMENT_LENGTH).header
    tracemalloc.start()
    try:
        assert refused(KEY, AAD, header + bytes(100))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 7, 9])
def test_an_inner_segment_that_is_not_full_is_never_written(size: int) -> None:
    with pytest.raises(ValueError, match="final"):
        seal_segment(floe.Encryptor(KEY, AAD, 40), bytes(size), 0, final=False)


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_size_is_no_key(size: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        floe.Encryptor(bytes(size), AAD, 64)


@pytest.mark.parametrize("length", [0, 32, floe.MAX_SEGMENT_LENGTH + 1])
def test_a_segment_length_that_no_reader_takes_is_never_written(length: int) -> None:
    with pytest.raises(FormatError):
        floe.Encryptor(KEY, AAD, length)


def test_nothing_of_a_key_shows_in_a_repr() -> None:
    key = bytes(range(32))
    encryptor = floe.Encryptor(key, AAD, 64)
    for text in (repr(encryptor), repr(floe.Decryptor(key, AAD, encryptor.header))):
        assert "\\x" not in text
        assert key.hex() not in text
