"""`sealfs measure`."""

from __future__ import annotations

import re
import shlex
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from sealfs.attestation.levels import Level
from sealfs.cli.common import identity_option, json_option, note, open_identity, print_json
from sealfs.cli.lint_cmd import print_findings
from sealfs.cli.run_cmd import job_options, make_job, make_output
from sealfs.enclave.attach import LIBRARY
from sealfs.enclave.collected import FILE_NAME, Collected, collect
from sealfs.enclave.compiled import FOLDER, copies_of
from sealfs.enclave.measure import Measured, manifest_digest, measure
from sealfs.enclave.memory import memory_folder
from sealfs.errors import ExecutorError, LocalIOError, UsageError
from sealfs.executors.base import Job, KeyKind, find_executor
from sealfs.executors.gramine import RENDERED
from sealfs.executors.launcher import rehearsal_command
from sealfs.keys import Identity, Recipient, Signer
from sealfs.placement import DataMount

_GRAMINE = {"gramine-sgx", "gramine-direct"}
_TRIAL = {  # as in the enclave, so that the same files are loaded
    "PYTHONDONTWRITEBYTECODE": "1",  # what a trial compiles, the next would load
    "LC_ALL": "C.UTF-8",
    "LOCPATH": "/usr/lib/locale",
}


def _check_size(context: click.Context, parameter: click.Parameter, value: str) -> str:
    del context, parameter
    if not re.fullmatch(r"[1-9]\d*[MG]", value):
        raise click.BadParameter("is not a size such as 16G")
    return value


@click.command()
@click.argument("workload", nargs=-1, required=True, metavar="-- COMMAND...")
@job_options
@click.option("--enclave", type=click.Path(path_type=Path), required=True, metavar="DIR",
              help="The folder to fill; made if missing.")  # fmt: skip
@click.option("--trial", metavar="COMMAND",
              help="What to run once to see what is loaded, if not COMMAND: a shorter training, say.")  # fmt: skip
@click.option(
    "--contract", is_flag=True, help="An enclave that carries out contracts ('sealfs task'), not COMMAND."
)
@click.option(
    "--again", is_flag=True, help="Use what was collected in DIR before; only check that it is unchanged."
)
@click.option("-x", "--exclude", "excludes", multiple=True, help="Glob of absolute paths not to trust. Repeatable.")
@click.option("--threads", type=click.IntRange(1, 512), default=4, show_default=True, help="For OpenMP.")
@click.option("--enclave-size", default="16G", show_default=True, callback=_check_size,
              help="Memory of the enclave, such as 16G.")  # fmt: skip
@click.option("--register", "register_at", metavar="URL",
              help="Tell this key broker, where you own datasets, what was measured, and its level.")  # fmt: skip
@identity_option
@json_option
def command(
    workload: tuple[str, ...],
    executor: str,
    data: tuple[DataMount, ...],
    signers: tuple[tuple[str | None, Signer], ...],
    keys_from: KeyKind,
    broker: str | None,
    test_keys: Path | None,
    out: tuple[str, str] | None,
    recipients: tuple[Recipient, ...],
    out_interval: float,
    out_log: str | None,
    cache_memory: int | None,
    enclave: Path,
    trial: str | None,
    contract: bool,
    again: bool,
    excludes: tuple[str, ...],
    threads: int,
    enclave_size: str,
    register_at: str | None,
    identity_path: Path | None,
    as_json: bool,
) -> None:
    """Find out what COMMAND loads, make an enclave's files of it, and print the measurement.

    Runs COMMAND (or --trial) here, once, under strace, on whatever lies at the data's paths: a plain folder of
    made-up samples is fine, and so is a mount. What lies at those paths is not measured, only code is; samples
    elsewhere, for a --trial, are to be left out with --exclude. Run it where you trust the machine: what is found
    here is what the enclave will accept.

    The same files, options and COMMAND give the same measurement. 'sealfs run' with the same options starts it.

    With --contract the enclave carries out contracts whose script loads what COMMAND loads: which one, on whose
    data and for whom is said when it starts, and no key is released unless all owners have signed exactly that.
    For a rehearsal say --keys runner as well; contracts that run natively can then be measured, too (--executor
    native), although nothing but the runner's word says that this is what runs.

    A broker releases keys to an enclave only if its owner has registered the measurement: --register does, with the
    highest level that the manifest may serve: L5 if the linter finds nothing but notes, L4 with warnings, L1 with
    errors, and L2, a rehearsal, without SGX.
    """
    chosen = find_executor(executor)
    if not chosen.is_enclave and not contract:
        raise UsageError(f"'{executor}' has no enclave to measure", "choose one with --executor")
    if out is not None and not recipients:
        raise UsageError("an enclave must know who can open its results", "name them with --out-recipient")
    output = make_output(out, recipients, out_interval, out_log, chosen)
    in_gramine = executor.replace("_", "-") in _GRAMINE
    kind: KeyKind = "test-keys" if test_keys else keys_from
    if contract and not in_gramine and executor != "native":
        raise UsageError(f"contracts are not carried out in '{executor}' yet", "choose gramine-sgx")
    if contract and (data or out or test_keys or broker or cache_memory is not None):
        raise UsageError("a contract says what is read and written, and who is asked", "leave that out here")
    if contract and kind == "identity":
        kind = "attested"  # nobody's identity opens what several own
    job = make_job(data, signers, output, workload, kind, broker, "preload", enclave)
    job = replace(job, contract=contract, cache_memory=cache_memory)
    for mount in job.datasets:
        if mount.signer is None:
            raise UsageError(
                f"an enclave must know whose data to believe at {mount.path}",
                f"name the data's provider: --signer KEY, or --signer {mount.path}=KEY",
            )
    try:
        enclave.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LocalIOError(f"cannot make {enclave}: {error.strerror}") from None
    if again:
        _check_unchanged(Collected.load(enclave), enclave)
    else:
        paths = _collect(job, shlex.split(trial) if trial else list(workload), excludes)
        collected = Collected.here(paths, threads, enclave_size)
        if in_gramine:
            collected = replace(collected, compiled=copies_of(collected.files, enclave))
        collected.save(enclave)
    measured = measure(job, chosen)
    _tell(measured, Collected.load(enclave), enclave, as_json)
    if measured.missing is not None:
        commands = "; ".join(shlex.join(step) for step in measured.commands)
        raise ExecutorError(
            f"{measured.missing} is not on PATH, so nothing is built and MRENCLAVE is not known",
            f"the files are there; where the tools are, run in {enclave}: {commands}",
        )
    if register_at is not None:
        _register(measured, enclave, register_at, open_identity(identity_path))


