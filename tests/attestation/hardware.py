"""SGX and TDX platforms that exist on paper only, under a root of the tests' own.

Everything that Intel and a machine sign is signed here the same way, so that dcap-qvl checks it with the code that
checks real quotes: root, PCK and TCB signing certificates, revocation lists, TCB info, identities of the quoting
enclaves, the quoting enclave's report and the quote. Whatever a test wants to be wrong is a parameter.

Formats: Intel's "SGX PCK Certificate and CRL Profile", "Attestation Service for SGX and TDX: API v4", "Quote
Library Reference: DCAP API" (appendix A) and "TDX DCAP Quoting Library API" (appendix A).
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from sealfs.attestation.evidence import Evidence

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MRENCLAVE, MRSIGNER = "e1" * 32, "51" * 32
MRTD, RTMRS = "7d" * 48, ("a0" * 48, "a1" * 48, "a2" * 48, "00" * 48)
TDX_MEASUREMENT = hashlib.sha384(b"".join(map(bytes.fromhex, (MRTD, *RTMRS)))).hexdigest()

_FMSPC = bytes.fromhex("00906ea10000")
_QE_SIGNER = bytes.fromhex("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff")
_INTEL_QE = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_SGX_OID = "1.2.840.113741.1.13.1"
_CPU_SVN = bytes([4] * 8 + [0] * 8)
_PCE_SVN = 11
_QE_SVN = 8
_DATE = "%Y-%m-%dT%H:%M:%SZ"
_DEBUG = 0x02


def _der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    length = bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")
    return bytes([tag]) + length + content


def _member(number: str, value: bytes) -> bytes:
    oid = ObjectIdentifier(f"{_SGX_OID}.{number}")
    numbers = [int(part) for part in oid.dotted_string.split(".")]
    encoded = bytearray([40 * numbers[0] + numbers[1]])
    for part in numbers[2:]:
        septets = [part & 127]
        while part := part >> 7:
            septets.append(part & 127 | 128)
        encoded += bytes(reversed(septets))
    return _der(0x30, _der(6, bytes(encoded)), value)


def _pck_extension() -> bytes:
    components = [_member(f"2.{number + 1}", _der(2, bytes([svn]))) for number, svn in enumerate(_CPU_SVN)]
    tcb = [*components, _member("2.17", _der(2, bytes([_PCE_SVN]))), _member("2.18", _der(4, _CPU_SVN))]
    return _der(
        0x30,
        _member("1", _der(4, b"P" * 16)),
        _member("2", _der(0x30, *tcb)),
        _member("3", _der(4, bytes(2))),
        _member("4", _der(4, _FMSPC)),
        _member("5", _der(10, b"\0")),
    )


def _raw(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


@dataclass(frozen=True)
class Authority:
    """A certificate with its key and those above it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    chain: str

    def sign(self, data: bytes) -> bytes:
        return _raw(self.key.sign(data, ec.ECDSA(hashes.SHA256())))


