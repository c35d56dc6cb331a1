"""`sealfs run`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from sealfs.cli.common import (
    Command,
    RecipientParameter,
    SignerParameter,
    SizeParameter,
    identity_option,
    note,
    open_dataset,
    open_identity,
    reject_version,
    single_writer_option,
)
from sealfs.cli.evidence import hint_option, keys_here, own_keys
from sealfs.dataset.dataset import Dataset
from sealfs.enclave.keysource import HandedKeys, IdentityKeys, PresharedKeys, RunnerSecret
from sealfs.enclave.measure import manifest_digest
from sealfs.errors import KeyAccessError, UsageError
from sealfs.executors.base import Executor, Job, KeyKind, find_executor
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

_KEYS_FROM_HOST = "Its keys come from this host, by standard input: nothing is confidential from it."


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


def _check_name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    del context, parameter
    if (value is not None and not re.fullmatch(r"[^/\0]{1,200}", value)) or value in (".", ".."):
        raise click.BadParameter("is not the name of a file, without folders")
    return value


def job_options(command: Command) -> Command:
    """Add the options that say what a run reads and writes, and where it runs."""
    for option in (
        click.option("--cache-memory", type=SizeParameter(), metavar="SIZE",
                     help="Decrypted data that is kept in memory: of each dataset, in each process "
                     "[default: 256M; in an enclave 64M]."),
        click.option("--out-interval", type=click.FloatRange(min=0.1), default=DEFAULT_INTERVAL, show_default=True,
                     metavar="SECONDS", help="How often results are sealed; a crash loses no more than that."),
        click.option("--out-log", metavar="NAME", callback=_check_name,
                     help="In an enclave: write what COMMAND prints to this file among the results, instead of "
                     "showing it to the host. L5 demands it."),
        click.option("--out-recipient", "recipients", multiple=True, type=RecipientParameter(),
                     help="Who can open the results: recipient strings or .pub files [default: you]."),
        click.option("--out", type=OutputParameter(), metavar="URI:/PATH",
                     help="Where results are sealed to, and where COMMAND writes them."),
        click.option("--test-keys", type=click.Path(path_type=Path), metavar="FILE",
                     help="Open the data with pre-shared keys instead of an identity: for tests only."),
        hint_option,
        click.option("--keys", "keys_from", type=click.Choice(["identity", "attested", "runner"]),
                     default="identity", show_default=True, help="What opens the data in an enclave: your "
                     "identity, handed to it; or keys that brokers release to its evidence, or, for rehearsals, to "
                     "a runner's word."),
        click.option("--signer", "signers", multiple=True, type=PlacedSignerParameter(), metavar="[/PATH=]KEY",
                     help="The provider's signer string or .pub file, of the data at PATH or of all: whom to "
                     "believe at first use. Repeatable."),
        click.option("--data", "data", multiple=True, type=DataParameter(), metavar="URI[@VERSION]:/PATH",
                     help="A dataset, and where COMMAND sees it. Repeatable."),
        click.option("--executor", default="native", show_default=True, metavar="NAME",
                     help="native, gramine-direct, gramine-sgx, occlum, scone, or one that a package added."),
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
@click.option("--runner", type=click.Path(path_type=Path), metavar="FILE",
              help="With --keys runner: the identity of the enrolled runner that starts the enclave.")  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Only print what would run.")
@single_writer_option
@identity_option
def command(
    workload: tuple[str, ...],
    executor: str,
    attach: str,
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
    enclave: Path | None,
    runner: Path | None,
    dry_run: bool,
    single_writer: bool,
    identity_path: Path | None,
) -> int:
    """Run COMMAND on sealed data, and seal what it writes.

    DATA

    COMMAND finds each dataset at the PATH given with it, an empty folder, as ordinary read-only files. It need not
    know anything of this. VERSION is a number, or sha256:DIGEST as 'sealfs stat' prints it; none means the newest.
    Without --signer, the signer of a dataset is believed as with every other verb: at first use, and then for good.

    RESULTS

    What COMMAND writes below the path given with --out is in memory only. It leaves as a new sealed dataset: at an
    interval, and when COMMAND ends, however it ends. 'sealfs ls' and 'sealfs pull' read it. Each run signs with a
    key of its own and prints its signer, so each needs an address of its own. If results cannot be sealed in the
    end the run fails, whatever COMMAND's exit code, and says where they are.

    KEYS

    The identity opens the data. If it has a passphrase, that is asked for at the terminal, or read from the file
    named by $SEALFS_PASSPHRASE_FILE. Keys reach the launcher by a descriptor, and COMMAND not at all.

    A dataset whose keys are at a broker opens with your identity if you are its recipient, and else with whatever
    evidence there is of this machine or enclave; the broker decides, and a refusal says why.

    EXECUTORS

    \b
    native          This machine: whoever controls it can see the plaintext.
    gramine-direct  Gramine without SGX: a trial, as visible as native.
    gramine-sgx     Gramine in SGX. Never run on hardware by this project.
    occlum, scone   Other enclaves. Their files are generated, never run.

    Those with an enclave need a folder that 'sealfs measure' has filled for the same options and COMMAND. A package
    can add more, as entry points in the group sealfs.executors.

    SIGNALS AND EXIT CODES

    SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 are passed on to COMMAND and its children. Its output
    streams through. The exit code is COMMAND's own, or 128 + N if signal N ended it. If data turns out to be
    damaged COMMAND is killed, nothing more is sealed, and the exit code is 5 (--attach fuse) or 85 (in the
    process). The other codes are those of 'sealfs --help'.

    EXAMPLES

    \b
    sealfs run --data s3://bucket/scans:/data -- python train.py /data
    sealfs run --data s3://a/eyes@3:/eyes --signer /eyes=clinic.pub \\
               --data s3://b/labels:/labels --signer /labels=lab.pub \\
               --out s3://bucket/model:/out --out-interval 60 \\
               -- python train.py /eyes /labels --save /out
    sealfs run --dry-run --executor gramine-sgx --enclave ./enclave \\
               --data s3://bucket/scans:/data -- python train.py /data
    """
    chosen = find_executor(executor)
    if chosen.is_enclave and attach == "fuse":
        raise UsageError("there is no FUSE in an enclave", "leave out --attach")
    own: IdentityKeys | None = None
    if out is not None and not recipients:
        own = IdentityKeys(open_identity(identity_path))
        recipients = (own.recipient,)
    output = make_output(out, recipients, out_interval, out_log, chosen)
    kind: KeyKind = "test-keys" if test_keys else keys_from
    job = make_job(data, signers, output, workload, kind, broker, attach, enclave)
    job = replace(job, cache_memory=cache_memory)
    if dry_run:
        _print(job, chosen)
        return 0

    from sealfs.running import Run  # noqa: PLC0415 - loads all that a mount needs

    def opened(mount: DataMount) -> Dataset:
        return open_dataset(open_store(mount.address), mount.version, mount.signer)

    keys: HandedKeys | RunnerSecret | None = None
    if test_keys is not None:
        keys = PresharedKeys.read(test_keys)
    elif data and kind == "runner":
        keys = runner_secret(runner, enclave)
    elif data and not chosen.is_enclave:
        keys = _keys_here(job, own, identity_path, opened)
        job = replace(job, keys="identity" if isinstance(keys, IdentityKeys) else "test-keys", broker=None)
    elif data and kind == "identity":
        keys = own or IdentityKeys(open_identity(identity_path))
    warning = f"{chosen.notice} {_KEYS_FROM_HOST}" if chosen.is_enclave and keys is not None else chosen.notice
    click.echo(click.style(f"sealfs: {warning}", fg="yellow", bold=True), err=True)
    return Run(job, chosen, opened, keys, note, single_writer=single_writer).run()


def runner_secret(runner: Path | None, enclave: Path | None) -> RunnerSecret:
    """Return what a runner hands to the rehearsal that it starts: itself, and what it knows that it starts.

    Raises:
        UsageError: Not both are named.
        KeyAccessError: The runner's identity can't be used.
        ExecutorError: Nothing was measured there.
    """
    if runner is None or enclave is None:
        raise UsageError(
            "a runner's word is for rehearsals in an enclave's folder", "name both: --runner FILE --enclave DIR"
        )
    return RunnerSecret(open_identity(runner), manifest_digest(enclave))


def _keys_here(
    job: Job, own: IdentityKeys | None, identity_path: Path | None, opened: Callable[[DataMount], Dataset]
) -> HandedKeys:
    """Return what opens the data on this machine itself; an identity that nothing else is needed for, as it is."""
    identity = own or own_keys(identity_path)
    if job.keys == "attested":
        identity = KeyAccessError("there is no broker to ask", "its provider names one with: sealfs push --broker")
    with ExitStack() as stack:
        datasets = [opened(data) for data in job.datasets]
        for dataset in datasets:
            stack.callback(dataset.store.close)
        return keys_here(datasets, identity, job.broker)


def make_output(
    out: tuple[str, str] | None,
    recipients: Sequence[Recipient],
    interval: float,
    log: str | None,
    executor: Executor,
) -> Output | None:
    """Return where the options say that results go, if there are any.

    Raises:
        UsageError: What is printed cannot go there.
    """
    if log is not None and (out is None or not executor.is_enclave):
        raise UsageError(
            "--out-log is for the results of an enclave", "natively: sh -c 'COMMAND >/out/log 2>&1', with --out"
        )
    return Output(*out, tuple(map(str, recipients)), interval, log) if out else None


def make_job(
    data: tuple[DataMount, ...],
    signers: Sequence[tuple[str | None, Signer]],
    output: Output | None,
    workload: tuple[str, ...],
    keys: KeyKind,
    broker: str | None,
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
        keys=keys,
        broker=broker,
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
