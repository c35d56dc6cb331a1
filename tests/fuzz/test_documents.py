"""Documents of a hostile store: envelope, snapshot, head, keyring, summary, journal, trust pin."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope

from fuzz.mutations import HOSTILE, one_changed, parse_mutated, places, replaced, values
from sealfs import floe
from sealfs.dataset.content import FileState
from sealfs.dataset.dataset import Summary
from sealfs.dataset.journal import Journal, Start
from sealfs.dataset.keyring import DatasetKeys, Keyring
from sealfs.dataset.objects import INDEXES, KEYRINGS, PACKS, SNAPSHOTS, ObjectRef, new_object_id, object_name
from sealfs.dataset.packer import Piece, SealedPack
from sealfs.dataset.snapshot import PAYLOAD_TYPE, Ancestor, BrokerHint, Head, Snapshot
from sealfs.dataset.trust import TrustStore
from sealfs.errors import FormatError, IntegrityError, TrustError
from sealfs.fields import Fields, canonical_json
from sealfs.keys import Identity

ME, OTHER = Identity.generate(), Identity.generate()
DATASET = bytes(range(16))
KEYS = DatasetKeys.generate(DATASET)
REFUSALS = (IntegrityError, FormatError, TrustError)


def ref(kind: str, size: int = 10) -> ObjectRef:
    return ObjectRef(object_name(kind, new_object_id(bytes(8))), size, os.urandom(32))


SNAPSHOT = Snapshot(
    dataset=DATASET,
    version=3,
    time=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    signer=ME.signer,
    epoch=1,
    segment_length=65536,
    index=ref(INDEXES),
    keyring=ref(KEYRINGS),
    summary=Summary("push", "hello", 1, 2, 3, 4, 5).seal(KEYS, 1),
    history=(Ancestor(1, ref(SNAPSHOTS)), Ancestor(2, ref(SNAPSHOTS))),
    packs=(ref(PACKS), ref(PACKS, 1 << 40)),
    broker=BrokerHint("https://127.0.0.1:8600#sha256:" + "0" * 64, "owner"),
    level="L1",
)
SIGNED = SNAPSHOT.sign(ME)
PAYLOAD = json.loads(Envelope.from_dict(json.loads(SIGNED)).payload)
HEAD = Head(3, ref(SNAPSHOTS))
OPTIONAL = {("broker",), ("level",)}
KEYRING = Keyring.seal(KEYS, [ME.recipient, OTHER.recipient])


def sign(payload: bytes, who: Identity = ME, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """An envelope around anything at all, rightly signed: what a hostile provider could make."""
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(who.signing_key())
    return canonical_json(envelope.to_dict())


def parse_keyring(data: bytes) -> Keyring:
    return Keyring.parse(data, DATASET)


def parse_snapshot(data: bytes) -> Snapshot:
    return Snapshot.parse(data, None)


def parse_signed_snapshot(data: bytes) -> Snapshot:
    return Snapshot.parse(sign(data), ME.signer)


PARSERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "head": (Head.parse, HEAD.to_bytes()),
    "keyring": (parse_keyring, KEYRING.to_bytes()),
    "envelope": (parse_snapshot, SIGNED),
    "snapshot": (parse_signed_snapshot, canonical_json(PAYLOAD)),
}
EVERY = pytest.mark.parametrize("document", sorted(PARSERS))
VALUES = values("packs/x", "sealfs-signer-1:AAAA")


def refuses(parse: Callable[[bytes], object], data: bytes) -> bool:
    try:
        parse(data)
    except REFUSALS:
        return True
    return False


def test_valid_documents_are_read_back() -> None:
    assert Snapshot.parse(SIGNED, ME.signer) == SNAPSHOT
    assert Snapshot.parse(SIGNED, None) == SNAPSHOT
    assert Head.parse(HEAD.to_bytes()) == HEAD
    assert Keyring.parse(KEYRING.to_bytes(), DATASET).recipients == (ME.recipient, OTHER.recipient)
    assert Keyring.parse(KEYRING.to_bytes(), DATASET).open(OTHER).pack() == KEYS.pack()
    assert Summary.open(SNAPSHOT, KEYS) == Summary("push", "hello", 1, 2, 3, 4, 5)
    for parse, data in PARSERS.values():
        parse(data)


@EVERY
@settings(max_examples=100)
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes(document: str, data: bytes) -> None:
    assert refuses(PARSERS[document][0], data)


@EVERY
@settings(max_examples=100)
@given(value=VALUES)
def test_arbitrary_json(document: str, value: Any) -> None:
    assert refuses(PARSERS[document][0], json.dumps(value).encode())


@EVERY
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_valid_document_with_one_member_replaced_or_gone(document: str, data: st.DataObject) -> None:
    parse, valid = PARSERS[document]
    forged = json.dumps(data.draw(one_changed(json.loads(valid), VALUES))).encode()
    with contextlib.suppress(*REFUSALS):
        parse(forged)  # some changes are harmless, such as another keyid; nothing but a refusal may come out


@EVERY
def test_every_member_that_is_gone_null_or_of_another_type_is_refused(document: str) -> None:
    parse, valid = PARSERS[document]
    value = json.loads(valid)
    for place in places(value):
        if isinstance(place[-1], int):
            continue  # an array may have fewer members
        for wrong in (..., None, 1.5, [[]], {}, True):
            if document == "envelope" and place[-1] == "signatures" and wrong is ...:
                continue
            if document == "snapshot" and place in OPTIONAL and wrong is ...:
                parse(json.dumps(replaced(value, place, wrong)).encode())
                continue
            assert refuses(parse, json.dumps(replaced(value, place, wrong)).encode()), (place, wrong)


@EVERY
def test_mutated_bytes(document: str) -> None:
    parse_mutated(*PARSERS[document], document, REFUSALS)


@EVERY
@pytest.mark.parametrize(
    "hostile",
    [
        *HOSTILE,
        b'{"format_version":' + b"9" * 5000 + b"}",
        b'{"format_version":1e400}',
        b'{"format_version":NaN}',
        b'{"format_version":-Infinity}',
        b'{"format_version":true}',
        b'{"format_version":1.0}',
        b'"' + b"\\ud800" * 1000 + b'"',
        json.dumps({"a": "\ud800"}).encode("utf-32-le", "surrogatepass"),
    ],
    ids=range(14),
)
def test_hostile_json(document: str, hostile: bytes) -> None:
    assert refuses(PARSERS[document][0], hostile)


# --- which error, and what it says ---


@pytest.mark.parametrize("version", [2, 999, (1 << 63) - 1])
def test_a_newer_format_says_upgrade(version: int) -> None:
    newer = {**PAYLOAD, "format_version": version, "unknown": "member", "packs": "another shape"}
    keyring = {**json.loads(KEYRING.to_bytes()), "format_version": version}
    head = {**json.loads(HEAD.to_bytes()), "format_version": version}
    for parse, document in ((parse_signed_snapshot, newer), (parse_keyring, keyring), (Head.parse, head)):
        with pytest.raises(FormatError, match=f"format version {version}") as caught:
            parse(canonical_json(document))
        assert "upgrade" in caught.value.hint


@pytest.mark.parametrize("expected", [ME.signer, None])
def test_an_unsigned_snapshot_says_so(expected: object) -> None:
    envelope = json.loads(SIGNED)
    envelope["signatures"] = []
    with pytest.raises(TrustError, match="not signed"):
        Snapshot.parse(canonical_json(envelope), expected)  # type: ignore[arg-type]


def test_a_foreign_signature_says_whose() -> None:
    foreign = Snapshot.parse(sign(canonical_json({**PAYLOAD, "signer": str(OTHER.signer)}), OTHER), None)
    assert foreign.signer == OTHER.signer
    with pytest.raises(TrustError, match="pinned to") as caught:
        Snapshot.parse(sign(canonical_json({**PAYLOAD, "signer": str(OTHER.signer)}), OTHER), ME.signer)
    assert str(OTHER.signer) in caught.value.message
    assert str(ME.signer) in caught.value.message


def test_claiming_to_be_somebody_else_is_not_enough() -> None:
    claim = sign(canonical_json(PAYLOAD), OTHER)  # says "signer: ME", signed by OTHER
    for expected in (ME.signer, None):
        with pytest.raises(TrustError, match="valid signature"):
            Snapshot.parse(claim, expected)


@settings(max_examples=60)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_changed_payload_or_signature_is_never_believed(place: int, bit: int) -> None:
    envelope = json.loads(SIGNED)
    for member in ("payload", "sig"):
        holder = envelope if member == "payload" else envelope["signatures"][0]
        text = holder[member]
        at = place % len(text)
        changed = text[:at] + chr(ord(text[at]) ^ (1 << bit)) + text[at + 1 :]
        forged = json.loads(SIGNED)
        (forged if member == "payload" else forged["signatures"][0])[member] = changed
        try:
            found = Snapshot.parse(json.dumps(forged).encode(), ME.signer)
        except REFUSALS:
            continue
        assert found == SNAPSHOT  # base64 has several spellings of the same bytes


def test_a_signature_over_another_payload_type_does_not_count() -> None:
    with pytest.raises(IntegrityError, match="no snapshot"):
        Snapshot.parse(sign(canonical_json(PAYLOAD), payload_type="application/vnd.in-toto+json"), ME.signer)
    envelope = json.loads(sign(canonical_json(PAYLOAD), payload_type="application/vnd.in-toto+json"))
    envelope["payloadType"] = PAYLOAD_TYPE
    with pytest.raises(TrustError):
        Snapshot.parse(canonical_json(envelope), ME.signer)


def test_many_signatures_of_which_one_is_right() -> None:
    envelope = json.loads(SIGNED)
    junk = json.loads(sign(canonical_json(PAYLOAD), OTHER))["signatures"]
    envelope["signatures"] = junk + envelope["signatures"]
    assert Snapshot.parse(canonical_json(envelope), ME.signer) == SNAPSHOT
    envelope["signatures"] = junk * 17
    with pytest.raises(IntegrityError):
        Snapshot.parse(canonical_json(envelope), ME.signer)


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("version", 0),
        ("version", 4),  # the history ends with 2
        ("version", (1 << 31) + 1),
        ("time", "2026-02-30T00:00:00Z"),
        ("time", "now"),
        ("epoch", 0),
        ("segment_length", 32),
        ("segment_length", (16 << 20) + 1),
        ("dataset", "00"),
        ("dataset", "G" * 32),
        ("dataset", "A" * 32),
        ("summary", "abc"),
        ("summary", "00" * 65537),
        ("history", [{"version": 2, **ref(SNAPSHOTS).to_json()}, {"version": 1, **ref(SNAPSHOTS).to_json()}]),
        ("history", [{"version": 2, **ref(PACKS).to_json()}]),
        ("packs", [[f"packs/{'0' * 16}-{'0' * 32}", 0, "0" * 64]]),
        ("packs", [[f"packs/{'0' * 16}-{'0' * 32}", True, "0" * 64]]),
        ("packs", [[f"packs/{'0' * 16}-{'0' * 32}", 1 << 48, "0" * 64]]),
        ("packs", [["packs/../head", 5, "0" * 64]]),
        ("packs", [[f"packs/{'0' * 16}-{'0' * 32}\n", 5, "0" * 64]]),
        ("packs", [[f"packs/{'0' * 16}-{'0' * 32}", 5, "0" * 64, 1]]),
        ("index", {"name": "../../etc/passwd", "size": 1, "sha256": "0" * 64}),
        ("keyring", {**ref(INDEXES).to_json()}),
        ("signer", "sealfs-signer-1:AAAA"),
        ("signer", str(ME.recipient)),
    ],
)
def test_a_rightly_signed_snapshot_is_still_bounded(member: str, value: Any) -> None:
    with pytest.raises(IntegrityError):
        parse_signed_snapshot(canonical_json({**PAYLOAD, member: value}))


def test_a_keyring_of_another_dataset_says_so() -> None:
    with pytest.raises(IntegrityError, match="another dataset"):
        Keyring.parse(KEYRING.to_bytes(), bytes(16))


@settings(max_examples=100)
@given(packed=st.binary(max_size=120) | st.binary(min_size=36, max_size=36) | st.binary(min_size=72, max_size=72))
def test_unwrapped_bytes_of_any_kind(packed: bytes) -> None:
    with contextlib.suppress(*REFUSALS):
        keys = DatasetKeys.unpack(DATASET, packed)
        assert len(packed) % 36 == 0
        assert len(keys.pack_key(keys.latest)) == 32


@settings(max_examples=100)
@given(document=st.binary(max_size=100) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_a_summary_of_any_kind(document: bytes) -> None:
    sealed = bytes(floe.encrypt(KEYS.summary_key(1), DATASET, document, 16384))
    snapshot = Snapshot.parse(sign(canonical_json({**PAYLOAD, "summary": sealed.hex()})), ME.signer)
    with pytest.raises(IntegrityError):
        Summary.open(snapshot, KEYS)


@given(value=VALUES)
def test_fields_return_what_was_asked_for_or_refuse(value: Any) -> None:
    fields = Fields({"member": value}, "document")
    for ask in (
        lambda: fields.integer("member"),
        lambda: fields.text("member"),
        lambda: fields.hexadecimal("member", 4),
        lambda: fields.base64("member", 4),
        lambda: fields.array("member", 2),
        lambda: fields.object("member"),
        lambda: fields.objects("member", 2),
        fields.check_version,
    ):
        with contextlib.suppress(IntegrityError, FormatError):
            ask()


# --- files of our own that something happened to ---

PACK = SealedPack(new_object_id(bytes(8)), ref(PACKS), floe.Encryptor(bytes(32), b"", 64).header, 1, 100)
PIECE = Piece(FileState(b"odd \xff\n", 1, 2, -3, 4), 0, 2, 7, bytes(32))


def _journal(uri: str, packs: int) -> tuple[Path, Start]:
    journal = Journal(b"/source", uri)
    start = Start(bytes(8), DATASET, 1, ref(KEYRINGS))
    journal.begin(start)
    for _ in range(packs):
        journal.add(PACK, [PIECE, PIECE])
    journal.close()
    return journal._path, start


def _read(uri: str) -> tuple[Start | None, list[tuple[SealedPack, list[Piece]]]]:
    journal = Journal(b"/source", uri)
    try:
        return journal.read()
    finally:
        journal.close()


def test_a_journal_cut_anywhere_gives_the_whole_lines_before() -> None:
    path, start = _journal("file:///a", 3)
    data = path.read_bytes()
    found_start, packs = _read("file:///a")
    assert found_start == start
    assert len(packs) == 3
    assert {len(pieces) for _, pieces in packs} == {2}
    assert packs[0][1][0] == PIECE
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        _, packs = _read("file:///a")
        assert len(packs) == max(0, data[:length].count(b"\n") - 1)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_journal_is_cut_where_it_stops_making_sense(data: st.DataObject) -> None:
    path, _ = _journal("file:///b", 2)
    lines = path.read_bytes().splitlines(keepends=True)
    number = data.draw(st.integers(0, 2))
    changed = data.draw(one_changed(json.loads(lines[number]), VALUES))
    lines[number] = json.dumps(changed).encode() + b"\n"
    path.write_bytes(b"".join(lines))
    try:
        start, packs = _read("file:///b")
    except FormatError:  # of a newer version: that is told, not cut
        assert number == 0
        return
    assert start is not None or not packs
    for pack, pieces in packs:
        assert len(pack.header) == 74
        assert all(isinstance(n, int) for piece in pieces for n in (piece.offset, piece.length, piece.pack_offset))


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff" * 100 + b"\n", b"{}\n", b"[" * 10**5 + b"\n", b"1\n2\n"])
def test_a_journal_that_is_none_is_taken_for_empty(content: bytes) -> None:
    path, _ = _journal("file:///c", 1)
    path.write_bytes(content)
    assert _read("file:///c") == (None, [])


def test_a_journal_of_a_newer_sealfs_is_not_gone_on_with() -> None:
    path, _ = _journal("file:///d", 1)
    path.write_bytes(path.read_bytes().replace(b'"format_version":1', b'"format_version":2'))
    with pytest.raises(FormatError, match="journal"):
        _read("file:///d")


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 10**5, b"\xff", b'{"format_version":2}', b"null"])
def test_an_unreadable_pin_is_never_taken_for_absent(trust: TrustStore, content: bytes) -> None:
    trust.accept("file:///x", SNAPSHOT, ref(SNAPSHOTS))
    (path,) = trust._directory.glob("*.json")
    path.write_bytes(content)
    for ask in (
        lambda: trust.get("file:///x"),
        lambda: trust.expected_signer("file:///x", None),
        lambda: trust.accept("file:///x", SNAPSHOT, ref(SNAPSHOTS)),
    ):
        with pytest.raises(TrustError, match="cannot read the trust pin"):
            ask()
    assert path.read_bytes() == content