def issue(
    name: str, issuer: Authority | None, now: datetime = NOW, *, ca: bool = False, extension: bytes | None = None
) -> Authority:
    """A certificate as Intel's look, valid for a year around `now`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=180))
        .not_valid_after(now + timedelta(days=180))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(
            x509.KeyUsage(not ca, not ca, False, False, False, ca, ca, False, False),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if extension is not None:
        builder = builder.add_extension(
            x509.UnrecognizedExtension(ObjectIdentifier(_SGX_OID), extension), critical=False
        )
    certificate = builder.sign(signer, hashes.SHA256())
    pem = certificate.public_bytes(Encoding.PEM).decode()
    return Authority(key, certificate, pem + (issuer.chain if issuer else ""))


def _revocations(issuer: Authority, issued: datetime, expires: datetime, *revoked: x509.Certificate) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(issued)
        .next_update(expires)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    )
    for certificate in revoked:
        entry = x509.RevokedCertificateBuilder(certificate.serial_number, issued)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def enclave_report(
    report_data: bytes,
    *,
    mrenclave: bytes,
    mrsigner: bytes,
    product: int,
    svn: int,
    flags: int = 5,
    config_id: bytes = bytes(64),
) -> bytes:
    """An SGX REPORT body: 384 bytes."""
    attributes = struct.pack("<QQ", flags, 0xE7)
    return b"".join(
        (
            *(_CPU_SVN, bytes(4 + 28), attributes, mrenclave, bytes(32), mrsigner, bytes(32), config_id),
            *(struct.pack("<HH", product, svn), bytes(60), report_data.ljust(64, b"\0")),
        )
    )


class Machine:
    """One machine with SGX and TDX, and the Intel that vouches for it.

    Args:
        now: What its certificates are valid around.
    """

    def __init__(self, now: datetime = NOW) -> None:
        self.now = now
        self.root = issue("Intel SGX Root CA", None, now, ca=True)
        self._pck_ca = issue("Intel SGX PCK Platform CA", self.root, now, ca=True)
        self._pck = issue("Intel SGX PCK Certificate", self._pck_ca, now, extension=_pck_extension())
        self._tcb = issue("Intel SGX TCB Signing", self.root, now)
        self._attestation_key = ec.generate_private_key(ec.SECP256R1())

    @property
    def root_der(self) -> bytes:
        """The root certificate that a verifier has to be told of."""
        return self.root.certificate.public_bytes(Encoding.DER)

    def collateral(
        self,
        tee: str = "sgx",
        *,
        status: str = "UpToDate",
        advisories: tuple[str, ...] = (),
        evaluation: int = 17,
        issued: datetime | None = None,
        expires: datetime | None = None,
        qe_status: str = "UpToDate",
        pck_revoked: bool = False,
        pck_ca_revoked: bool = False,
    ) -> str:
        """What Intel says about the machine, as JSON in dcap-qvl's form; by default for 30 days around now."""
        issued = issued or self.now - timedelta(days=1)
        expires = expires or self.now + timedelta(days=29)
        dates = {"issueDate": issued.strftime(_DATE), "nextUpdate": expires.strftime(_DATE)}
        common = {**dates, "tcbEvaluationDataNumber": evaluation}
        tdx = tee == "tdx"
        tcb: dict[str, Any] = {"sgxtcbcomponents": [{"svn": svn} for svn in _CPU_SVN], "pcesvn": _PCE_SVN}
        info: dict[str, Any] = {
            "id": tee.upper(),
            "version": 3,
            **common,
            "fmspc": _FMSPC.hex().upper(),
            "pceId": "0000",
            "tcbType": 0,
        }
        if tdx:
            info["tdxModule"] = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
            tcb["tdxtcbcomponents"] = [{"svn": 0}] * 16
        level = {"tcb": tcb, "tcbDate": "2025-11-12T00:00:00Z", "tcbStatus": status}
        info["tcbLevels"] = [level | ({"advisoryIDs": list(advisories)} if advisories else {})]
        identity = {
            "id": "TD_QE" if tdx else "QE",
            "version": 2,
            **common,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11" + "00" * 15,
            "attributesMask": "FB" + "FF" * 7 + "00" * 8,
            "mrsigner": _QE_SIGNER.hex().upper(),
            "isvprodid": 2 if tdx else 1,
            "tcbLevels": [
                {"tcb": {"isvsvn": _QE_SVN}, "tcbDate": "2025-11-12T00:00:00Z", "tcbStatus": qe_status},
            ],
        }
        # Without spaces, as Intel does: whoever fetches it parses an answer and writes the signed part anew.
        info_text, identity_text = (json.dumps(text, separators=(",", ":")) for text in (info, identity))
        root_revoked = [self._pck_ca.certificate] if pck_ca_revoked else []
        revoked = [self._pck.certificate] if pck_revoked else []
        return json.dumps(
            {
                "pck_crl_issuer_chain": self._pck_ca.chain,
                "root_ca_crl": _revocations(self.root, issued, expires, *root_revoked).hex(),
                "pck_crl": _revocations(self._pck_ca, issued, expires, *revoked).hex(),
                "tcb_info_issuer_chain": self._tcb.chain,
                "tcb_info": info_text,
                "tcb_info_signature": self._tcb.sign(info_text.encode()).hex(),
                "qe_identity_issuer_chain": self._tcb.chain,
                "qe_identity": identity_text,
                "qe_identity_signature": self._tcb.sign(identity_text.encode()).hex(),
            }
        )

    def sgx_quote(
        self,
        report_data: bytes,
        *,
        mrenclave: str = MRENCLAVE,
        mrsigner: str = MRSIGNER,
        product: int = 1,
        svn: int = 2,
        debug: bool = False,
        config_id: bytes = bytes(64),
        flags: int = 5,
    ) -> bytes:
        """A quote of an enclave on this machine (version 3)."""
        report = enclave_report(
            report_data,
            mrenclave=bytes.fromhex(mrenclave),
            mrsigner=bytes.fromhex(mrsigner),
            product=product,
            svn=svn,
            flags=flags | (_DEBUG if debug else 0),
            config_id=config_id,
        )
        signed = struct.pack("<HHIHH", 3, 2, 0, _QE_SVN, _PCE_SVN) + _INTEL_QE + bytes(20) + report
        signature, key, certified = self._signed(signed, 1)
        auth = signature + key + certified
        return signed + struct.pack("<I", len(auth)) + auth

    def tdx_quote(
        self,
        report_data: bytes,
        *,
        mrtd: str = MRTD,
        rtmrs: tuple[str, ...] = RTMRS,
        debug: bool = False,
        config_id: bytes = bytes(48),
        owner: bytes = bytes(48),
        flags: int = 1 << 28,
    ) -> bytes:
        """A quote of a guest on this machine (version 4)."""
        attributes = struct.pack("<Q", flags | (1 if debug else 0))  # SEPT_VE_DISABLE, DEBUG
        report = b"".join(
            (
                *(bytes(16), bytes(48), bytes(48), bytes(8), attributes, struct.pack("<Q", 0xE7)),
                *(bytes.fromhex(mrtd), config_id, owner, bytes(48)),
                *map(bytes.fromhex, rtmrs),
                report_data.ljust(64, b"\0"),
            )
        )
        signed = struct.pack("<HHIHH", 4, 2, 0x81, 0, 0) + _INTEL_QE + bytes(20) + report
        signature, key, certified = self._signed(signed, 2)
        auth = signature + key + struct.pack("<HI", 6, len(certified)) + certified
        return signed + struct.pack("<I", len(auth)) + auth

    def _signed(self, signed: bytes, qe_product: int) -> tuple[bytes, bytes, bytes]:
        """The quote's signature, the key that made it, and what the quoting enclave says of it."""
        signature = _raw(self._attestation_key.sign(signed, ec.ECDSA(hashes.SHA256())))
        key = _point(self._attestation_key)
        auth_data = bytes(range(32))
        qe_report = enclave_report(
            hashlib.sha256(key + auth_data).digest(),
            mrenclave=b"Q" * 32,
            mrsigner=_QE_SIGNER,
            product=qe_product,
            svn=_QE_SVN,
            flags=0x15,
        )
        chain = self._pck.chain.encode()
        certified = b"".join(
            (
                *(qe_report, self._pck.sign(qe_report), struct.pack("<H", len(auth_data)), auth_data),
                *(struct.pack("<HI", 5, len(chain)), chain),
            )
        )
        return signature, key, certified


class SyntheticProvider:
    """Collects evidence on a `Machine`: an `EvidenceProvider` for clients under test.

    Args:
        machine: Where it claims to run.
        tee: "sgx" or "tdx".
        options: Of the quote.
    """

    def __init__(self, machine: Machine, tee: str = "sgx", **options: Any) -> None:
        self.tee = tee
        self._quote = machine.sgx_quote if tee == "sgx" else machine.tdx_quote
        self._options = options

    def collect(self, report_data: bytes) -> Evidence:
        quote = self._quote(report_data, **self._options)
        return Evidence(self.tee, {"quote": base64.b64encode(quote).decode()})
