"""S3 servers and networks that fail or lie: each time the right result or a clear error."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealfs.errors import ObjectNotFoundError, PreconditionFailedError, StoreError
from sealfs.store.s3 import S3Store

from .hostile import HostileServer, hostile_server

ATTEMPTS = 3
SECRET = "very-secret-key"
DATA = os.urandom(300_000)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileServer]:
    with hostile_server() as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", str(ATTEMPTS))
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # back-offs; nothing else sleeps here
        running.objects["/b/p/a"] = DATA
        yield running


@pytest.fixture
def store(server: HostileServer) -> Iterator[S3Store]:
    opened = S3Store("b", "p", connect_timeout=1, read_timeout=0.5)
    yield opened
    opened.close()


def read(store: S3Store, offset: int = 1000, size: int = 200_000) -> bytes:
    buffer = bytearray(size)
    store.read_into("a", offset, memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize("fault", ["truncate", "500 InternalError", "503 SlowDown", "hang"])
def test_passing_faults_are_not_noticed(server: HostileServer, store: S3Store, fault: str) -> None:
    server.plan.extend([fault] * (ATTEMPTS - 1))
    assert read(store) == DATA[1000:201_000]
    server.plan.extend([fault] * (ATTEMPTS - 1))
    assert store.get("a", max_size=len(DATA))[0] == DATA
    assert len(server.requests) == 2 * ATTEMPTS


def test_a_broken_body_is_resumed_where_it_broke(server: HostileServer, store: S3Store) -> None:
    server.plan.extend(["truncate", "truncate"])
    assert read(store, 0, 100_000) == DATA[:100_000]
    assert [headers["Range"] for headers in server.headers] == [
        "bytes=0-99999",
        "bytes=50000-99999",
        "bytes=75000-99999",
    ]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("truncate", "no complete answer from 127.0.0.1"),
        ("hang", "no complete answer from 127.0.0.1"),
        ("500 InternalError", "the store answered InternalError"),
        ("503 SlowDown", "overloaded"),
    ],
)
def test_lasting_faults_end(server: HostileServer, store: S3Store, fault: str, words: str) -> None:
    server.plan.extend([fault] * 100)
    with pytest.raises(StoreError, match=words):
        read(store)
    with pytest.raises(StoreError, match=words):
        store.get("a", max_size=len(DATA))
    assert len(server.requests) == 2 * ATTEMPTS


@pytest.mark.parametrize("fault", ["whole", "shifted"])
@pytest.mark.parametrize("offset", [0, 1000])
def test_ignored_ranges_are_noticed(server: HostileServer, store: S3Store, fault: str, offset: int) -> None:
    server.plan.append(fault)
    with pytest.raises(StoreError, match="ignores byte ranges"):
        read(store, offset)


@pytest.mark.parametrize(("offset", "size"), [(len(DATA) - 5, 6), (len(DATA), 1)])
def test_short_objects_are_noticed(server: HostileServer, store: S3Store, offset: int, size: int) -> None:
    with pytest.raises(StoreError, match="ends too early"):
        read(store, offset, size)
    assert len(server.requests) == 1  # asking again would not help


def test_too_large_objects_are_not_loaded(server: HostileServer, store: S3Store) -> None:
    with pytest.raises(StoreError, match="at most 10"):
        store.get("a", max_size=10)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("403 AccessDenied", "access denied"),
        ("404 NoSuchBucket", "no such bucket"),
        ("400 ExpiredToken", "credentials have expired"),
        ("403 InvalidAccessKeyId", "does not know this access key"),
        ("403 SignatureDoesNotMatch", "secret key is wrong"),
        ("403 RequestTimeTooSkewed", "clock is wrong"),
        ("507 XMinioStorageFull", "is full"),
        ("418 Odd;31m", "answered an unknown error \\(418\\)"),
    ],
)
def test_refusals_are_told(server: HostileServer, store: S3Store, fault: str, words: str) -> None:
    for call in (
        lambda: read(store),
        lambda: store.put("b", b"x"),
        lambda: list(store.list("")),
        lambda: store.delete(["b"]),
    ):
        server.plan.extend([fault] * ATTEMPTS)
        with pytest.raises(StoreError, match=words) as caught:
            call()
        server.plan.clear()
        assert type(caught.value) is StoreError
        assert caught.value.hint
        assert "\n" not in caught.value.message
        assert "secret-in-a-message" not in str(caught.value)
        assert caught.value.__suppress_context__


def test_a_refused_look_is_told(server: HostileServer, store: S3Store) -> None:
    server.plan.append("403 AccessDenied")  # answers to HEAD have no body, so no code
    with pytest.raises(StoreError, match="access denied"):
        store.stat("a")
    with pytest.raises(ObjectNotFoundError):
        store.stat("none")


@pytest.mark.parametrize("condition", ["absent", "match"])
def test_a_won_write_whose_answer_got_lost_is_won(server: HostileServer, store: S3Store, condition: str) -> None:
    assert store.has_conditional_writes()
    etag = store.stat("a").etag
    server.plan.append("lose-answer")
    if condition == "absent":
        etag = store.put("new", b"mine", if_absent=True)
    else:
        etag = store.put("a", b"mine", if_match=etag)
    key = "new" if condition == "absent" else "a"
    assert store.get(key, max_size=4) == (b"mine", etag)


def test_a_retry_that_meets_somebody_elses_object_lost(server: HostileServer, store: S3Store) -> None:
    assert store.has_conditional_writes()
    server.objects["/b/p/new"] = b"theirs"
    server.plan.append("500 InternalError")
    with pytest.raises(PreconditionFailedError):
        store.put("new", b"mine!!", if_absent=True)
    assert server.objects["/b/p/new"] == b"theirs"


def test_equal_bytes_of_somebody_else_are_no_win(server: HostileServer, store: S3Store) -> None:
    server.objects["/b/p/new"] = b"same"
    with pytest.raises(PreconditionFailedError):
        store.put("new", b"same", if_absent=True)


@pytest.mark.parametrize("code", ["409 ConditionalRequestConflict", "412 PreconditionFailed"])
def test_conflicts_are_lost_conditions(server: HostileServer, store: S3Store, code: str) -> None:
    assert store.has_conditional_writes()
    server.plan.append(code)
    with pytest.raises(PreconditionFailedError):
        store.put("new", b"x", if_absent=True)


@pytest.mark.parametrize("honoured", [set(), {"If-Match"}, {"If-None-Match"}])
def test_the_probe_finds_servers_that_overwrite(server: HostileServer, store: S3Store, honoured: set[str]) -> None:
    server.conditions = honoured
    assert not store.has_conditional_writes()
    assert set(server.objects) == {"/b/p/a"}
    with pytest.raises(StoreError, match="no conditional writes"):
        store.put("a", b"x", if_absent=True)
    with pytest.raises(StoreError, match="no conditional writes"):
        store.put("a", b"x", if_match="0")
    assert server.objects["/b/p/a"] == DATA


@pytest.mark.parametrize("raw", [False, True])
def test_the_probe_finds_the_dialect(server: HostileServer, store: S3Store, raw: bool) -> None:
    server.raw_etags = raw
    assert store.put("a", b"new", if_match=store.stat("a").etag)
    assert server.objects == {"/b/p/a": b"new"}
    asked = len(server.requests)
    assert store.has_conditional_writes()
    assert len(server.requests) == asked  # remembered


def test_the_probe_takes_no_for_an_answer(server: HostileServer, store: S3Store) -> None:
    server.plan.extend(["501 NotImplemented"])
    assert not store.has_conditional_writes()


def test_the_probe_does_not_take_a_failure_for_an_answer(server: HostileServer, store: S3Store) -> None:
    server.plan.extend(["403 AccessDenied"])
    with pytest.raises(StoreError, match="access denied"):
        store.has_conditional_writes()
    assert store.has_conditional_writes()


@pytest.mark.parametrize("refusal", ["501 NotImplemented", "400 MissingContentMD5"])
def test_deleting_works_without_batches(server: HostileServer, store: S3Store, refusal: str) -> None:
    server.objects |= {"/b/p/x": b"", "/b/p/y": b""}
    server.plan.append(refusal)
    store.delete(["x", "y"])
    assert set(server.objects) == {"/b/p/a"}


def test_listing_has_pages_and_drops_what_is_no_object(server: HostileServer, store: S3Store) -> None:
    server.objects |= {f"/b/p/n{number}": b"x" for number in range(5)} | {"/b/p/d/": b"", "/b/other": b""}
    assert sorted(found.key for found in store.list("")) == ["a", "n0", "n1", "n2", "n3", "n4"]


def test_nobody_there(monkeypatch: pytest.MonkeyPatch, server: HostileServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:{port}")
        store = S3Store("b", "p")
        with pytest.raises(StoreError, match=f"no complete answer from 127.0.0.1:{port} ") as caught:
            store.stat("a")
        store.close()
    assert SECRET not in f"{caught.value} {caught.value.hint}"


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, server: HostileServer) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = S3Store("b", "p")
    with pytest.raises(StoreError, match="no usable AWS credentials") as caught:
        store.stat("a")
    store.close()
    assert "AWS_PROFILE" in caught.value.hint
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("AWS_PROFILE", "nobody", "no such AWS profile"),
        ("AWS_ENDPOINT_URL", "no url", "makes no sense"),
        ("AWS_MAX_ATTEMPTS", "many", "makes no sense"),
    ],
)
def test_unusable_configuration(
    monkeypatch: pytest.MonkeyPatch, server: HostileServer, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StoreError, match=words):
        S3Store("b", "p")


def test_configuration_of_aws_wins(monkeypatch: pytest.MonkeyPatch, server: HostileServer, tmp_path: Path) -> None:
    config = S3Store("b")._client.meta.config
    assert config.s3["addressing_style"] == "path"
    assert config.request_checksum_calculation == config.response_checksum_validation == "when_required"
    assert (config.retries["mode"], config.retries["total_max_attempts"]) == ("standard", ATTEMPTS)
    assert config.max_pool_connections == 32

    (tmp_path / "config").write_text(
        "[default]\nresponse_checksum_validation = when_supported\ns3 =\n  addressing_style = virtual\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    monkeypatch.setenv("AWS_RETRY_MODE", "legacy")
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    config = S3Store("b", concurrency=7)._client.meta.config
    assert config.s3["addressing_style"] == "virtual"
    assert config.request_checksum_calculation == config.response_checksum_validation == "when_supported"
    assert (config.retries["mode"], config.retries["total_max_attempts"]) == ("legacy", 5)
    assert config.max_pool_connections == 7


def test_checksums_of_views_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, server: HostileServer, store: S3Store
) -> None:
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    careful = S3Store("b", "p")
    careful.put("c", memoryview(DATA)[5:])
    careful.close()
    assert server.objects["/b/p/c"] == DATA[5:]
    assert "X-Amz-Checksum-Crc32" in {name.title() for name in server.headers[-1]}


def test_no_thread_is_left(server: HostileServer, store: S3Store) -> None:
    before = threading.active_count()
    opened = S3Store("b", "p")
    assert opened.stat("a").size == len(DATA)
    opened.close()
    assert threading.active_count() <= before + 1  # the server's thread for the connection may still end
