"""`sealfs run`."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import click

from sealfs.cli.common import (
    Command,
    RecipientParameter,
    identity_option,
    note,
    open_dataset,
    open_identity,
    reject_version,
    signer_option,
    single_writer_option,
    split_version,
)
from sealfs.dataset.dataset import Dataset
from sealfs.enclave.keysource import IdentityKeys
from sealfs.enclave.output import DEFAULT_INTERVAL
from sealfs.errors import UsageError
from sealfs.executors.base import DataMount, Executor, Job, Output, find_executor
from sealfs.keys import Identity, Recipient, Signer, default_identity_path
from sealfs.store.address import normalize, open_store


class PlacedParameter(click.ParamType[tuple[str, str]]):
    """An address and the path at which it is seen: URI:/path."""

    name = "uri:/path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """See click."""
        if isinstance(value, tuple):
            return value
        # the colon of s3:// is followed by two slashes, which no path begins with
        match = re.fullmatch(r"(.+?):(/(?!/)[^:]*)", value, re.DOTALL)
        if match is None:
            self.fail(f"'{value}' is not URI:/path, such as s3://bucket/scans:/data", param, ctx)
        return match[1], os.path.normpath(match[2])


def job_options(command: Command) -> Command:
    """Add the options that say what a run reads and writes, and where it runs."""
    for option in (
        click.option("--out-interval", type=click.FloatRange(min=0.1), default=DEFAULT_INTERVAL, show_default=True,
                     metavar="SECONDS", help="How often results are sealed; a crash loses no more than that."),
        click.option("--out-recipient", "recipients", multiple=True, type=RecipientParameter(),
                     help="Who can open the results: recipient strings or .pub files [default: you]."),
        click.option("--out", type=PlacedParameter(), metavar="URI:/PATH",
                     help="Where results are sealed to, and where the command writes them."),
        click.option("--data", "data", multiple=True, type=PlacedParameter(), metavar="URI[@VERSION]:/PATH",
                     help="A dataset, and where the command sees it. Repeatable."),
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
@signer_option
@identity_option
def command(
    workload: tuple[str, ...],
    executor: str,
    attach: str,
    data: tuple[tuple[str, str], ...],
    out: tuple[str, str] | None,
    recipients: tuple[Recipient, ...],
    out_interval: float,
    enclave: Path | None,
    dry_run: bool,
    single_writer: bool,
    signer: Signer | None,
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
    identity_path = identity_path or default_identity_path()
    identity = open_identity(identity_path) if needs_identity(chosen, attach, data, out, recipients) else None
    job = make_job(data, out, recipients, out_interval, workload, identity, identity_path, attach, enclave, signer)
    if dry_run:
        _print(job, chosen)
        return 0

    from sealfs.running import Run  # noqa: PLC0415 - loads all that a mount needs

    def opened(mount: DataMount) -> Dataset:
        return open_dataset(open_store(mount.address), mount.version, signer)

    click.echo(click.style(f"sealfs: {chosen.notice}", fg="yellow", bold=True), err=True)
    keys = IdentityKeys(identity) if identity and not chosen.is_enclave else None
    return Run(job, chosen, opened, keys, note, single_writer=single_writer).run()


def needs_identity(
    executor: Executor, attach: str, data: tuple[object, ...], out: object, recipients: tuple[Recipient, ...]
) -> bool:
    """Whether this process has to open the identity file: to mount plaintext, or to know whose the results are."""
    mounts = attach == "fuse" and bool(data) and not executor.is_enclave
    return mounts or (out is not None and not recipients)


def make_job(
    data: tuple[tuple[str, str], ...],
    out: tuple[str, str] | None,
    recipients: tuple[Recipient, ...],
    interval: float,
    workload: tuple[str, ...],
    identity: Identity | None,
    identity_path: Path | None,
    attach: str,
    enclave: Path | None,
    signer: Signer | None,
) -> Job:
    """Return the job that the options describe.

    Raises:
        UsageError: They contradict each other.
    """
    paths = [path for _, path in data] + ([out[1]] if out else [])
    for number, path in enumerate(paths):
        for other in paths[number + 1 :]:
            if os.path.commonpath([path, other]) in {path, other}:
                raise UsageError(f"{path} and {other} lie in one another", "give each a path of its own")
    mounts = []
    for uri, path in data:
        address, version = split_version(uri)
        mounts.append(DataMount(normalize(address), version, path))
    output = None
    if out is not None:
        readers = recipients or ((identity.recipient,) if identity else ())
        output = Output(normalize(reject_version(out[0])), out[1], tuple(map(str, readers)), interval)
    return Job(
        tuple(mounts),
        output,
        workload,
        identity=identity_path.absolute() if identity_path and data else None,
        preload=attach == "preload" and bool(data),
        enclave=enclave.absolute() if enclave else None,
        signer=str(signer) if signer else None,
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
