"""What Intel says about platforms, kept in a folder: put there by hand, or fetched from a PCCS and refreshed.

Everything in it is signed by Intel, so where it comes from does not matter; how old it is does. Of two statements
about a platform the newer one counts, and none is ever replaced by an older one. A clock that stands before the
newest of them is wrong: that is how moving it back, to make old statements valid again, is noticed.

Threading: can be shared by threads; one fetches at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeVar

import dcap_qvl
from cryptography import x509

from sealfs.attestation.canonical import Members
from sealfs.attestation.files import MAX_SIZE, ParsedFiles
from sealfs.errors import DocumentError, EvidenceError, SealfsError
from sealfs.xdg import state_directory

Result = TypeVar("Result")

REFRESH_BEFORE = timedelta(days=7)  # of the 30 days that Intel's statements are valid
_RETRY_AFTER = 600.0  # seconds, after a fetch that brought nothing
_FETCH_TIMEOUT = 30.0  # seconds
_MAX_REMEMBERED = 1000  # platforms: whoever sends quotes chooses their names
_DATE = "%Y-%m-%dT%H:%M:%SZ"

_log = logging.getLogger(__name__)


def default_folder() -> Path:
    """Return where statements are kept unless told otherwise; what is newest there also guards the clock."""
    return state_directory() / "collateral"


class CollateralSource(Protocol):
    """Finds what Intel says about the platform that made a quote."""

    def checked(self, quote: bytes, at: datetime, check: Callable[[str], Result]) -> Result:
        """Return what `check` makes of the collateral for a quote, which is JSON in dcap-qvl's form.

        Raises:
            EvidenceError: There is none, or `check` refused it.
        """


@dataclass(frozen=True)
class Platform:
    """What a statement is about: "sgx" or "tdx", the FMSPC in hex, and which of Intel's CAs certified it."""

    tee: str
    fmspc: str
    ca: str

    def __str__(self) -> str:
        return f"{self.tee}-{self.fmspc}-{self.ca}"


@dataclass(frozen=True)
class Collateral:
    """What is known without verifying it.

    Attributes:
        platform: Which one it is for.
        issued: When, the later of its parts.
        expires: When, the earliest of its parts (its certificates apart, which are valid for years).
        text: All of it, as dcap-qvl reads it.
    """

    platform: Platform
    issued: datetime
    expires: datetime
    text: str

    @classmethod
    def parse(cls, data: bytes) -> Collateral:
        """Read a file, or what was fetched.

        Raises:
            DocumentError: It is no collateral.
        """
        what = "the collateral"
        if len(data) > MAX_SIZE:
            raise DocumentError(f"{what} has {len(data)} bytes, more than {MAX_SIZE}")
        members = Members.parse(data, what)
        info = Members.parse(members.text("tcb_info", ".*").encode(), f"{what}'s TCB info")
        identity = Members.parse(members.text("qe_identity", ".*").encode(), f"{what}'s QE identity")
        platform = Platform(
            info.text("id", "SGX|TDX").lower(),
            info.text("fmspc", "[0-9A-Fa-f]{12}").lower(),
            _ca(members.text("pck_crl_issuer_chain", ".*")),
        )
        try:
            read = dcap_qvl.QuoteCollateralV3.from_json(data.decode())
            lists = [x509.load_der_x509_crl(der).next_update_utc for der in (read.root_ca_crl, read.pck_crl)]
            return cls(
                platform,
                max(_date(info, "issueDate"), _date(identity, "issueDate")),
                min(_date(info, "nextUpdate"), _date(identity, "nextUpdate"), *filter(None, lists)),
                data.decode(),
            )
        except ValueError as error:
            raise DocumentError(f"{what} is malformed: {error}") from None


def _date(members: Members, name: str) -> datetime:
    return datetime.strptime(members.text(name, ".{20}"), _DATE).replace(tzinfo=UTC)


def _ca(chain: str) -> str:
    """Return which CA issued a revocation list, as Intel's service names it."""
    try:
        subject = x509.load_pem_x509_certificate(chain.encode()).subject.rfc4514_string()
    except ValueError:
        raise DocumentError("the collateral's PCK CRL has no issuer") from None
    return "platform" if "Platform" in subject else "processor"


def platform_of(quote: bytes) -> Platform:
    """Return what a quote needs collateral for.

    Raises:
        EvidenceError: It does not say: it is no quote, or has no certificate.
    """
    try:
        parsed = dcap_qvl.parse_quote(quote)
        return Platform(parsed.quote_type().lower(), parsed.fmspc().lower(), parsed.ca())
    except ValueError as error:
        raise EvidenceError(f"that quote names no platform: {error}") from None


def _parsed(path: Path, data: bytes) -> Collateral | None:
    try:
        return Collateral.parse(data)
    except DocumentError as error:
        _log.warning("%s is passed over: %s", path, error.message)
        return None


