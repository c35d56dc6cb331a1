"""What every store promises (`sealfs.store.base`), tried on every kind of store.

Known differences of the servers, all hidden by `S3Store`:
- moto checks a condition and writes without a lock in between, so of racing writers several may win. Only
  there the racing tests ask for less.
- SeaweedFS makes a slash of a backslash; sealfs has no keys with one.
- Ceph 16 takes If-Match only without quotes.
"""

from __future__ import annotations

import itertools
import os
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sealfs.errors import ObjectNotFoundError, PreconditionFailedError, StoreError
from sealfs.store.base import ObjectStore

THREADS = 12


def read(store: ObjectStore, key: str, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    store.read_into(key, offset, memoryview(buffer))
    return bytes(buffer)


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return sorted(found.key for found in store.list(prefix))


@pytest.mark.parametrize("kind_of_buffer", [bytes, bytearray, memoryview])
def test_what_is_put_is_got(store: ObjectStore, kind_of_buffer: Callable[[bytes], memoryview]) -> None:
    data = os.urandom(100_000)
    etag = store.put("a/b", kind_of_buffer(data))
    assert etag
    assert store.get("a/b", max_size=len(data)) == (data, etag)
    found = store.stat("a/b")
    assert (found.key, found.size, found.etag) == ("a/b", len(data), etag)
    assert found.modified > 1_600_000_000


def test_a_slice_of_wider_items_is_put_as_bytes(store: ObjectStore) -> None:
    store.put("a", memoryview(bytes(range(16))).cast("I")[1:3])
    assert store.get("a", max_size=8)[0] == bytes(range(4, 12))


def test_put_replaces(store: ObjectStore) -> None:
    first = store.put("a", b"one")
    second = store.put("a", b"three")
    assert first != second
    assert store.get("a", max_size=5) == (b"three", second)
    assert read(store, "a", 0, 5) == b"three"


def test_an_empty_object(store: ObjectStore) -> None:
    etag = store.put("empty", b"")
    assert store.get("empty", max_size=0) == (b"", etag)
    assert store.stat("empty").size == 0
    with pytest.raises(StoreError):
        read(store, "empty", 0, 1)


def test_32_mib(store: ObjectStore) -> None:
    data = os.urandom(32 << 20)
    etag = store.put("pack", memoryview(data))
    assert store.stat("pack").etag == etag
    assert store.get("pack", max_size=len(data)) == (data, etag)
    assert read(store, "pack", 0, len(data)) == data


def test_ranges(store: ObjectStore) -> None:
    data = os.urandom(1 << 20)
    store.put("a", data)
    for offset, size in [(0, 1), (0, len(data)), (len(data) - 1, 1), (12345, 500_000), (7, 0)]:
        assert read(store, "a", offset, size) == data[offset : offset + size]


def test_the_rest_of_the_buffer_stays(store: ObjectStore) -> None:
    store.put("a", b"abcdef")
    buffer = bytearray(b"......")
    store.read_into("a", 1, memoryview(buffer)[2:4])
    assert buffer == b"..bc.."


def test_many_threads_read(store: ObjectStore) -> None:
    data = os.urandom(4 << 20)
    store.put("a", data)

    def check(number: int) -> bool:
        return read(store, "a", number * 1000, 300_000) == data[number * 1000 : number * 1000 + 300_000]

    with ThreadPoolExecutor(THREADS) as pool:
        assert all(pool.map(check, range(24)))


@pytest.mark.parametrize(("offset", "size"), [(0, 11), (9, 2), (10, 1), (99, 5)])
def test_never_a_short_read(store: ObjectStore, offset: int, size: int) -> None:
    store.put("a", b"0123456789")
    with pytest.raises(StoreError, match="too early"):
        read(store, "a", offset, size)


def test_max_size(store: ObjectStore) -> None:
    store.put("a", b"0123456789")
    with pytest.raises(StoreError, match="10 bytes, at most 9"):
        store.get("a", max_size=9)


def test_missing_objects(store: ObjectStore) -> None:
    store.put("a/b", b"x")
    for key in ("nothing", "a", "a/b2", "a/b/c"):
        with pytest.raises(ObjectNotFoundError):
            store.get(key, max_size=1)
        with pytest.raises(ObjectNotFoundError):
            store.stat(key)
        with pytest.raises(ObjectNotFoundError):
            read(store, key, 0, 1)


def test_list(store: ObjectStore) -> None:
    assert keys(store) == []
    etags = {key: store.put(key, key.encode()) for key in ("a", "p/1", "p/12", "p/2", "px/1", "q/r/s")}
    assert keys(store) == sorted(etags)
    assert keys(store, "p") == ["p/1", "p/12", "p/2", "px/1"]
    assert keys(store, "p/") == ["p/1", "p/12", "p/2"]
    assert keys(store, "p/1") == ["p/1", "p/12"]
    assert keys(store, "q/r/s") == ["q/r/s"]
    assert keys(store, "q/r/s/") == keys(store, "z") == []
    assert {found.key: (found.etag, found.size) for found in store.list("")} == {
        key: (etag, len(key)) for key, etag in etags.items()
    }


def test_list_many(kind: str, store: ObjectStore) -> None:
    count = 1100 if kind in {"seaweedfs", "ceph"} else 30  # more than one page of S3, where writes are fast
    wanted = [f"n/{number:04}" for number in range(count)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda key: store.put(key, b""), wanted))
    assert keys(store, "n/") == wanted
    store.delete(wanted[1:])
    assert keys(store, "") == wanted[:1]


