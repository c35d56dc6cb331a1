"""`sealfs mount`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from sealfs.ciphertext import how_to_open
from sealfs.cli.common import SizeParameter, note, open_dataset
from sealfs.cli.evidence import Own, keys_here, own_keys, reading_options
from sealfs.dataset.version import split_version
from sealfs.errors import MountError
from sealfs.keys import Signer
from sealfs.opening import CacheSettings
from sealfs.store.address import open_store
from sealfs.terminal import LineFormatter
from sealfs.xdg import cache_directory, state_directory

_GIB = 1 << 30
_MIB = 1 << 20


@click.command(context_settings={"ignore_unknown_options": False})
@click.argument("uri")
@click.argument("mountpoint", type=click.Path())
@click.argument("workload", nargs=-1, metavar="[-- COMMAND...]")
@click.option("--ciphertext", is_flag=True, help="Mount the objects themselves, without any key.")
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground until unmounted.")
@click.option("--allow-other", is_flag=True, help="Let other users of this machine look in.")
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path),
    help="Where ciphertext is cached [default: $XDG_CACHE_HOME/sealfs; only for distant stores].",
)
@click.option("--cache-size", type=SizeParameter(), default=10 * _GIB,
              help="Ciphertext kept on disk; 0 keeps it in memory [default: 10G].")  # fmt: skip
@click.option("--cache-memory", type=SizeParameter(), default=256 * _MIB,
              help="What is kept in memory: decrypted segments, small files [default: 256M].")  # fmt: skip
@click.option("--deadline", type=click.FloatRange(min=1), default=60.0, show_default=True,
              help="Seconds for which a store that is away is tried again before reads fail.")  # fmt: skip
@reading_options
def command(
    uri: str,
    mountpoint: str,
    workload: tuple[str, ...],
    ciphertext: bool,
    foreground: bool,
    allow_other: bool,
    cache_dir: Path | None,
    cache_size: int,
    cache_memory: int,
    deadline: float,
    broker: str | None,
    signer: Signer | None,
    identity_path: Path | None,
) -> NoReturn:
    """Mount the dataset at URI[@VERSION] on the empty folder MOUNTPOINT, read-only.

    Returns when the mount is there and leaves a process behind that serves it; 'sealfs umount' ends it. With
    '-- COMMAND' the mount lasts as long as the command, whose exit code is passed on.

    The kernel of this machine sees plaintext: mount where you trust it (your own machine, a TDX or SEV-SNP guest).

    Nothing that does not authenticate is ever served. A file of up to 8 MiB is authenticated whole before its
    first byte is; and the first damage found anywhere poisons the mount: every read fails from then on, the log
    and 'sealfs status' say what it was, and a COMMAND is killed (exit code 5), so that no training goes on with
    a part of its data.

    If the keys are at a broker, and your identity is no recipient, they are released to whatever evidence there is
    of this machine, or refused with what the dataset's policy demands.

    With --ciphertext the dataset's objects are mounted instead of its files: ranges of them are fetched when they
    are read, no key is used, and the folder is a store of its own that holds this one version. That is how an
    enclave gets at the data through a host that is not trusted.
    """
    own = None if ciphertext else own_keys(identity_path)
    cache = CacheSettings(
        directory=(cache_dir or cache_directory()).absolute() if cache_size else None,  # survives chdir
        disk_size=cache_size,
        memory_size=cache_memory,
        deadline=deadline,
    )
    target = os.path.realpath(mountpoint)

    def serve(ready: Callable[[], None]) -> int:
        return _serve(uri, target, own, broker, signer, allow_other, cache, workload, ready)

    if foreground or workload:
        code = serve(lambda: note(f"{uri} is mounted on {mountpoint}"))
    else:
        code = _in_background(serve, target)
    _leave(code)


def _serve(
    uri: str,
    mountpoint: str,
    own: Own | None,
    broker: str | None,
    signer: Signer | None,
    allow_other: bool,
    cache: CacheSettings,
    workload: tuple[str, ...],
    ready: Callable[[], None],
) -> int:
    from sealfs.mount.daemon import MountOptions, MountProcess  # noqa: PLC0415 - loads libfuse

    address, version = split_version(uri)
    dataset = open_dataset(open_store(address), version, signer)
    keys = keys_here([dataset], own, broker).keys(dataset) if own is not None else None
    return MountProcess(
        dataset, how_to_open(dataset, keys, cache), mountpoint, MountOptions(allow_other, workload)
    ).serve(ready)


def _in_background(serve: Callable[[Callable[[], None]], int], mountpoint: str) -> int:
    """Run `serve` in a process of its own, and return when it is ready or pass on how it failed."""
    listen, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        with open(listen, "rb") as pipe:
            if pipe.read(1):
                return 0
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if code <= 0:
            raise MountError("the mount process died before the mount was there", "try again with --foreground")
        sys.exit(code)  # it has said why
    os.close(listen)
    os.setsid()

    def ready() -> None:
        _detach(mountpoint)
        os.write(tell, b"1")
        os.close(tell)

    return serve(ready)


def _leave(code: int) -> NoReturn:
    """End the process now: a request that still hangs at a dead store must not hold up who unmounted."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _detach(mountpoint: str) -> None:
    """Let go of the terminal; what the process has to say from now on goes to a log file."""
    folder = state_directory() / "log"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / (mountpoint.strip("/").replace("/", "-") + ".log")
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.chdir("/")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
