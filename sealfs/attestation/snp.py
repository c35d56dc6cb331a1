"""Verifies SEV-SNP attestation reports: the one place that takes them and their certificates apart.

Sources: AMD, "SEV Secure Nested Paging Firmware ABI Specification" (56860), ATTESTATION_REPORT and TCB_VERSION;
"Versioned Chip Endorsement Key Certificate and KDS Interface Specification" (57230); "SEV-ES Guest-Hypervisor
Communication Block Standardization" (56421), the certificate table.

Threading: stateless.
"""

from __future__ import annotations

import base64
import functools
import struct
import uuid
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.utils import CryptographyDeprecationWarning

from sealfs.attestation.canonical import Members
from sealfs.attestation.claims import Claims
from sealfs.attestation.evidence import SNP_REPORT_SIZE as REPORT_SIZE
from sealfs.attestation.levels import Level
from sealfs.attestation.revocation import RevocationFolder
from sealfs.errors import DocumentError, EvidenceError

TEE = "snp"
MAX_TABLE_SIZE = 64 << 10  # bytes; three certificates have 5 KiB
_MAX_CERTIFICATES = 8
_SIGNED_SIZE = 0x2A0
_COMPONENT_SIZE = 72  # bytes, of a signature's r and s, of which P-384 needs 48
_VERSIONS = range(2, 6)
_ECDSA_P384_SHA384 = 1
_POLICY_MIGRATION, _POLICY_DEBUG = 1 << 18, 1 << 19
_TURIN_FAMILY = 0x1A
_FAMILIES = (0x19, _TURIN_FAMILY)
_GUIDS = {
    uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd"): "VCEK",
    uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"): "VLEK",
    uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"): "ASK",
    uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"): "ARK",
}
_OID = "1.3.6.1.4.1.3704.1"
_PARTS = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
_CHIP_ID_OID = x509.ObjectIdentifier(f"{_OID}.4")
_MALFORMED = (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm)
_ROOTS = Path(__file__).with_name("amd.pem")


@dataclass(frozen=True)
class Report:
    """An attestation report's fields that are used; see AMD's document for each."""

    signed: bytes
    signature: bytes
    version: int
    guest_svn: int
    policy: int
    vmpl: int
    tcb: Mapping[str, int]
    key: str
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    chip_id: bytes

    @classmethod
    def parse(cls, data: bytes) -> Report:
        """Read a report.

        Raises:
            DocumentError: It is none, or of a kind that is not known here.
        """
        if len(data) != REPORT_SIZE:
            raise DocumentError(f"an SNP report has {REPORT_SIZE} bytes, this one {len(data)}")
        version, guest_svn, policy = struct.unpack_from("<IIQ", data)
        vmpl, algorithm = struct.unpack_from("<II", data, 0x30)
        (flags,) = struct.unpack_from("<I", data, 0x48)
        if version not in _VERSIONS:
            raise DocumentError(f"SNP reports of version {version} are not known here")
        if algorithm != _ECDSA_P384_SHA384:
            raise DocumentError(f"the SNP report is signed by the unknown algorithm {algorithm}")
        key = {0: "VCEK", 1: "VLEK"}.get(flags >> 2 & 7)
        if key is None:
            raise DocumentError("the SNP report is signed by no key of AMD's", "the host has masked the chip's key")
        family = data[0x188] if version >= 3 else _FAMILIES[0]
        if family not in _FAMILIES:
            raise DocumentError(f"SNP on processors of family {family:#x} is not known here")
        return cls(
            signed=data[:_SIGNED_SIZE],
            signature=_signature(data[_SIGNED_SIZE:]),
            version=version,
            guest_svn=guest_svn,
            policy=policy,
            vmpl=vmpl,
            tcb=_tcb(data[0x180:0x188], family),
            key=key,
            report_data=data[0x50:0x90],
            measurement=data[0x90:0xC0],
            host_data=data[0xC0:0xE0],
            id_key_digest=data[0xE0:0x110],
            chip_id=data[0x1A0:0x1E0],
        )