class CollateralFolder:
    """Statements in files, and from a PCCS if there is one.

    Args:
        path: A folder with *.json files, whatever their names, or one file. A folder is made when something is
            fetched.
        pccs: URL of a Provisioning Certificate Caching Service, or of Intel's own; None never goes to the network.
        refresh_before: How long before it expires a statement is fetched anew.
    """

    def __init__(self, path: Path, pccs: str | None = None, refresh_before: timedelta = REFRESH_BEFORE) -> None:
        self._path = path
        self._pccs = pccs
        self._refresh_before = refresh_before
        self._files = ParsedFiles(path, "*.json", _parsed)
        self._fetching = threading.Lock()
        self._failed: dict[Platform, float] = {}

    def checked(self, quote: bytes, at: datetime, check: Callable[[str], Result]) -> Result:
        """See `CollateralSource`; what is fetched is only kept if `check` allows it."""
        platform = platform_of(quote)
        stored = self._stored(platform, at)
        if self._is_due(stored, at):
            with self._fetching:
                stored = self._stored(platform, at)  # somebody else may have fetched it meanwhile
                fetched = self._fetch(platform, quote) if self._is_due(stored, at) else None
                if fetched is not None and (stored is None or fetched.issued > stored.issued):
                    try:
                        result = check(fetched.text)
                    except EvidenceError:
                        self._forget_for_now(platform)
                        if stored is None:
                            raise
                    else:
                        self._store(fetched)
                        return result
        if stored is None:
            raise EvidenceError(
                f"there is nothing from Intel about the platform {platform}",
                f"give a PCCS, or put its collateral into {self._path}",
            )
        if at >= stored.expires:
            raise EvidenceError(
                f"what Intel says about the platform {platform} expired at {stored.expires:%Y-%m-%d %H:%M} UTC",
                f"give a PCCS, or put newer collateral into {self._path}",
            )
        return check(stored.text)

    def every(self) -> list[Collateral]:
        """Return the newest statement about each platform."""
        newest: dict[Platform, Collateral] = {}
        for collateral in filter(None, self._files):
            other = newest.get(collateral.platform)
            if other is None or collateral.issued > other.issued:
                newest[collateral.platform] = collateral
        return list(newest.values())

    def _is_due(self, stored: Collateral | None, at: datetime) -> bool:
        return self._pccs is not None and (stored is None or stored.expires - at < self._refresh_before)

    def _stored(self, platform: Platform, at: datetime) -> Collateral | None:
        every = self.every()
        last = max((collateral.issued for collateral in every), default=at)
        if at < last:
            raise EvidenceError(
                f"this machine's clock says {at:%Y-%m-%d %H:%M %Z}, but Intel has signed something at {last}",
                "set the clock: with a wrong one old statements would pass for new ones",
            )
        return next((collateral for collateral in every if collateral.platform == platform), None)

    def _fetch(self, platform: Platform, quote: bytes) -> Collateral | None:
        """Return what the PCCS has; None if it has nothing, or had nothing a moment ago."""
        assert self._pccs is not None  # noqa: S101 - for the type checker
        if time.monotonic() - self._failed.get(platform, float("-inf")) < _RETRY_AFTER:
            return None
        try:
            collateral = Collateral.parse(fetch(self._pccs, quote))
            if collateral.platform != platform:
                raise EvidenceError(f"it answered for another platform, {collateral.platform}")
        except SealfsError as error:
            self._forget_for_now(platform)
            _log.warning("the PCCS %s has nothing for %s: %s", self._pccs, platform, error.message)
            return None
        self._failed.pop(platform, None)
        return collateral

    def _forget_for_now(self, platform: Platform) -> None:
        """Leave the service in peace about a platform for a while."""
        if len(self._failed) >= _MAX_REMEMBERED:
            self._failed.clear()
        self._failed[platform] = time.monotonic()

    def _store(self, collateral: Collateral) -> None:
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=self._path)
            try:
                with open(descriptor, "w") as file:
                    file.write(collateral.text)
                os.replace(temporary, self._path / f"{collateral.platform}.json")
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary)
                raise
        except OSError as error:  # it can be used all the same
            _log.warning("cannot keep collateral in %s: %s", self._path, error.strerror)


def fetch(pccs: str, quote: bytes) -> bytes:
    """Fetch what Intel says about the platform of a quote.

    Args:
        pccs: URL of the service.
        quote: Names the platform.

    Returns:
        JSON in dcap-qvl's form, still to be verified.

    Raises:
        EvidenceError: It could not be had.
    """

    async def answer() -> dcap_qvl.QuoteCollateralV3:
        return await asyncio.wait_for(dcap_qvl.get_collateral(pccs, quote), _FETCH_TIMEOUT)

    # in a thread of its own: whoever verifies may have an event loop in this one
    with ThreadPoolExecutor(1, "sealfs-collateral") as pool:
        fetching = pool.submit(lambda: asyncio.run(answer()))
    try:
        document = json.loads(fetching.result().to_json())
    except (ValueError, RuntimeError, TimeoutError) as error:
        raise EvidenceError(f"no collateral from {pccs}: {' '.join(str(error).split()) or 'no answer'}") from None
    # It is this machine's own, and would take the place of every other quote's: all of ours bring theirs.
    document.pop("pck_certificate_chain", None)
    return json.dumps(document).encode()
