"""What a broker is told of a measured manifest: which level it may serve at most, and what keeps it from more.

An enclave's measurement says that nobody has changed its manifest, not that the manifest is any good: that is what
the linter is for, and what this turns into a level.

Threading: stateless.
"""

from __future__ import annotations

from collections.abc import Iterable

from sealfs.attestation.levels import Level
from sealfs.attestation.verdict import RegisteredManifest
from sealfs.enclave.lint import PLAIN_OUTPUT, Finding

# Through these something gets in or out that is neither sealed nor measured. Other warnings are traps for whoever
# runs the enclave, or doubts about what was measured, which is for whoever allow-lists the measurement to settle.
_NOT_AT_L5 = frozenset(
    {
        PLAIN_OUTPUT,
        "--identity-fd",  # whoever hands in keys has them
        "--keys-fd",
        "sgx.allowed_ioctls",
        "sgx.enable_stats",
        "sgx.remote_attestation",
    }
)


def register(measurement: str, findings: Iterable[Finding]) -> RegisteredManifest:
    """Return what to register for a measurement.

    Args:
        measurement: MRENCLAVE, or the SHA-256 of a manifest that a runner runs without SGX, in hex.
        findings: All that the linter said about the manifest.
    """
    level, reasons = Level.L5, []
    for finding in findings:
        highest = _highest(finding)
        if highest < Level.L5:
            level = min(level, highest)
            reasons.append(f"{finding.what}: {finding.why}")
    return RegisteredManifest(measurement, level, tuple(reasons))


def _highest(finding: Finding) -> Level:
    """Return the highest level that a manifest with a finding may serve."""
    if finding.level == "error":  # the host gets plaintext or control: that is a rehearsal
        return Level.L2
    what = finding.what
    if what in _NOT_AT_L5 or what.startswith("dev:") or what.endswith("(encrypted)"):
        return Level.L4
    return Level.L5