def _tcb(version: bytes, family: int) -> dict[str, int]:
    """Return the parts of a TCB_VERSION, which lie elsewhere since Turin."""
    if family == _TURIN_FAMILY:
        names, reserved = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}, version[4:7]
    else:
        names, reserved = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}, version[2:6]
    if any(reserved):
        raise DocumentError("the SNP report has a TCB version of an unknown form")
    return {name: version[place] for name, place in names.items()}


def _signature(data: bytes) -> bytes:
    r, s, rest = data[:_COMPONENT_SIZE], data[_COMPONENT_SIZE : 2 * _COMPONENT_SIZE], data[2 * _COMPONENT_SIZE :]
    if any(rest):
        raise DocumentError("the SNP report goes on behind its signature")
    return encode_dss_signature(int.from_bytes(r, "little"), int.from_bytes(s, "little"))


def parse_certificates(table: bytes) -> list[x509.Certificate]:
    """Read the certificate table that a host gives its guests: GUID, offset and length of each, then themselves.

    Raises:
        DocumentError: It is malformed.
    """
    malformed = DocumentError("the table of SNP certificates is malformed")
    certificates: list[x509.Certificate] = []
    for place in range(0, len(table), 24):
        entry = table[place : place + 24]
        if not any(entry):
            return certificates
        if len(entry) < 24 or len(certificates) == _MAX_CERTIFICATES:
            raise malformed
        offset, length = struct.unpack_from("<II", entry, 16)
        if offset + length > len(table):
            raise malformed
        if uuid.UUID(bytes_le=entry[:16]) in _GUIDS:
            try:
                certificates.append(_certificate(table[offset : offset + length]))
            except ValueError:
                raise malformed from None
    return certificates


def _certificate(der: bytes) -> x509.Certificate:
    with warnings.catch_warnings():
        # AMD gives every VCEK the serial number 0, against RFC 5280; a later `cryptography` may refuse that
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            return x509.load_der_x509_certificate(der)
        except _MALFORMED as error:
            raise ValueError(str(error)) from None


def load_certificates(data: bytes) -> list[x509.Certificate]:
    """Read certificates that an operator pins or adds: PEM, or a single DER one.

    Raises:
        DocumentError: They are none.
    """
    try:
        if b"-----BEGIN" in data:
            return x509.load_pem_x509_certificates(data)
        return [_certificate(data)]
    except ValueError:
        raise DocumentError("these are no certificates, neither PEM nor DER") from None


@functools.cache
def amd_certificates() -> tuple[x509.Certificate, ...]:
    """Return AMD's own for Milan, Genoa and Turin: the roots (ARK) and what they certified (ASK, ASVK)."""
    return tuple(load_certificates(_ROOTS.read_bytes()))


def is_root(certificate: x509.Certificate) -> bool:
    """Whether a certificate names nobody above itself."""
    return certificate.issuer == certificate.subject


