"""TPM quotes with a real software TPM: Debian's swtpm, asked by tpm2-tools."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealfs.attestation.claims import Claims
from sealfs.attestation.evidence import Evidence
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.attestation.tpm import TpmProvider
from sealfs.attestation.tpm_quote import Quote, encode, load_key, qualifying_data
from sealfs.attestation.verdict import judge
from sealfs.attestation.verify import Verifier
from sealfs.errors import DocumentError, EvidenceError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOUND = bytes(range(64))
KEYS = {"ecc": ("ecc", "ecdsa"), "rsa": ("rsa", "rsassa"), "pss": ("rsa", "rsapss")}

pytestmark = pytest.mark.skipif(
    not (shutil.which("swtpm") and shutil.which("tpm2")), reason="swtpm and tpm2-tools are not installed"
)


@dataclass
class Chip:
    """A TPM that runs."""

    tcti: str
    folder: Path

    def run(self, *command: str) -> None:
        environment = {**os.environ, "TPM2TOOLS_TCTI": self.tcti}
        subprocess.run(["tpm2", *command], cwd=self.folder, env=environment, check=True, capture_output=True)

    def make_key(self, name: str, handle: str) -> bytes:
        """Make an attestation key as docs/attestation.md says; return its public half."""
        kind, scheme = KEYS[name]
        self.run("createek", "-c", "ek.ctx", "-G", kind, "-u", "ek.pub")
        self.run(
            *("createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", kind, "-g", "sha256", "-s", scheme),
            *("-u", f"{name}.pem", "-f", "pem"),
        )
        self.run("flushcontext", "-t")
        self.run("evictcontrol", "-C", "o", "-c", "ak.ctx", handle)
        self.run("flushcontext", "-t")
        return (self.folder / f"{name}.pem").read_bytes()


def _two_ports() -> int:
    """A free port whose neighbour is free as well: tpm2-tools expect the control channel there."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            try:
                second.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


@contextmanager
def running(folder: Path) -> Iterator[Chip]:
    port = _two_ports()
    command = [
        *("swtpm", "socket", "--tpm2", "--tpmstate", f"dir={folder}", "--flags", "not-need-init,startup-clear"),
        *("--server", f"type=tcp,port={port},bindaddr=127.0.0.1"),
        *("--ctrl", f"type=tcp,port={port + 1},bindaddr=127.0.0.1"),
    ]
    with subprocess.Popen(command) as process:
        try:
            give_up = time.monotonic() + 60
            while True:
                assert time.monotonic() < give_up, "swtpm did not come up"
                try:
                    socket.create_connection(("127.0.0.1", port + 1), 1).close()
                    break
                except OSError:
                    time.sleep(0.05)
            yield Chip(f"swtpm:host=127.0.0.1,port={port}", folder)
        finally:
            process.kill()


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chip]:
    with running(tmp_path_factory.mktemp("tpm")) as started:
        yield started


@pytest.fixture(scope="module")
def key(chip: Chip) -> bytes:
    return chip.make_key("ecc", "0x81010002")


def provider(chip: Chip, handle: str = "0x81010002", pcrs: str = "sha256:0,1,7") -> TpmProvider:
    return TpmProvider(handle, pcrs, chip.tcti)


def verify(key: bytes, evidence: Evidence, bound: bytes = BOUND) -> Claims:
    return Verifier(tpm_keys=[load_key(key)]).verify(evidence, bound, NOW)


@pytest.mark.parametrize(("name", "handle"), [("rsa", "0x81010003"), ("ecc", "0x81010005")])
def test_each_kind_of_key(chip: Chip, name: str, handle: str) -> None:
    public = chip.make_key(name, handle)
    assert provider(chip, handle).is_there()
    claims = verify(public, provider(chip, handle).collect(BOUND))
    assert (claims.tee, claims.ceiling, claims.pcrs) == ("tpm", Level.L3, "sha256:0,1,7")


def test_a_key_of_the_newer_kind_of_rsa(chip: Chip) -> None:
    public = chip.make_key("pss", "0x81010004")
    chip.run(
        *("quote", "-c", "0x81010004", "-l", "sha256:0,1,7", "--scheme", "rsapss", "-g", "sha256"),
        *("-q", qualifying_data(BOUND).hex(), "-m", "quoted", "-s", "signature"),
    )
    body = encode((chip.folder / "quoted").read_bytes(), (chip.folder / "signature").read_bytes(), public)
    body["report_data"] = base64.b64encode(BOUND).decode()
    assert verify(public, Evidence("tpm", body)).pcrs == "sha256:0,1,7"


def test_a_measured_boot_that_is_allowed_and_then_another_one(chip: Chip, key: bytes) -> None:
    claims = verify(key, provider(chip, pcrs="sha256:7,4").collect(BOUND))
    policy = Policy(level=Level.L3, measurements={"tpm": frozenset({claims.measurement})}, pcrs="sha256:4,7")
    assert judge([policy], claims, None, NOW).allowed
    chip.run("pcrextend", "4:sha256=" + "ab" * 32)
    changed = verify(key, provider(chip, pcrs="sha256:4,7").collect(BOUND))
    bad = [finding.rule for finding in judge([policy], changed, None, NOW).findings if not finding.ok]
    assert bad == ["measurement"]


