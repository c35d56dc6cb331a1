"""`sealfs doctor`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click

from sealfs.cli.common import collateral_option, identity_option, json_option, print_json
from sealfs.dataset.version import split_version
from sealfs.errors import SealfsError
from sealfs.keys import default_identity_path, is_locked, load_identity
from sealfs.terminal import escaped

_MAX_SKEW = 300.0  # seconds


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what it is about, whether it is all right, and what to know or do."""

    about: str
    good: bool
    words: str


@click.command()
@click.argument("uri", required=False)
@identity_option
@click.option("--attestation", is_flag=True,
              help="Check what attestation needs as well: devices, quote services, collateral, clock.")  # fmt: skip
@collateral_option
@json_option
def command(
    uri: str | None, identity_path: Path | None, attestation: bool, collateral: Path | None, as_json: bool
) -> int:
    """Check FUSE, the identity and, with a URI, the store behind it; say what to do about each.

    At the URI a small probe object is written and deleted, to find out whether conditional writes hold.

    A machine need not have all that --attestation looks for: an SGX host has no TDX, and a guest neither's devices.
    """
    findings = [
        _fuse_device(),
        _fuse_library(),
        _fuse_helper(),
        _identity(identity_path or default_identity_path()),
    ]
    if uri is not None:
        findings += _store(split_version(uri)[0])
    if attestation:
        findings += _attestation(collateral)
    if as_json:
        print_json([{"about": f.about, "good": f.good, "words": f.words} for f in findings])
    else:
        for finding in findings:
            mark = click.style("ok  ", fg="green") if finding.good else click.style("BAD ", fg="red", bold=True)
            click.echo(f"{mark}{finding.about}: {escaped(finding.words)}")
    return 0 if all(finding.good for finding in findings) else 1


def _fuse_device() -> Finding:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Finding("/dev/fuse", False, "missing: load the kernel module (modprobe fuse)")
    except OSError as error:
        return Finding("/dev/fuse", False, f"{error.strerror}: give this user access, or run the container with it")
    return Finding("/dev/fuse", True, "can be used")


def _fuse_library() -> Finding:
    try:
        from sealfs.mount.libfuse import load_mfusepy  # noqa: PLC0415 - the check is that it loads

        module = load_mfusepy()
    except (SealfsError, OSError, ImportError) as error:
        hint = error.hint if isinstance(error, SealfsError) else "install libfuse 3"
        return Finding("libfuse", False, f"{error}; {hint}")
    return Finding("libfuse", True, f"version {module.fuse_version_major}.{module.fuse_version_minor}")


def _fuse_helper() -> Finding:
    if os.geteuid() == 0:
        return Finding("fusermount3", True, "not needed: this is root")
    found = any((Path(folder) / "fusermount3").exists() for folder in os.get_exec_path())
    return Finding("fusermount3", found, "found" if found else "missing: install the package fuse3")


def _identity(path: Path) -> Finding:
    try:
        if is_locked(path):
            return Finding("identity", True, f"{path}, locked with a passphrase")
        identity = load_identity(path)
    except SealfsError as error:
        return Finding("identity", False, f"{error.message}; {error.hint}")
    return Finding("identity", True, f"{path}, fingerprint {identity.recipient.fingerprint}")


def _attestation(collateral: Path | None) -> list[Finding]:
    try:
        from sealfs.attestation.collateral import CollateralFolder, default_folder  # noqa: PLC0415 - an extra
        from sealfs.attestation.host import check_host  # noqa: PLC0415
        from sealfs.attestation.revocation import RevocationFolder  # noqa: PLC0415
    except ImportError as error:
        words = f"{error.name} is not installed: pip install 'sealfs[attestation]'"
        return [Finding("attestation", False, words)]
    said = collateral or default_folder()
    checks = check_host(CollateralFolder(said), RevocationFolder(said), datetime.now(UTC))
    return [Finding(check.about, check.good, check.words) for check in checks]


def _store(uri: str) -> list[Finding]:
    from sealfs.store.address import open_store  # noqa: PLC0415 - boto3 is slow to load

    findings: list[Finding] = []

    def check(about: str, call: Callable[[], Finding]) -> None:
        try:
            findings.append(call())
        except SealfsError as error:
            findings.append(Finding(about, False, f"{error.message}; {error.hint}"))

    try:
        store = open_store(uri)
    except SealfsError as error:
        return [Finding("address", False, f"{error.message}; {error.hint}")]

    def listing() -> Finding:
        newest = next(iter(store.list("head")), None)
        holds = "holds a dataset" if newest else "holds no dataset yet"
        return Finding("store", True, f"{store.uri} answers and {holds}")

    def conditional() -> Finding:
        if store.has_conditional_writes():
            return Finding("conditional writes", True, "hold: two pushes at once cannot lose each other's work")
        return Finding("conditional writes", False, "are ignored there; push with --single-writer if you are alone")

    def clock() -> Finding:
        probe = f"probe-{os.urandom(8).hex()}"
        before = time.time()
        store.put(probe, b"what time is it?")
        skew = store.stat(probe).modified - (before + time.time()) / 2
        store.delete([probe])
        good = abs(skew) < _MAX_SKEW
        advice = "" if good else ": set this machine's clock (S3 refuses requests that are 15 minutes off)"
        return Finding("clock", good, f"{skew:+.0f} s from the store's{advice}")

    check("store", listing)
    if findings[-1].good:
        check("conditional writes", conditional)
        check("clock", clock)
    store.close()
    return findings
