"""What a host needs so that its enclaves and guests can be attested, and what of it is missing here.

Threading: stateless.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sealfs.attestation.collateral import CollateralFolder
from sealfs.attestation.detect import detect
from sealfs.attestation.revocation import RevocationFolder
from sealfs.errors import DocumentError

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized
_TIMEX_SIZE = 208  # bytes of struct timex on 64-bit Linux
_SOON = timedelta(days=7)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: whether it is all right, and what to know or do."""

    about: str
    good: bool
    words: str


def check_host(
    collateral: CollateralFolder, revocations: RevocationFolder, at: datetime, root: Path = Path("/")
) -> list[Check]:
    """Look at device files, quote services, collateral, revocation lists and the clock.

    Args:
        collateral: Where Intel's is kept here.
        revocations: Where AMD's lists are.
        at: The time, with a zone.
        root: Where /dev, /sys, /run and /var are.
    """
    checks = [_evidence(root), *_devices(root), *_services(root), *_collateral(collateral, at)]
    return [*checks, *_revocations(revocations, at), _clock()]


def _evidence(root: Path) -> Check:
    provider = detect(root)
    if provider is None:
        return Check("evidence", False, "none can be made here: this process reaches L1")
    return Check("evidence", True, f"'{provider.tee}' evidence can be made here")


def _devices(root: Path) -> Iterator[Check]:
    yield _node(
        root, "dev/sgx_enclave", "SGX enclaves", "needs a processor with SGX, enabled in firmware, Linux 5.11"
    )
    yield _node(root, "dev/sgx_provision", "SGX quotes", "as above; the quote service's user needs access to it")
    yield _node(root, "dev/attestation/quote", "inside of an SGX enclave", "this process is not in Gramine's SGX")
    yield _node(root, "sys/kernel/config/tsm/report", "inside of a TDX or SEV-SNP guest",
                "this is no such guest, or: mount -t configfs none /sys/kernel/config, Linux 6.7")  # fmt: skip
    yield _node(root, "dev/tpmrm0", "a TPM", "no TPM, or none of version 2.0")


def _node(root: Path, path: str, meaning: str, advice: str) -> Check:
    about = f"/{path}"
    try:
        (root / path).stat()
    except OSError as error:
        return Check(about, False, f"{error.strerror} ({meaning}): {advice}")
    if not os.access(root / path, os.R_OK):
        return Check(about, False, f"is there ({meaning}), but this user may not read it")
    return Check(about, True, f"is there ({meaning})")


def _services(root: Path) -> Iterator[Check]:
    for about, path, meaning in (
        ("SGX quote service", "var/run/aesmd/aesm.socket", "the package sgx-aesm-service with the quote plug-in"),
        ("TDX quote service", "var/run/tdx-qgs/qgs.socket", "the package tdx-qgs, on a host of TDX guests"),
    ):
        there = (root / path).is_socket()
        yield Check(about, there, f"listens at /{path}" if there else f"not at /{path}: {meaning}")


def _collateral(collateral: CollateralFolder, at: datetime) -> Iterator[Check]:
    every = collateral.every()
    if not every:
        yield Check("collateral", False, "none is kept here: whoever verifies SGX or TDX evidence needs it")
    for statement in every:
        yield _in_date(f"collateral {statement.platform}", statement.issued, statement.expires, at)


def _revocations(revocations: RevocationFolder, at: datetime) -> Iterator[Check]:
    try:
        every = revocations.every()
    except DocumentError as error:
        yield Check("revocation lists", False, f"{error.message}: SEV-SNP evidence is refused")
        return
    for entry in every:
        yield _in_date(f"revocation list {entry.name}", entry.issued, entry.expires, at)


def _in_date(about: str, issued: datetime, expires: datetime, at: datetime) -> Check:
    until = f"{expires:%Y-%m-%d %H:%M} UTC"
    if at < issued:
        return Check(about, False, f"was signed at {issued:%Y-%m-%d %H:%M} UTC: set this machine's clock")
    if at >= expires:
        return Check(about, False, f"expired at {until}: fetch it anew")
    soon = ", soon: fetch it anew" if expires - at < _SOON else ""
    return Check(about, True, f"in date until {until}{soon}")


def _clock() -> Check:
    about = "synchronized clock"
    state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_SIZE))
    if state < 0:
        return Check(about, False, f"the kernel does not tell: {os.strerror(ctypes.get_errno())}")
    if state == _TIME_ERROR:
        return Check(about, False, "the kernel knows of nothing that sets it: run chrony or systemd-timesyncd")
    return Check(about, True, "the kernel says that it is set by the network")
