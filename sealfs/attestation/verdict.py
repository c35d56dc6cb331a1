"""The decision: what every policy demands against what was proven, rule by rule.

Nothing is added up or weighed: one rule that does not hold refuses, and of several policies all have to allow. So a
dataset with a weak policy lowers nothing for another one that is used together with it.

Threading: stateless.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sealfs.attestation.claims import Claims
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy

_NONE = "nothing"


@dataclass(frozen=True)
class RegisteredManifest:
    """What a broker was told of a measured manifest by `sealfs measure --register`.

    Attributes:
        measurement: MRENCLAVE, or the SHA-256 of a runner's manifest, in hex.
        level: The highest level that it may serve.
        findings: What keeps it from a higher one, a line each.
    """

    measurement: str
    level: Level
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One rule: what it is about, what is demanded, what was offered, and whether that will do."""

    rule: str
    demanded: str
    offered: str
    ok: bool

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'BAD '}{self.rule}: demanded {self.demanded}; offered {self.offered}"


@dataclass(frozen=True)
class Verdict:
    """What was decided, and why.

    Attributes:
        allowed: Whether every rule of every policy holds.
        level: What the environment reaches; what it makes is stamped with it.
        demanded: The highest level that a policy demands.
        findings: Rule by rule, of all policies, without repetitions.
        offered: What kind of evidence there was, for people.
    """

    allowed: bool
    level: Level
    demanded: Level
    findings: tuple[Finding, ...]
    offered: str

    @property
    def reason(self) -> str:
        """One line for whoever was refused, or allowed."""
        if self.allowed:
            return f"this dataset needs {self.demanded}; this process reaches {self.level} with {self.offered}"
        bad = [finding for finding in self.findings if not finding.ok]
        why = "; ".join(f"{f.rule}: demanded {f.demanded}, offered {f.offered}" for f in bad if f.rule != "level")
        return f"this dataset needs {self.demanded}; this process offered {self.offered}" + (
            f" ({why})" if why else ""
        )

    def __str__(self) -> str:
        return "\n".join([f"{'allowed' if self.allowed else 'refused'}: {self.reason}", *map(str, self.findings)])

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "allowed": self.allowed,
            "level": str(self.level),
            "demanded": str(self.demanded),
            "reason": self.reason,
            "findings": [
                {"rule": f.rule, "demanded": f.demanded, "offered": f.offered, "ok": f.ok} for f in self.findings
            ],
        }


def judge(
    policies: Sequence[Policy], claims: Claims | None, manifest: RegisteredManifest | None, at: datetime
) -> Verdict:
    """Decide whether an environment may have what these policies guard.

    Args:
        policies: Of everything that is asked for together.
        claims: What was verified; None if no evidence was offered.
        manifest: What is registered for `claims.measurement`; None if nothing is.
        at: The time, with a zone.
    """
    if manifest is not None and (claims is None or manifest.measurement != claims.measurement):
        manifest = None  # of something else: it says nothing about this environment
    level = _reached(claims, manifest)
    found = [finding for policy in policies for finding in _judge(policy, claims, manifest, level, at)]
    if not policies:
        found = [Finding("policy", "at least one", _NONE, False)]
    return Verdict(
        allowed=all(finding.ok for finding in found),
        level=level,
        demanded=max((policy.level for policy in policies), default=Level.L5),
        findings=tuple(dict.fromkeys(found)),
        offered="no evidence" if claims is None else f"'{claims.tee}' evidence",
    )


def unproven(policies: Sequence[Policy], tee: str, why: str) -> Verdict:
    """Return the refusal of evidence that did not verify.

    Args:
        policies: Of everything that is asked for together.
        tee: What kind of evidence it pretended to be.
        why: What the verifier said.
    """
    return Verdict(
        allowed=False,
        level=Level.L1,
        demanded=max((policy.level for policy in policies), default=Level.L5),
        findings=(Finding("evidence", "some that verifies", why, False),),
        offered=f"'{tee}' evidence that does not verify",
    )


def _needs_manifest(claims: Claims) -> bool:
    """Whether the measurement is one of a manifest, which may let the host in although nobody changed it."""
    return claims.tee in ("sgx", "sealfs-runner")


def _reached(claims: Claims | None, manifest: RegisteredManifest | None) -> Level:
    if claims is None or claims.debug:
        return Level.L1
    if not _needs_manifest(claims):
        return claims.ceiling
    return Level.L1 if manifest is None else min(claims.ceiling, manifest.level)


