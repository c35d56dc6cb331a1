"""What vouches for a result: whether the evidence in its provenance proves that the agreed run made it.

Offline: the evidence was bound to the run's key and to the contract when it was made, so nobody has to be asked.

Threading: stateless.
"""

from __future__ import annotations

from dataclasses import dataclass

from sealfs.attestation.levels import Level
from sealfs.attestation.sample import TEE as SAMPLE
from sealfs.attestation.verdict import RegisteredManifest, judge
from sealfs.attestation.verify import Verifier
from sealfs.contracts.contract import Contract
from sealfs.contracts.provenance import Exhibit, Provenance
from sealfs.errors import EvidenceError, TrustError


@dataclass(frozen=True)
class Vouched:
    """What was found.

    Attributes:
        is_vouched: Whether something that can't be made up vouches for the result.
        findings: Why, a line each.
    """

    is_vouched: bool
    findings: tuple[str, ...]


def vouch(provenance: Provenance, contract: Contract, verifier: Verifier) -> Vouched:
    """Check the evidence in a provenance that fits its contract, as of the time of the run.

    Args:
        provenance: Checked against the contract already.
        contract: Which.
        verifier: Knows whose evidence to believe; has to allow samples, which are said to prove nothing.

    Raises:
        TrustError: The evidence proves something else, or is missing although the contract demands a level.
    """
    lines = ["signed by the run's own key; contract, inputs and script are the agreed ones"]
    proven = []
    for exhibit in provenance.exhibits:
        _check_bound(exhibit, provenance, contract)
        try:
            claims = verifier.verify(exhibit.evidence, exhibit.runtime_data.report_data(), provenance.started)
        except EvidenceError as error:
            raise TrustError(
                f"the evidence in the provenance does not verify: {error.message}", error.hint
            ) from None
        if claims.tee == SAMPLE:
            lines.append("NOTHING VOUCHES FOR IT: the evidence is a sample, which anybody can make (L1)")
            continue
        # who signed the contract has vouched for the measurements in it
        listed = claims.measurement in contract.policy.measurements.get(claims.tee, frozenset())
        manifest = RegisteredManifest(claims.measurement, claims.ceiling) if listed else None
        verdict = judge([contract.policy], claims, manifest, provenance.started)
        lines.append(f"{claims.tee} evidence: {verdict.reason}")
        if not verdict.allowed or provenance.level > verdict.level:
            raise TrustError("the evidence does not reach what the provenance says", verdict.reason)
        proven.append(verdict.level)
    if not provenance.exhibits:
        lines.append("NOTHING VOUCHES FOR IT: there is no evidence in it")
    is_vouched = bool(proven) and min(proven) > Level.L1 and len(proven) == len(provenance.exhibits)
    if not is_vouched and max(contract.policy.level, provenance.level) > Level.L1:
        raise TrustError(
            f"nothing vouches for the result: agreed is {contract.policy.level}, it says that it was made at "
            f"{provenance.level}, and brings no evidence of that",
            "anybody could have made it: do not use it, and ask the operator",
        )
    return Vouched(is_vouched, tuple(dict.fromkeys(lines)))


def _check_bound(exhibit: Exhibit, provenance: Provenance, contract: Contract) -> None:
    said = exhibit.runtime_data.extra
    if said.get("bound") != contract.digest:
        raise TrustError("the evidence in the provenance is bound to another contract", "do not use this result")
    if said.get("results") != str(provenance.signer) or said.get("run") != provenance.run:
        raise TrustError("the evidence in the provenance is of another run", "do not use this result")