def test_other_pcrs_with_the_same_digest(chip: Chip, key: bytes) -> None:
    """PCRs that anybody may reset and extend can be brought to the values of those that tell of the boot."""
    wanted = verify(key, provider(chip, pcrs="sha256:0").collect(BOUND))
    policy = Policy(level=Level.L3, measurements={"tpm": frozenset({wanted.measurement})}, pcrs="sha256:0")
    assert judge([policy], wanted, None, NOW).allowed
    chip.run("pcrreset", "16")
    forged = verify(key, provider(chip, pcrs="sha256:16").collect(BOUND))
    assert forged.measurement == wanted.measurement
    bad = [finding.rule for finding in judge([policy], forged, None, NOW).findings if not finding.ok]
    assert bad == ["PCRs"]


def test_an_old_nonce(chip: Chip, key: bytes) -> None:
    old = provider(chip).collect(BOUND)
    with pytest.raises(EvidenceError, match="another challenge, key or broker"):
        verify(key, old, bytes(64))
    new = base64.b64encode(bytes(64)).decode()
    with pytest.raises(EvidenceError, match="answers another challenge"):
        verify(key, Evidence("tpm", {**old.body, "report_data": new}), bytes(64))


def test_a_key_that_is_not_enrolled_or_somebody_elses(chip: Chip, key: bytes) -> None:
    evidence = provider(chip).collect(BOUND)
    other = chip.make_key("ecc", "0x81010006")
    with pytest.raises(EvidenceError, match="not enrolled"):
        verify(other, evidence)
    theirs = provider(chip, "0x81010006").collect(BOUND)
    with pytest.raises(EvidenceError, match="no valid signature"):
        verify(key, Evidence("tpm", {**theirs.body, "key": evidence.body["key"]}))


def test_a_bit_flipped_anywhere(chip: Chip, key: bytes) -> None:
    evidence = provider(chip).collect(BOUND)
    verifier = Verifier(tpm_keys=[load_key(key)])
    for name in ("quoted", "signature", "report_data"):
        raw = base64.b64decode(evidence.body[name])
        for bit in range(8 * len(raw)):
            flipped = bytearray(raw)
            flipped[bit // 8] ^= 1 << bit % 8
            body = {**evidence.body, name: base64.b64encode(flipped).decode()}
            with pytest.raises(EvidenceError):
                verifier.verify(Evidence("tpm", body), BOUND, NOW)


def test_what_is_signed_but_no_quote(chip: Chip, key: bytes, tmp_path: Path) -> None:
    """The same key also signs the time, with the same nonce; and no data of ours that looks like a TPM's."""
    time_of, signature = tmp_path / "time", tmp_path / "signature"
    chip.run(
        *("gettime", "-c", "0x81010002", "-q", qualifying_data(BOUND).hex(), "-g", "sha256"),
        *("--attestation", str(time_of), "-o", str(signature)),
    )
    body = {
        **provider(chip).collect(BOUND).body,
        "quoted": base64.b64encode(time_of.read_bytes()).decode(),
        "signature": base64.b64encode(signature.read_bytes()).decode(),
    }
    with pytest.raises(EvidenceError, match="something else than PCRs"):
        verify(key, Evidence("tpm", body))


def test_a_tpm_without_a_key_or_no_tpm_at_all(chip: Chip, tmp_path: Path) -> None:
    assert not provider(chip, "0x8101FFFF").is_there()
    with pytest.raises(EvidenceError, match="tpm2 quote failed"):
        provider(chip, "0x8101FFFF").collect(BOUND)
    assert not TpmProvider(root=tmp_path).is_there()
    with pytest.raises(EvidenceError):
        TpmProvider(root=tmp_path).collect(BOUND)


def attest(**changes: Any) -> bytes:
    parts: dict[str, bytes] = {
        "magic": b"\xffTCG",
        "type": struct.pack(">H", 0x8018),
        "signer": struct.pack(">H", 2) + b"ab",
        "nonce": struct.pack(">H", 4) + b"abcd",
        "clock": bytes(25),
        "selection": struct.pack(">IHB", 1, 0xB, 3) + b"\x83\0\0",
        "digest": struct.pack(">H", 32) + bytes(32),
        "end": b"",
    }
    return b"".join({**parts, **changes}.values())


def test_a_quote_by_hand() -> None:
    assert Quote.parse(attest()).pcrs == "sha256:0,1,7"


@pytest.mark.parametrize(
    "wrong",
    [
        {"magic": b"TCGA"},
        {"type": struct.pack(">H", 0x8017)},
        {"signer": struct.pack(">H", 60_000)},
        {"selection": struct.pack(">IHB", 1, 0x4, 3) + b"\x83\0\0"},
        {"selection": struct.pack(">IHB", 1, 0xB, 3) + b"\0\0\0"},
        {"selection": struct.pack(">IHB", 1, 0xB, 4) + b"\x83\0\0\1"},
        {"selection": 2 * (struct.pack(">IHB", 1, 0xB, 3) + b"\x83\0\0")},
        {"selection": struct.pack(">I", 2**32 - 1)},
        {"digest": struct.pack(">H", 20) + bytes(20)},
        {"end": b"\0"},
    ],
)
def test_quotes_that_are_refused(wrong: dict[str, bytes]) -> None:
    with pytest.raises(DocumentError):
        Quote.parse(attest(**wrong))


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda rest: attest()[:6] + rest))
def test_bytes_that_are_no_quote(data: bytes) -> None:
    try:
        Quote.parse(data)
    except DocumentError:
        return


def test_keys_that_are_none() -> None:
    for data in (b"", b"junk", b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"):
        with pytest.raises(DocumentError):
            load_key(data)
