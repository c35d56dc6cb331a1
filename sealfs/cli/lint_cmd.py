"""`sealfs lint`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from sealfs.cli.common import json_option, note, print_json
from sealfs.enclave.lint import LEVELS, Finding, Level, lint, worst
from sealfs.errors import LocalIOError
from sealfs.terminal import escaped

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command()
@click.argument("manifest", type=click.Path(path_type=Path))
@click.option("--fail-on", type=click.Choice(list(LEVELS)), default="error", show_default=True,
              help="The least level that makes the exit code 1.")  # fmt: skip
@json_option
def command(manifest: Path, fail_on: Level, as_json: bool) -> int:
    """Say what in a Gramine MANIFEST lets the host in, line by line, and why.

    MANIFEST is a rendered one: what 'sealfs measure' or gramine-manifest wrote.
    """
    try:
        text = manifest.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LocalIOError(f"cannot read {manifest}: {error}", "name a rendered manifest") from None
    findings = lint(text)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        print_findings(findings, manifest)
        _tell_level(findings)
    level = worst(findings)
    return 1 if level is not None and LEVELS.index(level) >= LEVELS.index(fail_on) else 0


def _tell_level(findings: list[Finding]) -> None:
    try:
        from sealfs.enclave.registration import register  # noqa: PLC0415 - attestation is an extra
    except ImportError:
        return
    registered = register("", findings)
    why = f", because of {registered.findings[0].split(': ')[0]}" if registered.findings else ""
    note(f"may serve datasets that demand {registered.level} at most{why}")


def print_findings(findings: list[Finding], manifest: Path) -> None:
    """Print findings for people."""
    for finding in findings:
        level = click.style(finding.level, fg=_COLOURS[finding.level])
        click.echo(f"{manifest}:{finding.line}: {level}: {escaped(finding.what)}: {escaped(finding.why)}")
    if not findings:
        note(f"nothing to say about {manifest}")