def test_delete(store: ObjectStore) -> None:
    for key in ("a", "b", "c/d", "e"):
        store.put(key, b"x")
    assert read(store, "a", 0, 1) == b"x"
    store.delete(iter(["a", "c/d", "missing"]))
    store.delete(["a"])
    store.delete(["never/there"])
    store.delete([])
    assert keys(store) == ["b", "e"]
    with pytest.raises(ObjectNotFoundError):
        read(store, "a", 0, 1)


def test_create(store: ObjectStore) -> None:
    etag = store.put("a", b"first", if_absent=True)
    for data in (b"second", b"first"):  # also the same bytes: somebody else wrote them
        with pytest.raises(PreconditionFailedError):
            store.put("a", data, if_absent=True)
    assert store.get("a", max_size=10) == (b"first", etag)


def test_replace(store: ObjectStore) -> None:
    first = store.put("a", b"first")
    second = store.put("a", b"second", if_match=first)
    with pytest.raises(PreconditionFailedError):
        store.put("a", b"third", if_match=first)
    assert store.get("a", max_size=10) == (b"second", second)
    assert store.put("a", b"third", if_match=store.stat("a").etag)
    with pytest.raises(PreconditionFailedError):
        store.put("missing", b"x", if_match=second)
    assert keys(store) == ["a"]


def test_conditions_are_kept_and_the_probe_is_tidy(store: ObjectStore) -> None:
    assert store.has_conditional_writes()
    assert keys(store) == []


def race(write: Callable[[bytes], object]) -> list[bytes]:
    """Return what the winners of a race wrote."""
    start = threading.Barrier(THREADS)

    def run(number: int) -> bytes | None:
        data = b"writer %d" % number
        start.wait()
        try:
            write(data)
        except PreconditionFailedError:
            return None
        return data

    with ThreadPoolExecutor(THREADS) as pool:
        return [data for data in pool.map(run, range(THREADS)) if data is not None]


def check_winners(kind: str, winners: list[bytes], found: bytes) -> None:
    if kind == "moto":  # has no lock: several may win, but never nobody
        assert found in winners
    else:
        assert winners == [found]


def test_one_creator_wins(kind: str, store: ObjectStore) -> None:
    assert store.has_conditional_writes()
    for turn in range(2):
        winners = race(lambda data, key=f"head{turn}": store.put(key, data, if_absent=True))  # type: ignore[misc]
        check_winners(kind, winners, store.get(f"head{turn}", max_size=99)[0])


def test_one_replacer_wins(kind: str, store: ObjectStore) -> None:
    assert store.has_conditional_writes()
    etag = store.put("head", b"0")
    for _ in range(2):
        winners = race(lambda data, etag=etag: store.put("head", data, if_match=etag))  # type: ignore[misc]
        found, etag = store.get("head", max_size=99)
        check_winners(kind, winners, found)
        etag = store.put("head", b"again", if_match=etag)


ODD = ["with space", "a+b", "100%", "%2F", "ünï/cödé", "a=b&c", "~x", "a:b", "#?*[]", "x" * 200, "..."]


def test_odd_keys(store: ObjectStore) -> None:
    for key in ODD:
        data = key.encode()
        etag = store.put(key, data, if_absent=True)
        assert store.get(key, max_size=len(data)) == (data, etag)
        assert read(store, key, 0, len(data)) == data
        assert keys(store) == keys(store, key[:1]) == [key]
        store.delete([key, "other"])
        assert keys(store) == []


BAD = [
    "",
    "/",
    "/a",
    "a/",
    "a//b",
    "..",
    "../a",
    "a/../b",
    "a/.",
    "./a",
    "a\0",
    "a\nb",
    "a\\b",
    "\ud800",
    "x" * 2000,
]


def test_bad_keys_are_refused(store: ObjectStore) -> None:
    calls: list[Callable[[str], object]] = [
        lambda key: store.put(key, b"x"),
        lambda key: store.get(key, max_size=1),
        store.stat,
        lambda key: store.delete([key]),
        lambda key: read(store, key, 0, 1),
    ]
    for key, call in itertools.product(BAD, calls):
        with pytest.raises(StoreError, match="object name"):
            call(key)


PART = st.text(st.characters(exclude_characters="/\\", exclude_categories=["C", "Z"]), min_size=1, max_size=20)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.lists(PART.filter(lambda part: part not in {".", ".."}), min_size=1, max_size=4).map("/".join),
    data=st.binary(max_size=300),
)
def test_any_key_and_data(store: ObjectStore, key: str, data: bytes) -> None:
    # A folder of its own: no name may be a file in one example and a folder in another.
    key = f"{uuid.uuid4().hex}/{key}"
    try:
        store.put(key, data)
        assert keys(store) == [key]
        assert store.get(key, max_size=300)[0] == data
    finally:
        store.delete([key])
    assert keys(store) == []
