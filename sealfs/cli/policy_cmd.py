"""`sealfs policy`: what a policy demands, and what it says about evidence; offline."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sealfs.cli.common import SignerParameter, collateral_option, json_option, print_json
from sealfs.enclave.lint import lint
from sealfs.errors import EvidenceError, LocalIOError, UsageError
from sealfs.keys import Signer
from sealfs.terminal import escaped

try:
    from sealfs.attestation.collateral import CollateralFolder, default_folder
    from sealfs.attestation.evidence import Evidence
    from sealfs.attestation.policy import Policy
    from sealfs.attestation.revocation import RevocationFolder
    from sealfs.attestation.snp import load_certificates
    from sealfs.attestation.tpm_quote import load_key
    from sealfs.attestation.verdict import RegisteredManifest, Verdict, judge, unproven
    from sealfs.attestation.verify import Verifier
    from sealfs.enclave.registration import register
except ImportError as error:  # pragma: no cover - the tests' environment has it
    raise UsageError(
        f"policies need what is not installed: {error.name}", "pip install 'sealfs[attestation]'"
    ) from None

if TYPE_CHECKING:
    from sealfs.attestation.claims import Claims

_MAX_FILE = 1 << 20  # bytes
_FILE = click.Path(path_type=Path)


class PolicyParameter(click.ParamType[Policy]):
    """A file with a policy."""

    name = "policy"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Policy:
        """See click."""
        del param, ctx
        return value if isinstance(value, Policy) else Policy.parse(_read(Path(str(value))))


class TimeParameter(click.ParamType[datetime]):
    """A time, in UTC unless it says otherwise."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """See click."""
        if isinstance(value, datetime):
            return value
        try:
            time = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"'{value}' is no time such as 2026-03-01T12:00", param, ctx)
        return time if time.tzinfo else time.replace(tzinfo=UTC)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise LocalIOError(f"cannot read {path}: {error.strerror}", "check the file's name and mode") from None
    if len(data) > _MAX_FILE:
        raise UsageError(f"{path} is too big to be that")
    return data


@click.group()
def command() -> None:
    """Show what a policy demands, or what policies say about evidence, line by line; offline."""


@command.command()
@click.argument("policy", type=PolicyParameter())
@json_option
def show(policy: Policy, as_json: bool) -> None:
    """Say what POLICY demands, with what it does not say filled in.

    POLICY is a TOML or JSON file; docs/attestation.md has its members. Its digest names it, however it is written.
    """
    if as_json:
        print_json({**policy.to_json(), "digest": policy.digest})
        return
    click.echo(f"{policy.level}: {policy.level.meaning}")
    document = policy.to_json()
    del document["level"]
    for name, value in document.items():
        for line in _lines(value):
            click.echo(f"{name + ':':<27}{line}")
    click.echo(f"{'digest:':<27}{policy.digest}")


def _lines(value: object) -> Sequence[str]:
    if isinstance(value, dict):
        found = [f"{name} {line}" for name, inner in value.items() for line in _lines(inner)]
        return found or ["none"]
    if isinstance(value, list):
        return [" ".join(_lines(inner)) for inner in value] or ["none"]
    return [str(value).lower() if isinstance(value, bool) else str(value)]


@command.command()
@click.argument("evidence", type=_FILE)
@click.option("--policy", "policies", type=PolicyParameter(), multiple=True, required=True,
              help="A TOML or JSON file. Repeatable: all of them have to allow.")  # fmt: skip
@click.option("--at", type=TimeParameter(), help="When, such as 2026-03-01T12:00 (UTC) [default: now].")
@collateral_option
@click.option("--manifest", type=_FILE,
              help="The rendered manifest to take for the one that was measured; it is linted.")  # fmt: skip
@click.option(
    "--report-data", metavar="HEX", help="The 64 bytes that it has to be bound to [default: not checked]."
)
@click.option("--intel-root", type=_FILE, help="DER of another root for SGX and TDX than Intel's.")
@click.option("--amd-root", type=_FILE, help="Other roots for SEV-SNP than AMD's, PEM.")
@click.option("--amd-certificate", "amd_certificates", type=_FILE, multiple=True,
              help="A chip's VCEK that the evidence does not bring, DER or PEM. Repeatable.")  # fmt: skip
@click.option("--runner", "runners", type=SignerParameter(), multiple=True, help="Take this runner as enrolled.")
@click.option("--tpm-key", "tpm_keys", type=_FILE, multiple=True, help="Take this TPM's key as enrolled, PEM.")
@json_option
def check(
    evidence: Path,
    policies: tuple[Policy, ...],
    at: datetime | None,
    collateral: Path | None,
    manifest: Path | None,
    report_data: str | None,
    intel_root: Path | None,
    amd_root: Path | None,
    amd_certificates: tuple[Path, ...],
    runners: tuple[Signer, ...],
    tpm_keys: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Explain, rule by rule, what policies say about EVIDENCE. The exit code is 14 if they refuse it.

    EVIDENCE is a JSON object with 'tee' and 'tee-evidence', as environments send it to a broker, or a bare SGX or
    TDX quote or SNP report. Nothing is fetched and nothing is released: whether evidence was made for a challenge
    only who sent the challenge can tell.
    """
    now = at or datetime.now(UTC)
    verifier = Verifier(
        runners=runners,
        tpm_keys=[load_key(_read(path)) for path in tpm_keys],
        allow_sample=True,
        collateral=CollateralFolder(collateral or default_folder()),
        amd_revocations=RevocationFolder(collateral or default_folder()),
        intel_root=None if intel_root is None else _read(intel_root),
        amd_roots=None if amd_root is None else load_certificates(_read(amd_root)),
        amd_certificates=[found for path in amd_certificates for found in load_certificates(_read(path))],
    )
    data = _read(evidence)
    offered = Evidence.parse(data) if data.lstrip().startswith(b"{") else Evidence.from_raw(data)
    claims = None
    try:
        claims = _claims(verifier, offered, report_data, now)
        verdict = judge(policies, claims, _registered(manifest, claims), now)
    except EvidenceError as error:
        verdict = unproven(policies, offered.tee, error.message)
    if as_json:
        print_json({**verdict.to_json(), "bound": report_data is not None, "claims": _shown(claims)})
    else:
        _print(verdict, claims, report_data is not None)
    return 0 if verdict.allowed else EvidenceError.exit_code


