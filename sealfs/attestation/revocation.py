"""AMD's revocation lists, kept in files: which certificates between a chip's key and AMD's root count no more.

AMD's Key Distribution Service has them for each product, at /vcek/v1/PRODUCT/crl and /vlek/v1/PRODUCT/crl: DER,
issued by the product's root (ARK), about what the root has certified (ASK, ASVK). One by an ASK, about chips' own
certificates, is taken as well. Sources: AMD, "Versioned Chip Endorsement Key Certificate and KDS Interface
Specification" (57230); RFC 5280, section 5.

What is there has to be right: a list that can't be read, is forged or out of date refuses whatever it is about.
Whether there has to be one at all, policies decide.

Threading: can be shared by threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from sealfs.attestation.files import MAX_SIZE, ParsedFiles
from sealfs.errors import DocumentError, EvidenceError

SUFFIX = ".crl"
_MALFORMED = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension)


@dataclass(frozen=True)
class RevocationList:
    """A list, of which nothing has been verified.

    Attributes:
        name: Of its file, for messages.
        issuer: Who says that it is theirs.
        issued: When.
        expires: Until when it counts.
        crl: The list itself.
    """

    name: str
    issuer: x509.Name
    issued: datetime
    expires: datetime
    crl: x509.CertificateRevocationList

    @classmethod
    def parse(cls, data: bytes, name: str) -> RevocationList:
        """Read a list, DER or PEM.

        Raises:
            DocumentError: It is none, or of a kind that is not understood here.
        """
        if len(data) > MAX_SIZE:
            raise DocumentError(f"the revocation list {name} has more than {MAX_SIZE} bytes")
        try:
            is_pem = b"-----BEGIN" in data
            crl = x509.load_pem_x509_crl(data) if is_pem else x509.load_der_x509_crl(data)
            expires, critical = crl.next_update_utc, [entry.oid for entry in crl.extensions if entry.critical]
            found = cls(name, crl.issuer, crl.last_update_utc, expires or crl.last_update_utc, crl)
        except _MALFORMED:
            raise DocumentError(f"{name} is no revocation list, neither DER nor PEM") from None
        if critical:  # it may be about some certificates only
            raise DocumentError(f"the revocation list {name} has an extension that is not understood here")
        return found

    def check(self, certificate: x509.Certificate, issuer: x509.Certificate, at: datetime) -> None:
        """Refuse a certificate that is on the list.

        Args:
            certificate: One that `issuer` has issued.
            issuer: Whose list this must be.
            at: The time, with a zone.

        Raises:
            EvidenceError: It is on the list, or the list proves nothing.
        """
        key = issuer.public_key()
        try:
            is_signed = self.crl.is_signature_valid(key)  # type: ignore[arg-type] # others than a CA's: TypeError
            revoked = self.crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
        except _MALFORMED:
            is_signed, revoked = False, None
        if not is_signed:
            raise EvidenceError(
                f"the revocation list {self.name} is not signed by whom it names", "fetch it anew from AMD's KDS"
            )
        if not self.issued <= at < self.expires:
            held = f"from {self.issued:%Y-%m-%d %H:%M} to {self.expires:%Y-%m-%d %H:%M} UTC"
            raise EvidenceError(
                f"the revocation list {self.name} counts {held}, and it is {at:%Y-%m-%d %H:%M %Z}",
                "fetch it anew from AMD's KDS, or set the clock",
            )
        if revoked is not None:
            raise EvidenceError(
                f"AMD has revoked the certificate '{certificate.subject.rfc4514_string()}'",
                "the machine's operator has to ask AMD",
            )


class RevocationFolder:
    """Lists in files.

    Args:
        path: A folder with *.crl files, whatever their names, or one such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = ParsedFiles(path, f"*{SUFFIX}", _parsed)

    def every(self) -> list[RevocationList]:
        """Return all lists.

        Raises:
            DocumentError: One of them is none.
        """
        if self._path.is_file() and self._path.suffix != SUFFIX:
            return []  # it is Intel's collateral
        found = list(self._files)
        for entry in found:
            if isinstance(entry, DocumentError):
                raise entry
        return [entry for entry in found if isinstance(entry, RevocationList)]

    def check(self, chain: Sequence[x509.Certificate], at: datetime) -> datetime | None:
        """Refuse a chain with a certificate that is on a list.

        Args:
            chain: A chip's certificate, what certified it, and the root.
            at: The time, with a zone.

        Returns:
            When the first of the lists that were asked is out of date; None if there was none by the root.

        Raises:
            EvidenceError: It is refused, or a list proves nothing.
            DocumentError: A file is no list.
        """
        every, asked = self.every(), []
        for certificate, issuer in pairwise(chain):
            by_issuer = [entry for entry in every if entry.issuer == issuer.subject]
            for (
                entry
            ) in by_issuer:  # a root has one for each kind of chips' keys, which do not tell themselves apart
                entry.check(certificate, issuer, at)
            asked += by_issuer
        is_roots = any(entry.issuer == chain[-1].subject for entry in asked)
        return min(entry.expires for entry in asked) if is_roots else None


def _parsed(path: Path, data: bytes) -> RevocationList | DocumentError:
    try:
        return RevocationList.parse(data, path.name)
    except DocumentError as error:
        return error