def _register(measured: Measured, enclave: Path, url: str, identity: Identity) -> None:
    """Tell a broker what was measured."""
    from sealfs.broker.address import BrokerAddress  # noqa: PLC0415 - these talk to brokers
    from sealfs.broker.owner import BrokerMember  # noqa: PLC0415
    from sealfs.enclave.registration import register  # noqa: PLC0415

    manifest = register(measured.mrenclave or manifest_digest(enclave), measured.findings)
    if measured.mrenclave is None:
        manifest = replace(manifest, level=min(manifest.level, Level.L2))  # nothing protects it
    BrokerMember(BrokerAddress.parse(url), identity).register(manifest)
    note(f"registered {manifest.measurement}: it may serve {manifest.level} ({manifest.level.meaning})")


def _collect(job: Job, trial: list[str], excludes: tuple[str, ...]) -> set[str]:
    hidden = [*excludes, *(f"{data.path}/*" for data in job.datasets)]
    with ExitStack() as stack:
        if job.output is not None:
            hidden.append(f"{job.output.path}/*")
            stack.enter_context(memory_folder(Path(job.output.path)))
        code, paths = collect(trial, environment=_TRIAL, excludes=hidden)
    if code:
        raise ExecutorError(
            f"the trial run failed with exit code {code}",
            f"it needs something at {', '.join(d.path for d in job.datasets) or 'its paths'}; see --trial",
        )
    needed = {"by_evidence": job.keys in ("attested", "runner"), "contract": job.contract}
    with tempfile.TemporaryDirectory(prefix="sealfs-rehearsal-") as folder:
        rehearsal = rehearsal_command(Path(folder), **needed)
        environment = {**_TRIAL, "LD_PRELOAD": str(LIBRARY)}
        code, also = collect(rehearsal, environment=environment, excludes=[*hidden, f"{folder}/*"])
    if code:
        raise ExecutorError(
            "the launcher does not run here",
            f"try it: {shlex.join(rehearsal_command(Path('DIR'), **needed))}",
        )
    return paths | also


def _check_unchanged(collected: Collected, enclave: Path) -> None:
    if changed := collected.changed(enclave):
        raise ExecutorError(
            f"{len(changed)} files differ from what was collected, {changed[0]} for one",
            "collect again, without --again, if that is meant to be",
        )


def _tell(measured: Measured, collected: Collected, enclave: Path, as_json: bool) -> None:
    if as_json:
        document: dict[str, Any] = {
            "mrenclave": measured.mrenclave,
            "manifest": measured.manifest,
            "trusted_files": len(collected.files),
            "files": [FILE_NAME, *measured.files],
            "commands": [list(step) for step in measured.commands],
            "findings": [asdict(finding) for finding in measured.findings],
        }
        print_json(document)
        return
    print_findings([f for f in measured.findings if f.level != "note"], enclave / RENDERED)
    written = ", ".join((FILE_NAME, *measured.files, *([f"{FOLDER}/"] if collected.compiled else [])))
    note(f"{len(collected.files)} files are trusted; wrote {written} to {enclave}")
    if measured.mrenclave is not None:
        click.echo(f"MRENCLAVE {measured.mrenclave}")
    elif measured.manifest is not None:
        click.echo(f"manifest SHA-256 {measured.manifest}")
