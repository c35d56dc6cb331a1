"""An SEV-SNP machine that exists on paper only, under a root of the tests' own: see hardware.py for Intel's."""

from __future__ import annotations

import struct
import uuid
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from attestation.hardware import NOW
from sealfs.attestation.evidence import Evidence
from sealfs.attestation.snp import encode

MEASUREMENT = "5a" * 48
CHIP = bytes(range(64))
TCB = {"bootloader": 4, "tee": 0, "snp": 22, "microcode": 213}
VCEK_GUID = uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd")
ASK_GUID = uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
_SPL = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
_PSS = padding.PSS(padding.MGF1(hashes.SHA384()), padding.PSS.DIGEST_LENGTH)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    name: str,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    issuer: str,
    issuer_key: rsa.RSAPrivateKey,
    now: datetime,
    extensions: dict[str, bytes] | None = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=180))
        .not_valid_after(now + timedelta(days=180))
    )
    if extensions is None:
        builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    for oid, value in (extensions or {}).items():
        extension = x509.UnrecognizedExtension(ObjectIdentifier(f"1.3.6.1.4.1.3704.1.{oid}"), value)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(issuer_key, hashes.SHA384(), rsa_padding=_PSS)


def _integer(value: int) -> bytes:
    body = value.to_bytes(2 if value > 127 else 1, "big")
    return bytes([2, len(body)]) + body


class SnpMachine:
    """One machine, and the AMD that vouches for it.

    Args:
        tcb: Of the machine, which its VCEK names.
        turin: Whether its TCB_VERSION has Turin's form.
        kind: "VCEK" or "VLEK".
    """

    def __init__(
        self, tcb: dict[str, int] = TCB, turin: bool = False, kind: str = "VCEK", now: datetime = NOW
    ) -> None:
        self._tcb, self._turin, self._vlek = tcb, turin, kind == "VLEK"
        root, authority = (rsa.generate_private_key(65537, 2048) for _ in range(2))
        self._now, self._authorities = now, {"ARK-Paper": root, "SEV-Paper": authority}
        self._key = ec.generate_private_key(ec.SECP384R1())
        self.root = _certificate("ARK-Paper", root.public_key(), "ARK-Paper", root, now)
        self.authority = _certificate("SEV-Paper", authority.public_key(), "ARK-Paper", root, now)
        members = {_SPL[part]: _integer(svn) for part, svn in tcb.items()}
        if not self._vlek:
            members["4"] = CHIP
        self.endorser = _certificate(f"SEV-{kind}", self._key.public_key(), "SEV-Paper", authority, now, members)

    @property
    def table(self) -> bytes:
        """The certificates as the host gives them to its guests."""
        ders = [certificate.public_bytes(Encoding.DER) for certificate in (self.endorser, self.authority)]
        offset, entries = 24 * 3, b""
        for guid, der in zip((VCEK_GUID, ASK_GUID), ders, strict=True):
            entries += guid.bytes_le + struct.pack("<II", offset, len(der))
            offset += len(der)
        return entries + bytes(24) + b"".join(ders)

    def revocations(
        self,
        *revoked: x509.Certificate,
        issuer: str = "ARK-Paper",
        signer: str | None = None,
        issued: timedelta = timedelta(days=-30),
        expires: timedelta | None = timedelta(days=30),
        extension: x509.ExtensionType | None = None,
    ) -> bytes:
        """A revocation list, DER; `signer` signs it in the issuer's name, times count from the machine's."""
        builder = x509.CertificateRevocationListBuilder().issuer_name(_name(issuer))
        builder = builder.last_update(self._now + issued)
        builder = builder.next_update(self._now + (expires or issued))
        if extension is not None:
            builder = builder.add_extension(extension, critical=True)
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(self._now + issued).build())
        key = self._authorities[signer or issuer]
        return builder.sign(key, hashes.SHA384(), rsa_padding=_PSS).public_bytes(Encoding.DER)

    def report(
        self,
        report_data: bytes,
        *,
        measurement: str = MEASUREMENT,
        policy: int = 0x30000,
        vmpl: int = 0,
        host_data: bytes = bytes(32),
        tcb: dict[str, int] | None = None,
        chip: bytes = CHIP,
        version: int = 3,
    ) -> bytes:
        """A signed report of a guest."""
        tcb = tcb or self._tcb
        if self._turin:
            parts = bytes([tcb["fmc"], tcb["bootloader"], tcb["tee"], tcb["snp"], 0, 0, 0, tcb["microcode"]])
        else:
            parts = bytes([tcb["bootloader"], tcb["tee"], 0, 0, 0, 0, tcb["snp"], tcb["microcode"]])
        report = bytearray(1184)
        struct.pack_into("<IIQ", report, 0, version, 7, policy)
        struct.pack_into("<II", report, 0x30, vmpl, 1)
        struct.pack_into("<I", report, 0x48, (1 if self._vlek else 0) << 2)
        for place, value in (
            (0x50, report_data.ljust(64, b"\0")),
            (0x90, bytes.fromhex(measurement)),
            (0xC0, host_data),
            (0x180, parts),
            (0x1A0, chip),
        ):
            report[place : place + len(value)] = value
        report[0x188] = 0x1A if self._turin else 0x19
        r, s = decode_dss_signature(self._key.sign(bytes(report[:0x2A0]), ec.ECDSA(hashes.SHA384())))
        report[0x2A0:0x330] = r.to_bytes(72, "little") + s.to_bytes(72, "little")
        return bytes(report)


class SnpProvider:
    """Collects evidence on an `SnpMachine`."""

    tee = "snp"

    def __init__(self, machine: SnpMachine, **options: Any) -> None:
        self._machine, self._options = machine, options

    def collect(self, report_data: bytes) -> Evidence:
        return Evidence("snp", encode(self._machine.report(report_data, **self._options), self._machine.table))