def _judge(
    policy: Policy, claims: Claims | None, manifest: RegisteredManifest | None, level: Level, at: datetime
) -> Iterator[Finding]:
    offered = "no evidence, which is L1" if claims is None else f"{level} by '{claims.tee}' evidence"
    yield Finding("level", f"{policy.level} ({policy.level.meaning})", offered, level >= policy.level)
    if policy.level == Level.L1 or claims is None:
        return  # made-up data: no more is demanded; or no evidence: nothing more can be said
    yield Finding("debug", "off", "on" if claims.debug else "off", not claims.debug)
    yield _measurement(policy, claims)
    if _needs_manifest(claims):
        yield _manifest(policy, manifest)
    yield _config_id(policy, claims)
    yield from _platform(policy, claims, at)


def _measurement(policy: Policy, claims: Claims) -> Finding:
    listed = policy.measurements.get(claims.tee, frozenset())
    rules = [rule for rule in policy.signers if claims.tee == "sgx"]
    demanded = [f"one of {len(listed)} allow-listed for '{claims.tee}'"]
    offered = claims.measurement or _NONE
    if rules:
        demanded += [f"signer {r.signer}, product {r.product}, SVN {r.minimum_svn} or more" for r in sorted(rules)]
        offered += f", signer {claims.signer}, product {claims.product}, SVN {claims.svn}"
    signed = any(
        rule.signer == claims.signer
        and rule.product == claims.product
        and claims.svn is not None
        and claims.svn >= rule.minimum_svn
        for rule in rules
    )
    return Finding("measurement", ", or ".join(demanded), offered, claims.measurement in listed or signed)


def _manifest(policy: Policy, manifest: RegisteredManifest | None) -> Finding:
    demanded = f"a registered manifest that may serve {policy.level}"
    if manifest is None:
        return Finding("manifest", demanded, "one that is not registered ('sealfs measure --register')", False)
    why = f": {manifest.findings[0]}" if manifest.findings else ""
    return Finding("manifest", demanded, f"one for {manifest.level}{why}", manifest.level >= policy.level)


def _config_id(policy: Policy, claims: Claims) -> Finding:
    demanded = f"one of {len(policy.config_ids)} allow-listed" if policy.config_ids else "none"
    ok = claims.config_id in policy.config_ids if policy.config_ids else claims.config_id is None
    return Finding("launch configuration", demanded, claims.config_id or "none", ok)


def _platform(policy: Policy, claims: Claims, at: datetime) -> Iterator[Finding]:
    """Yield what is demanded of the machine; each kind of evidence has its own words for how old it may be."""
    if claims.tee in ("sgx", "tdx"):
        yield from _intel(policy, claims, at)
    elif claims.tee == "snp":
        least = policy.minimum_tcb
        enough = bool(least) and all(claims.tcb.get(part, -1) >= svn for part, svn in least.items())
        demanded = _parts(least) if least else "a minimum, but the policy names none"
        yield Finding("TCB", demanded, _parts(claims.tcb), enough)
        if policy.revocation_list:
            yield _in_date("revocation list", claims, at)
    elif claims.tee == "tpm":
        demanded = policy.pcrs or "some, but the policy names none"
        same = policy.pcrs is not None and claims.pcrs == policy.pcrs
        yield Finding("PCRs", demanded, claims.pcrs or _NONE, same)


def _intel(policy: Policy, claims: Claims, at: datetime) -> Iterator[Finding]:
    accepted = " or ".join(sorted(policy.tcb_statuses)) or _NONE
    status = claims.tcb_status
    yield Finding("TCB status", accepted, status or _NONE, status in policy.tcb_statuses)
    known = policy.advisories.issuperset(claims.advisories)
    yield Finding("advisories", _listed(policy.advisories), _listed(claims.advisories), known)
    least, number = policy.minimum_evaluation_number, claims.tcb_evaluation_number
    new = number is not None and number >= least
    yield Finding("TCB evaluation number", f"{least} or more", str(number), new)
    yield _in_date("collateral", claims, at)


def _in_date(rule: str, claims: Claims, at: datetime) -> Finding:
    expires = claims.collateral_expires
    offered = f"expires {_time(expires)}" if expires else _NONE
    return Finding(rule, f"in date at {_time(at)}", offered, expires is not None and at < expires)


def _listed(names: Sequence[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _parts(tcb: Any) -> str:
    return ", ".join(f"{part} {svn}" for part, svn in sorted(tcb.items())) or _NONE


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S %Z")
