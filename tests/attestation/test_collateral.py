"""Collateral: from files without any network, and from a service that serves, lies, or is away."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote as percent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.hardware import NOW, Machine, SyntheticProvider
from sealfs.attestation.collateral import Collateral, CollateralFolder, platform_of
from sealfs.attestation.verify import Verifier
from sealfs.errors import DocumentError, EvidenceError

MACHINE = Machine()
BOUND = bytes(range(64))
QUOTE = MACHINE.sgx_quote(BOUND)
DAY = timedelta(days=1)


class Service:
    """A PCCS as the wire sees it: Intel's API v4, with whatever collateral it is told to serve."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.collateral: str | None = None
        self.asked = 0

    def answer(self, path: str) -> tuple[dict[str, str], bytes] | None:
        if self.collateral is None:
            return None
        document = json.loads(self.collateral)

        def signed(name: str, member: str, header: str) -> tuple[dict[str, str], bytes]:
            body = f'{{"{member}":{document[name]},"signature":"{document[f"{name}_signature"]}"}}'
            return {header: percent(document[f"{name}_issuer_chain"])}, body.encode()

        if "/pckcrl?" in path:
            chain = percent(document["pck_crl_issuer_chain"])
            return {"SGX-PCK-CRL-Issuer-Chain": chain}, bytes.fromhex(document["pck_crl"])
        if "/rootcacrl" in path:
            return {}, document["root_ca_crl"].encode()
        if "/tcb?" in path:
            self.asked += 1
            return signed("tcb_info", "tcbInfo", "TCB-Info-Issuer-Chain")
        return signed("qe_identity", "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain")


@contextmanager
def serving() -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = service.answer(self.path)
            self.send_response(200 if found else 404)
            headers, body = found or ({}, b"")
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        service = Service(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def service() -> Iterator[Service]:
    with serving() as running:
        running.collateral = MACHINE.collateral()
        yield running


def verify(folder: CollateralFolder, at: datetime = NOW) -> None:
    evidence = SyntheticProvider(MACHINE).collect(BOUND)
    Verifier(collateral=folder, intel_root=MACHINE.root_der).verify(evidence, BOUND, at)


def test_from_a_folder_whatever_the_names(tmp_path: Path) -> None:
    (tmp_path / "whatever.json").write_text(MACHINE.collateral())
    (tmp_path / "tdx.json").write_text(MACHINE.collateral("tdx"))
    (tmp_path / "note.txt").write_text("not collateral")
    verify(CollateralFolder(tmp_path))
    verify(CollateralFolder(tmp_path / "whatever.json"))


def test_nothing_for_this_platform(tmp_path: Path) -> None:
    (tmp_path / "tdx.json").write_text(MACHINE.collateral("tdx"))
    for path in (tmp_path, tmp_path / "tdx.json", tmp_path / "nothing"):
        with pytest.raises(EvidenceError, match="nothing from Intel"):
            verify(CollateralFolder(path))


def test_of_two_statements_the_newer_counts(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text(MACHINE.collateral(issued=NOW - 2 * DAY))
    (tmp_path / "a.json").write_text(MACHINE.collateral(issued=NOW - DAY, status="Revoked"))
    folder = CollateralFolder(tmp_path)
    with pytest.raises(EvidenceError, match="Revoked"):
        verify(folder)
    (tmp_path / "c.json").write_text(MACHINE.collateral(issued=NOW))
    verify(folder)  # and a file that comes later is seen


def test_a_clock_that_was_moved_back(tmp_path: Path) -> None:
    """Old statements, valid at the time that the clock shows, do not help: Intel has signed newer ones."""
    past = NOW - 60 * DAY
    (tmp_path / "old.json").write_text(MACHINE.collateral(issued=past - DAY, expires=past + DAY))
    verify(CollateralFolder(tmp_path), past)
    (tmp_path / "other.json").write_text(MACHINE.collateral("tdx"))
    with pytest.raises(EvidenceError, match="clock"):
        verify(CollateralFolder(tmp_path), past)


def test_files_that_are_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "broken.json").write_text('{"tcb_info":"{}"}')
    (tmp_path / "huge.json").write_bytes(b" " * (2 << 20))
    (tmp_path / "good.json").write_text(MACHINE.collateral())
    verify(CollateralFolder(tmp_path))
    assert "broken.json is passed over" in caplog.text
    assert "huge.json is passed over" in caplog.text


def test_fetched_once_and_kept_for_when_there_is_no_network(tmp_path: Path, service: Service) -> None:
    folder = CollateralFolder(tmp_path / "cache", service.url)
    for _ in range(3):
        verify(folder)
    assert service.asked == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{platform_of(QUOTE)}.json"]
    service.collateral = None
    verify(CollateralFolder(tmp_path / "cache", service.url))
    verify(CollateralFolder(tmp_path / "cache"))


def test_many_at_once_fetch_once(tmp_path: Path, service: Service) -> None:
    folder = CollateralFolder(tmp_path, service.url)
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(verify, folder) for _ in range(16)]:
            done.result()
    assert service.asked == 1