def _claims(verifier: Verifier, evidence: Evidence, report_data: str | None, at: datetime) -> Claims:
    if report_data is None:
        return verifier.examine(evidence, at)
    try:
        return verifier.verify(evidence, bytes.fromhex(report_data), at)
    except ValueError:
        raise UsageError("--report-data is not hexadecimal") from None


def _registered(manifest: Path | None, claims: Claims) -> RegisteredManifest | None:
    if manifest is None:
        return None
    return register(claims.measurement, lint(_read(manifest).decode("utf-8", "replace")))


def _shown(claims: Claims | None) -> dict[str, object] | None:
    """Return claims as JSON."""
    if claims is None:
        return None
    return {
        "tee": claims.tee,
        "measurement": claims.measurement,
        "signer": claims.signer,
        "product": claims.product,
        "svn": claims.svn,
        "config_id": claims.config_id,
        "debug": claims.debug,
        "tcb_status": claims.tcb_status,
        "advisories": list(claims.advisories),
        "tcb_evaluation_number": claims.tcb_evaluation_number,
        "collateral_expires": claims.collateral_expires and claims.collateral_expires.isoformat(),
        "pcrs": claims.pcrs,
        "tcb": dict(claims.tcb),
        "report_data": claims.report_data.hex(),
        "details": dict(claims.details),
    }


def _print(verdict: Verdict, claims: Claims | None, bound: bool) -> None:
    word = click.style("allowed", fg="green") if verdict.allowed else click.style("refused", fg="red", bold=True)
    click.echo(f"{word}: {escaped(verdict.reason)}")
    for finding in verdict.findings:
        mark = click.style("ok  ", fg="green") if finding.ok else click.style("BAD ", fg="red", bold=True)
        click.echo(f"{mark}{finding.rule}: demanded {finding.demanded}; offered {escaped(finding.offered)}")
    if claims is not None:
        for name, value in claims.details.items():
            click.echo(f"    {name}: {escaped(value)}")
        if not bound:
            click.echo(f"    not checked: to whom it is bound. It says {claims.report_data.hex()}")
