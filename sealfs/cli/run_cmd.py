"""`sealfs run`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sealfs.cli.common import (
    Command,
    RecipientParameter,
    SignerParameter,
    identity_option,
    note,
    open_dataset,
    open_identity,
    reject_version,
    single_writer_option,
)
from sealfs.dataset.dataset import Dataset
from sealfs.enclave.keysource import HandedKeys, IdentityKeys, PresharedKeys
from sealfs.errors import UsageError
from sealfs.executors.base import Executor, Job, find_executor
from sealfs.keys import Recipient, Signer
from sealfs.placement import (
    DEFAULT_INTERVAL,
    DataMount,
    Output,
    check_apart,
    parse_placed,
    split_path,
    with_signers,
)
from sealfs.store.address import normalize, open_store


class DataParameter(click.ParamType[DataMount]):
    """A dataset and the path at which it is seen: URI[@VERSION]:/path."""

    name = "uri:/path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> DataMount:
        """See click."""
        del param, ctx
        return value if isinstance(value, DataMount) else DataMount.parse(value)


class OutputParameter(click.ParamType[tuple[str, str]]):
    """An address for results, normalized, and the path at which they are written: URI:/path."""

    name = "uri:/path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """See click."""
        del param, ctx
        if isinstance(value, tuple):
            return value
        uri, path = parse_placed(value)
        return normalize(reject_version(uri)), path


class PlacedSignerParameter(SignerParameter):
    """Whom to believe, at one path or at all: [/path=]KEY."""

    name = "[/path=]signer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click; returns path and signer."""
        if isinstance(value, tuple):
            return value
        path, key = split_path(value)
        return path, super().convert(key, param, ctx)


def job_options(command: Command) -> Command:
    """Add the options that say what a run reads and writes, and where it runs."""
    for option in (
        click.option("--out-interval", type=click.FloatRange(min=0.1), default=DEFAULT_INTERVAL, show_default=True,
                     metavar="SECONDS", help="How often results are sealed; a crash loses no more than that."),
        click.option("--out-recipient", "recipients", multiple=True, type=RecipientParameter(),
                     help="Who can open the results: recipient strings or .pub files [default: you]."),
        click.option("--out", type=OutputParameter(), metavar="URI:/PATH",
                     help="Where results are sealed to, and where COMMAND writes them."),
        click.option("--test-keys", type=click.Path(path_type=Path), metavar="FILE",
                     help="Open the data with pre-shared keys instead of an identity: for tests only."),
        click.option("--signer", "signers", multiple=True, type=PlacedSignerParameter(), metavar="[/PATH=]KEY",
                     help="The provider's signer string or .pub file, of the data at PATH or of all: whom to "
                     "believe at first use. Repeatable."),
        click.option("--data", "data", multiple=True, type=DataParameter(), metavar="URI[@VERSION]:/PATH",
                     help="A dataset, and where COMMAND sees it. Repeatable."),
        click.option("--executor", default="native", show_default=True, metavar="NAME",
                     help="native, gramine_direct, gramine_sgx, occlum, scone, or one that a package added."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command()
@click.argument("workload", nargs=-1, required=True, metavar="-- COMMAND...")
@job_options
@click.option("--attach", type=click.Choice(["preload", "fuse"]), default="preload", show_default=True,
              help="How data gets in, natively: inside the process, or by a FUSE mount.")  # fmt: skip
@click.option("--enclave", type=click.Path(path_type=Path), metavar="DIR",
              help="The folder that 'sealfs measure' filled, for executors with an enclave.")  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Only print what would run.")
@single_writer_option
@identity_option
def command(
    workload: tuple[str, ...],
    executor: str,
    attach: str,
    data: tuple[DataMount, ...],
    signers: tuple[tuple[str | None, Signer], ...],
    test_keys: Path | None,
    out: tuple[str, str] | None,
    recipients: tuple[Recipient, ...],
    out_interval: float,
    enclave: Path | None,
    dry_run: bool,
    single_writer: bool,
    identity_path: Path | None,
) -> int:
    """Run COMMAND on sealed data, and seal what it writes.

    COMMAND finds each dataset at the PATH given with it, as ordinary read-only files. What it writes below the
    path given with --out is in memory only, and leaves it as a new sealed dataset: sealed at an interval, and
    when COMMAND ends, however it ends. 'sealfs ls' and 'sealfs pull' read it.

    Signals and the exit code are passed on. If data turns out to be damaged COMMAND is killed, and the exit code
    is 5 (--attach fuse) or 85 (preload).

    Natively the kernel and whoever controls this machine can see the plaintext. The executors with an enclave
    need a folder that 'sealfs measure' has filled for the same options and COMMAND.
    """
    chosen = find_executor(executor)
    if chosen.is_enclave and attach == "fuse":
        raise UsageError("there is no FUSE in an enclave", "leave out --attach")
    keys: HandedKeys | None = None
    if out is not None and not recipients:
        identity = open_identity(identity_path)
        recipients, keys = (identity.recipient,), IdentityKeys(identity)
    output = Output(*out, tuple(map(str, recipients)), out_interval) if out else None
    job = make_job(data, signers, output, workload, test_keys, attach, enclave)
    if dry_run:
        _print(job, chosen)
        return 0
    if test_keys is not None:
        keys = PresharedKeys.read(test_keys)
    elif data:
        keys = keys or IdentityKeys(open_identity(identity_path))

    from sealfs.running import Run  # noqa: PLC0415 - loads all that a mount needs

    def opened(mount: DataMount) -> Dataset:
        return open_dataset(open_store(mount.address), mount.version, mount.signer)

    click.echo(click.style(f"sealfs: {chosen.notice}", fg="yellow", bold=True), err=True)
    return Run(job, chosen, opened, keys if data else None, note, single_writer=single_writer).run()


def make_job(
    data: tuple[DataMount, ...],
    signers: Sequence[tuple[str | None, Signer]],
    output: Output | None,
    workload: tuple[str, ...],
    test_keys: Path | None,
    attach: str,
    enclave: Path | None,
) -> Job:
    """Return the job that the options describe.

    Raises:
        UsageError: They contradict each other.
    """
    datasets = with_signers(data, signers)
    check_apart([mount.path for mount in datasets] + ([output.path] if output else []))
    return Job(
        datasets,
        output,
        workload,
        keys="test-keys" if test_keys else "identity",
        preload=attach == "preload" and bool(data),
        enclave=enclave.absolute() if enclave else None,
    )


def _print(job: Job, executor: Executor) -> None:
    note(executor.notice)
    executor.check(job)
    for data in job.datasets:
        how = "ciphertext for the enclave" if executor.is_enclave else "in process" if job.preload else "FUSE"
        click.echo(f"# {data.uri} at {data.path} ({how})")
    if job.output is not None:
        seconds = f"{job.output.interval:g} s"
        click.echo(f"# {job.output.path} sealed to {job.output.address} every {seconds} and at the end")
    for name in executor.files(job):
        click.echo(f"# uses {job.enclave}/{name}")
    for name, value in executor.environment(job).items():
        click.echo(f"export {name}={shlex.quote(value)}")
    if job.enclave is not None:
        click.echo(f"cd {shlex.quote(str(job.enclave))}")
    click.echo(shlex.join(executor.command(job)))