def test_fetched_by_whoever_has_an_event_loop(tmp_path: Path, service: Service) -> None:
    async def server() -> None:
        verify(CollateralFolder(tmp_path, service.url))

    asyncio.run(server())
    assert service.asked == 1


def test_refreshed_before_it_expires(tmp_path: Path, service: Service) -> None:
    folder = CollateralFolder(tmp_path, service.url, refresh_before=7 * DAY)
    verify(folder)
    service.collateral = MACHINE.collateral(issued=NOW + 20 * DAY, expires=NOW + 50 * DAY)
    verify(folder, NOW + 21 * DAY)
    assert service.asked == 1
    verify(folder, NOW + 23 * DAY)
    verify(folder, NOW + 40 * DAY)
    assert service.asked == 2


def test_a_service_that_is_away_when_it_is_time(tmp_path: Path, service: Service) -> None:
    folder = CollateralFolder(tmp_path, service.url)
    verify(folder)
    service.collateral = None
    verify(folder, NOW + 28 * DAY)  # still in date
    with pytest.raises(EvidenceError, match="expired at 2026-03-30"):
        verify(folder, NOW + 30 * DAY)
    with pytest.raises(EvidenceError, match="nothing from Intel"):
        verify(CollateralFolder(tmp_path / "new", service.url))


def test_a_service_that_serves_what_is_older(tmp_path: Path, service: Service) -> None:
    (tmp_path / "new.json").write_text(MACHINE.collateral(status="Revoked", expires=NOW + 5 * DAY))
    service.collateral = MACHINE.collateral(issued=NOW - 10 * DAY, expires=NOW + 20 * DAY)
    with pytest.raises(EvidenceError, match="Revoked"):
        verify(CollateralFolder(tmp_path, service.url))
    assert service.asked == 1


def test_a_service_that_serves_what_does_not_verify(tmp_path: Path, service: Service) -> None:
    (tmp_path / "stored.json").write_text(MACHINE.collateral(expires=NOW + 5 * DAY))
    service.collateral = Machine().collateral(issued=NOW)  # another root's
    verify(CollateralFolder(tmp_path, service.url))
    assert os.listdir(tmp_path) == ["stored.json"]
    with pytest.raises(EvidenceError, match="does not verify"):
        verify(CollateralFolder(tmp_path / "empty", service.url))
    assert not (tmp_path / "empty").exists()


DOCUMENT = json.loads(MACHINE.collateral())


@given(
    st.sampled_from(sorted(DOCUMENT)), st.none() | st.integers() | st.text(max_size=50) | st.just(...), st.data()
)
def test_mangled_collateral(name: str, value: object, data: st.DataObject) -> None:
    document = dict(DOCUMENT)
    if data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(document[name])))
        document[name] = document[name][:place] + data.draw(st.text(max_size=3)) + document[name][place + 1 :]
    elif value is ...:
        del document[name]
    else:
        document[name] = value
    try:
        Collateral.parse(json.dumps(document).encode())
    except DocumentError:
        return


@given(st.binary(max_size=100))
def test_bytes_that_are_none(data: bytes) -> None:
    with pytest.raises(DocumentError):
        Collateral.parse(data)
