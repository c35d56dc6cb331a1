"""Verifies SGX and TDX quotes with dcap-qvl: signatures, certificates, revocation, TCB; nothing of it is ours.

What we add is only what a policy has to know: the measurements, the debug bit (which dcap-qvl refuses, too), the
status with its advisories, and until when all that holds.

Threading: stateless but for the collateral's source, which says its own.
"""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import UTC, datetime
from typing import Any

import dcap_qvl

from sealfs.attestation.canonical import Members
from sealfs.attestation.claims import Claims
from sealfs.attestation.collateral import CollateralSource
from sealfs.attestation.levels import Level
from sealfs.errors import EvidenceError

MAX_QUOTE_SIZE = 32 << 10  # bytes; with three certificates they have 5 KiB
_HEADER_SIZE = 48
_REPORT_SIZES = {3: 384, 4: 584}  # by version; version 5 has it in the quote
_DEBUG = 0x02  # of an enclave's ATTRIBUTES
_INIT, _MODE64BIT, _PROVISION_KEY, _EINITTOKEN_KEY = 0x01, 0x04, 0x10, 0x20
_TD_DEBUG = 0x01  # of TDATTRIBUTES


class DcapVerifier:
    """Verifies quotes of one kind.

    Args:
        tee: "sgx" or "tdx".
        collateral: Where Intel's statements about platforms come from.
        root: DER of the root certificate; None for Intel's own.
    """

    def __init__(self, tee: str, collateral: CollateralSource, root: bytes | None) -> None:
        self._tee = tee
        self._collateral = collateral
        self._verifier = dcap_qvl.QuoteVerifier(root)

    def verify(self, body: Members, at: datetime) -> Claims:
        """See `KindVerifier`."""
        quote = _own_bytes(body.base64("quote", MAX_QUOTE_SIZE))
        _refuse_attributes(quote)
        claims = self._collateral.checked(quote, at, lambda text: self._verified(quote, text, at))
        expires = _time(min(claims["earliest_expiration_date"], claims["qe_iden_earliest_expiration_date"]))
        if at >= expires:
            raise EvidenceError(f"what Intel says about this platform expired at {expires:%Y-%m-%d %H:%M} UTC")
        reports = claims["report"]
        if self._tee == "sgx":
            return _sgx(claims, reports["SgxEnclave"], expires)
        return _tdx(claims, _td_report(reports), expires)

    def _verified(self, quote: bytes, collateral: str, at: datetime) -> dict[str, Any]:
        now = int(at.timestamp())
        try:
            claims: dict[str, Any] = json.loads(
                self._verifier.verify_with_policy(
                    quote,
                    dcap_qvl.QuoteCollateralV3.from_json(collateral),
                    now,
                    dcap_qvl.QuotePolicy.claims_only(now),  # who accepts what is for our own policy to say
                ).to_json()
            )
        except (ValueError, OverflowError) as error:
            raise EvidenceError(
                f"the {self._tee.upper()} quote does not verify: {' '.join(str(error).split())}",
                "'sealfs policy check' tells more; old collateral, another root and a debug enclave look like this",
            ) from None
        if ("SgxEnclave" in claims["report"]) != (self._tee == "sgx"):
            raise EvidenceError(f"the quote is of another kind than '{self._tee}'")
        return claims


def _own_bytes(quote: bytes) -> bytes:
    """Return a quote without what stands behind it, which nobody has signed (some drivers pad).

    Raises:
        EvidenceError: It is shorter than it says.
    """
    try:
        (version,) = struct.unpack_from("<H", quote)
        if version == 5:
            end = _HEADER_SIZE + 6 + int(struct.unpack_from("<I", quote, _HEADER_SIZE + 2)[0])
        else:
            end = _HEADER_SIZE + _REPORT_SIZES[version]
        end += 4 + int(struct.unpack_from("<I", quote, end)[0])
    except (struct.error, KeyError):
        raise EvidenceError("that is no quote that we know: versions 3, 4 and 5") from None
    if end > len(quote):
        raise EvidenceError("the quote was cut")
    return quote[:end]


