"""What a dataset's owner demands of an environment before it gets the key.

Owners write it as a small TOML or JSON file, docs/attestation.md has each member. What is not said is strict: an
empty policy demands L5, allows no measurement at all, and accepts no platform that is not up to date.

Threading: immutable.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sealfs.attestation import canonical
from sealfs.attestation.canonical import Members
from sealfs.attestation.levels import Level
from sealfs.errors import DocumentError

TCB_STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
)  # Intel's words; "Revoked" is none that can be accepted
TCB_PARTS = ("bootloader", "fmc", "microcode", "snp", "tee")  # of AMD's TCB_VERSION
MEASURED_KINDS: Mapping[str, int] = {"sgx": 32, "tdx": 48, "snp": 48, "tpm": 32, "sealfs-runner": 32}  # bytes
_MAX_SIZE = 256 << 10
_MAX_ENTRIES = 1000
_PCRS = r"sha256:(?:[0-9]|1[0-9]|2[0-3])(?:,(?:[0-9]|1[0-9]|2[0-3]))*"
_MEMBERS = (
    "level",
    "development",
    "measurements",
    "signers",
    "config_ids",
    "tcb_statuses",
    "advisories",
    "minimum_evaluation_number",
    "minimum_tcb",
    "revocation_list",
    "pcrs",
    "contract",
)


@dataclass(frozen=True, order=True)
class SignerRule:
    """Any enclave of a product whose author signed it: instead of a single measurement.

    Attributes:
        signer: MRSIGNER in hex.
        product: ISVPRODID.
        minimum_svn: Least ISVSVN.
    """

    signer: str
    product: int
    minimum_svn: int


@dataclass(frozen=True)
class Policy:
    """What is demanded.

    Attributes:
        level: The least that will do.
        development: Whether the data is made up, so that L1 will do; only then can `level` be L1.
        measurements: By kind of evidence, what is allowed (see `Claims.measurement`).
        signers: SGX enclaves allowed by who signed them.
        config_ids: What the host may have configured at launch; all zeros is allowed only if none is named.
        tcb_statuses: Intel's words for the platform that are accepted.
        advisories: Intel's advisories that may apply to it.
        minimum_evaluation_number: Least of Intel's TCB evaluation data numbers.
        minimum_tcb: Least SVN of each part of an SNP platform; demanded whenever SNP is allowed.
        revocation_list: Whether an SNP platform's certificates have to be held against AMD's revocation list.
        contract: Whether keys are released for agreed contracts only, and to nothing else that reaches the level.
        pcrs: Which PCRs a TPM has to quote, such as "sha256:0,1,7"; demanded whenever a TPM is allowed.
    """

    level: Level = Level.L5
    development: bool = False
    measurements: Mapping[str, frozenset[str]] = field(default_factory=dict)
    signers: frozenset[SignerRule] = frozenset()
    config_ids: frozenset[str] = frozenset()
    tcb_statuses: frozenset[str] = frozenset({"UpToDate"})
    advisories: frozenset[str] = frozenset()
    minimum_evaluation_number: int = 0
    minimum_tcb: Mapping[str, int] = field(default_factory=dict)
    revocation_list: bool = True
    pcrs: str | None = None
    contract: bool = False

    def __post_init__(self) -> None:
        if self.level == Level.L1 and not self.development:
            raise DocumentError(
                "a policy with level L1 protects nothing",
                "say development = true if the data is made up, or demand L2 to L5",
            )
        if self.measurements.get("tpm") and self.pcrs is None:
            raise DocumentError(
                "a policy that allows a TPM has to say which PCRs", 'such as pcrs = "sha256:0,1,2,3,4,5,6,7"'
            )
        if self.measurements.get("snp") and not self.minimum_tcb:
            raise DocumentError(
                "a policy that allows SEV-SNP has to say how old a platform may be",
                "such as minimum_tcb = { bootloader = 4, tee = 0, snp = 22, microcode = 213 }",
            )

    @classmethod
    def parse(cls, data: bytes) -> Policy:
        """Read a policy, TOML or JSON.

        Raises:
            DocumentError: It is none, or makes no sense.
        """
        what = "the policy"
        if len(data) > _MAX_SIZE:
            raise DocumentError(f"{what} has {len(data)} bytes, more than {_MAX_SIZE}")
        if data.lstrip().startswith(b"{"):
            return cls.from_json(canonical.parse_json(data, what))
        try:
            return cls.from_json(tomllib.loads(data.decode()))
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"{what} is neither JSON nor TOML: {error}") from None

    @classmethod
    def from_json(cls, document: Any) -> Policy:
        """Read a parsed policy: what `to_json` makes, or less.

        Raises:
            DocumentError: It is none, or makes no sense.
        """
        members = Members(document, "the policy").only(*_MEMBERS)
        given: dict[str, Any] = {}
        if "level" in members:
            given["level"] = Level.parse(members.text("level"))
        if "development" in members:
            given["development"] = members.boolean("development")
        if "measurements" in members:
            kinds = members.object("measurements").only(*MEASURED_KINDS)
            given["measurements"] = {kind: _hexadecimal(kinds, kind, MEASURED_KINDS[kind]) for kind in kinds}
        if "signers" in members:
            given["signers"] = frozenset(
                SignerRule(
                    rule.hexadecimal("signer", 32).hex(),
                    rule.integer("product", 0, 0xFFFF),
                    rule.integer("minimum_svn", 0, 0xFFFF),
                )
                for rule in members.objects("signers", _MAX_ENTRIES)
                if rule.only("signer", "product", "minimum_svn")
            )
        if "config_ids" in members:
            given["config_ids"] = frozenset(members.texts("config_ids", _MAX_ENTRIES, r"[0-9a-f]{64,288}"))
        if "tcb_statuses" in members:
            statuses = members.texts("tcb_statuses", len(TCB_STATUSES))
            unknown = [status for status in statuses if status not in TCB_STATUSES]
            if unknown:
                raise DocumentError(
                    f"the policy accepts '{unknown[0][:40]}', which is no status",
                    f"there are {', '.join(TCB_STATUSES)}",
                )
            given["tcb_statuses"] = frozenset(statuses)
        if "advisories" in members:
            given["advisories"] = frozenset(members.texts("advisories", _MAX_ENTRIES, r"[A-Z]+-SA-[0-9]{1,6}"))
        if "minimum_evaluation_number" in members:
            given["minimum_evaluation_number"] = members.integer("minimum_evaluation_number", 0, 1 << 32)
        if "minimum_tcb" in members:
            parts = members.object("minimum_tcb").only(*TCB_PARTS)
            given["minimum_tcb"] = {part: parts.integer(part, 0, 255) for part in parts}
        if "revocation_list" in members:
            given["revocation_list"] = members.boolean("revocation_list")
        if "contract" in members:
            given["contract"] = members.boolean("contract")
        if "pcrs" in members:
            given["pcrs"] = _ordered(members.text("pcrs", _PCRS))
        return cls(**given)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as a JSON object, the same for the same policy."""
        document: dict[str, Any] = {
            "level": str(self.level),
            "development": self.development,
            "measurements": {kind: sorted(values) for kind, values in sorted(self.measurements.items())},
            "signers": [
                {"signer": rule.signer, "product": rule.product, "minimum_svn": rule.minimum_svn}
                for rule in sorted(self.signers)
            ],
            "config_ids": sorted(self.config_ids),
            "tcb_statuses": sorted(self.tcb_statuses),
            "advisories": sorted(self.advisories),
            "minimum_evaluation_number": self.minimum_evaluation_number,
            "minimum_tcb": dict(sorted(self.minimum_tcb.items())),
        }
        if not self.revocation_list:
            document["revocation_list"] = False
        if self.contract:
            document["contract"] = True
        if self.pcrs is not None:
            document["pcrs"] = self.pcrs
        return document

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in hex."""
        return canonical.digest(self.to_json())


def _hexadecimal(members: Members, name: str, size: int) -> frozenset[str]:
    return frozenset(members.texts(name, _MAX_ENTRIES, f"[0-9a-f]{{{2 * size}}}"))


def _ordered(pcrs: str) -> str:
    """Return a selection of PCRs in the one way to write it."""
    bank, _, numbers = pcrs.partition(":")
    return f"{bank}:{','.join(str(number) for number in sorted({int(number) for number in numbers.split(',')}))}"