class SnpVerifier:
    """Verifies reports.

    Args:
        roots: The certificates to believe; None for AMD's own.
        certificates: Others that a chain may need and evidence need not bring, VCEKs for instance.
        revocations: AMD's revocation lists; None knows of none.
    """

    def __init__(
        self,
        roots: Collection[x509.Certificate] | None = None,
        certificates: Iterable[x509.Certificate] = (),
        revocations: RevocationFolder | None = None,
    ) -> None:
        self._revocations = revocations
        known = amd_certificates()
        self._roots = [root for root in known if is_root(root)] if roots is None else list(roots)
        self._certificates = [*certificates, *(other for other in known if not is_root(other))]

    def verify(self, body: Members, at: datetime) -> Claims:
        """See `KindVerifier`."""
        report = Report.parse(body.base64("report", REPORT_SIZE))
        table = body.base64("certificates", MAX_TABLE_SIZE) if "certificates" in body else b""
        certificates = [*parse_certificates(table), *self._certificates]
        try:
            chain = self._chain(self._endorser(report, certificates), certificates, at)
            lists_expire = self._revocations.check(chain, at) if self._revocations is not None else None
        except _MALFORMED:  # most of a certificate is only parsed when it is asked for
            raise DocumentError("a certificate of SNP's is malformed") from None
        if report.policy & _POLICY_MIGRATION:
            raise EvidenceError("the SNP guest can be migrated: another machine may read it")
        if report.vmpl != 0:
            raise EvidenceError(f"the SNP report is from VMPL {report.vmpl}: what is above it was not measured")
        return Claims(
            tee=TEE,
            ceiling=Level.L4,
            report_data=report.report_data,
            debug=bool(report.policy & _POLICY_DEBUG),
            measurement=report.measurement.hex(),
            signer=report.id_key_digest.hex() if any(report.id_key_digest) else None,
            svn=report.guest_svn,
            config_id=report.host_data.hex() if any(report.host_data) else None,
            tcb=report.tcb,
            collateral_expires=lists_expire,
            details={
                "chip": report.chip_id.hex(),
                "endorsed by": f"{report.key} of {_name(chain[-1])}",
                "guest policy": f"{report.policy:#x}",
            },
        )

    def _endorser(self, report: Report, certificates: Sequence[x509.Certificate]) -> x509.Certificate:
        """Return the certificate of the key that signed a report: the chip's, at the TCB that the report names."""
        candidates = [certificate for certificate in certificates if report.key in _name(certificate)]
        if not candidates:
            raise EvidenceError(
                f"nobody has the {report.key} certificate of this chip",
                "the host can give it to its guests; or fetch it from AMD's KDS and give it to the verifier",
            )
        for certificate in candidates:
            key = certificate.public_key()
            if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
                continue
            try:
                key.verify(report.signature, report.signed, ec.ECDSA(hashes.SHA384()))
            except InvalidSignature:
                continue
            _check_endorser(certificate, report)
            return certificate
        raise EvidenceError(f"the SNP report's signature is not by this chip's {report.key}")

    def _chain(
        self, endorser: x509.Certificate, certificates: Sequence[x509.Certificate], at: datetime
    ) -> list[x509.Certificate]:
        """Return the certificates from a chip's up to a root, all of them valid."""
        _check_date(endorser, at)
        for authority in certificates:
            if authority.subject != endorser.issuer or not _is_authority(authority):
                continue
            for root in self._roots:
                if _issued(authority, endorser) and _issued(root, authority) and _issued(root, root):
                    _check_date(authority, at)
                    _check_date(root, at)
                    return [endorser, authority, root]
        raise EvidenceError(
            f"no root that is believed here stands behind '{_name(endorser)}' by '{_authority_name(endorser)}'",
            "AMD's roots are known for Milan, Genoa and Turin; others have to be pinned",
        )


def _check_endorser(certificate: x509.Certificate, report: Report) -> None:
    for part, svn in report.tcb.items():
        if _integer(certificate, f"{_OID}.{_PARTS[part]}") != svn:
            raise EvidenceError(f"the {report.key} is for another TCB than the report ({part} {svn})")
    if report.key == "VCEK" and any(report.chip_id):  # a host may mask it
        extension = _extension(certificate, _CHIP_ID_OID)
        if extension not in (report.chip_id, b"\x04\x40" + report.chip_id):  # raw, and by the letter of DER
            raise EvidenceError("the VCEK is another chip's than the report")


def _extension(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> bytes | None:
    try:
        value: Any = certificate.extensions.get_extension_for_oid(oid).value
        return bytes(value.value)
    except (x509.ExtensionNotFound, ValueError, AttributeError):
        return None


def _integer(certificate: x509.Certificate, oid: str) -> int | None:
    """Return a small DER INTEGER."""
    der = _extension(certificate, x509.ObjectIdentifier(oid))
    if der is None or len(der) not in (3, 4) or der[:2] != bytes([2, len(der) - 2]):
        return None
    return int.from_bytes(der[2:], "big")


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return False


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _check_date(certificate: x509.Certificate, at: datetime) -> None:
    if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
        raise EvidenceError(f"the certificate '{_name(certificate)}' is not valid at {at:%Y-%m-%d}")


def _name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def _authority_name(certificate: x509.Certificate) -> str:
    names = certificate.issuer.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def encode(report: bytes, table: bytes) -> dict[str, str]:
    """Return the body of evidence."""
    return {"report": base64.b64encode(report).decode(), "certificates": base64.b64encode(table).decode()}