def _refuse_attributes(quote: bytes) -> None:
    """Refuse what says itself that its host may look into it, or how it runs, whatever else there is to know.

    Of a TD's other attributes dcap-qvl refuses whatever makes it less trustworthy: profiling, migration, none of
    SEPT_VE_DISABLE.
    """
    try:
        report = dcap_qvl.parse_quote(quote).report
    except ValueError as error:
        raise EvidenceError(f"that is no quote: {error}") from None
    if isinstance(report, dcap_qvl.SgxEnclaveReport):
        debug = report.attributes[0] & _DEBUG
        kind = report.attributes[0] & (_INIT | _MODE64BIT | _PROVISION_KEY | _EINITTOKEN_KEY)
        if kind != _INIT | _MODE64BIT:  # MRENCLAVE says nothing of it: whoever starts it signs it as he likes
            raise EvidenceError(
                f"the enclave's attributes {report.attributes.hex()} are not those of an ordinary 64-bit one",
                "the same code does something else in 32-bit mode; and none of ours has Intel's provisioning keys",
            )
    else:
        debug = report.td_attributes[0] & _TD_DEBUG
    if debug:
        raise EvidenceError("it is a debug enclave: its host can read its memory", "build it without debugging")


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _nonzero(text: str) -> str | None:
    return text if text.strip("0") else None


def _platform(claims: dict[str, Any]) -> dict[str, str]:
    pck, tcb = claims["platform"]["pck"], claims["platform"]["tcb_level"]
    return {
        "FMSPC": bytes(pck["fmspc"]).hex(),
        "TCB date": tcb["tcbDate"],
        "quoting enclave": claims["qe"]["tcb_level"]["tcbStatus"],
        "collateral issued": _time(claims["latest_issue_date"]).isoformat(),
        "hyper-threading": pck["smt_enabled"],
    }


def _intel(claims: dict[str, Any], expires: datetime) -> dict[str, Any]:
    tcb = claims["tcb"]
    return {
        "tcb_status": tcb["status"],
        "advisories": tuple(sorted(tcb["advisory_ids"])),
        "tcb_evaluation_number": min(tcb["eval_data_number"], claims["qe"]["tcb_eval_data_number"]),
        "collateral_expires": expires,
    }


def _sgx(claims: dict[str, Any], report: dict[str, Any], expires: datetime) -> Claims:
    attributes = bytes.fromhex(report["attributes"])
    return Claims(
        tee="sgx",
        ceiling=Level.L5,
        report_data=bytes.fromhex(report["report_data"]),
        debug=bool(attributes[0] & _DEBUG),
        measurement=report["mr_enclave"],
        signer=report["mr_signer"],
        product=report["isv_prod_id"],
        svn=report["isv_svn"],
        config_id=_nonzero(report["reserved3"][64:]),  # with key separation and sharing, CONFIGID lies there
        **_intel(claims, expires),
        details={**_platform(claims), "attributes": attributes.hex()},
    )


def _td_report(reports: dict[str, Any]) -> dict[str, Any]:
    """Return the members that all versions have; the newer ones have them inside."""
    ((_, report),) = reports.items()
    while "base" in report:
        report = report["base"]
    return dict(report)


def _tdx(claims: dict[str, Any], report: dict[str, Any], expires: datetime) -> Claims:
    attributes = bytes.fromhex(report["td_attributes"])
    registers = [report[name] for name in ("mr_td", "rt_mr0", "rt_mr1", "rt_mr2", "rt_mr3")]
    configured = [report[name] for name in ("mr_config_id", "mr_owner", "mr_owner_config")]
    if not _nonzero("".join(configured[1:])):
        del configured[1:]
    return Claims(
        tee="tdx",
        ceiling=Level.L4,
        report_data=bytes.fromhex(report["report_data"]),
        debug=bool(attributes[0] & _TD_DEBUG),
        measurement=hashlib.sha384(bytes.fromhex("".join(registers))).hexdigest(),
        config_id=_nonzero("".join(configured)),
        **_intel(claims, expires),
        details={
            **_platform(claims),
            "attributes": attributes.hex(),
            "MRSEAM": report["mr_seam"],
            **dict(zip(("MRTD", "RTMR0", "RTMR1", "RTMR2", "RTMR3"), registers, strict=True)),
        },
    )
