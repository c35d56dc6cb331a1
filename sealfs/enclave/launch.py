"""What runs first in an enclave: gets the keys, attaches datasets, and becomes the user's program.

    python -m sealfs.enclave.launch --identity-fd 3 --data URI@VERSION:/path [...] -- train.py ARGS 3<identity

A Python script runs in this same interpreter as `__main__`; anything else is exec'd. Both see the datasets as
ordinary folders, and so do their children. With `--out` a script's results are sealed by this same process: for
enclaves, where nobody else may see them. Secrets come by inherited descriptors: never in the environment or the
arguments, where other processes could read them.

Whatever is told here in arguments an enclave's measurement covers: versions, signers and recipients belong here.

Threading: one thread, until the user's program runs.
"""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NoReturn

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.attach import LIBRARY, Settings, attach_dataset, is_preloaded
from sealfs.enclave.defaults import apply_defaults
from sealfs.enclave.keysource import IdentityKeys, KeySource, PresharedKeys, read_secret
from sealfs.enclave.printing import print_to, say
from sealfs.enclave.shellouts import answer_shell_outs
from sealfs.errors import LocalIOError, MountError, SealfsError, UsageError
from sealfs.keys import Signer, parse_identity
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Attach and become the program; ends the process with the error's exit code if that fails."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parse(arguments)
        datasets, output = _placed(options)
        if datasets and not is_preloaded():
            preload_and_restart(arguments, _secrets(options), os.environ)
        apply_defaults()
        source = _key_source(options) if datasets else None
        if source is not None:
            attach_all(datasets, source, Settings(options.cache_memory, real_files=options.real_files))
        if output is not None:
            _run_with_results(options.program, output, source)
            return
    except SealfsError as error:
        sys.exit(_told(error))
    except OSError as error:
        sys.exit(_told(LocalIOError(f"cannot start: {error.strerror}")))
    _become(options.program)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sealfs.enclave.launch", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data", action="append", default=[], metavar="URI[@VERSION]:/path", help="what to attach, and where")
    add("--signer", action="append", default=[], metavar="[/path=]KEY", help="whom to believe, at all paths or one")
    add(
        "--identity-fd", type=int, metavar="N", help="descriptor to read an identity from, which opens the datasets"
    )
    add("--passphrase-fd", type=int, metavar="N", help="descriptor to read its passphrase from, if it is locked")
    add("--keys-fd", type=int, metavar="N", help="descriptor to read pre-shared keys from: no identity")
    add("--attested", action="store_true", help="have the datasets' brokers release the keys, for evidence")
    add(
        "--runner-fd",
        type=int,
        metavar="N",
        help="the same, with a runner's signature for evidence: what it signs with",
    )
    add("--broker", metavar="OWNER@URL", help="the broker, if not the one that each snapshot names")
    add("--out", metavar="URI:/path", help="where a script's results are sealed to, and where it writes them")
    add("--out-recipient", action="append", default=[], metavar="STRING", help="who can open them")
    add(
        "--out-log",
        metavar="NAME",
        help="a file among the results for what the script prints, and nobody else sees",
    )
    add("--out-interval", type=float, default=DEFAULT_INTERVAL, metavar="SECONDS", help="between two snapshots")
    add("--cache-memory", type=int, default=0, metavar="BYTES", help="decrypted bytes to keep of each dataset")
    add("--real-files", action="store_true", help="always give out files of the kernel")
    add("program", nargs=argparse.REMAINDER, help="-- script.py or program, and its arguments")
    options = parser.parse_args(arguments)
    if options.program[:1] == ["--"]:
        del options.program[0]
    if not options.program:
        parser.error("which program?")
    if options.out_log is not None and options.out is None:
        parser.error("--out-log is a file among the results: where is --out?")
    sources = [options.identity_fd is not None, options.keys_fd is not None, options.runner_fd is not None]
    if options.data and [*sources, options.attested].count(True) != 1:
        parser.error("keys come from one of --identity-fd, --keys-fd, --attested or --runner-fd")
    return options


def _placed(options: argparse.Namespace) -> tuple[Sequence[DataMount], Output | None]:
    signers = [(path, Signer.parse(text)) for path, text in map(split_path, options.signer)]
    datasets = with_signers([DataMount.parse(text) for text in options.data], signers)
    output = None
    if options.out is not None:
        uri, path = parse_placed(options.out)
        output = Output(normalize(uri), path, tuple(options.out_recipient), options.out_interval, options.out_log)
        if not is_script(options.program):
            raise UsageError(
                f"'{options.program[0]}' can have no results here", "only a Python script can: SCRIPT.py ..."
            )
    check_apart([data.path for data in datasets] + ([output.path] if output else []))
    return datasets, output


def preload_and_restart(
    arguments: Sequence[str], descriptors: Sequence[int], environment: Mapping[str, str]
) -> NoReturn:
    """Start this interpreter and module anew with the reader's library before libc.

    Args:
        arguments: The module's own.
        descriptors: What it is to inherit.
        environment: All of its variables; the library's are put in.

    Raises:
        MountError: The library is not there, or is not loaded here.
    """
    if not LIBRARY.exists():
        raise MountError(
            f"{LIBRARY.name} has not been built", "install a C compiler and OpenSSL's headers, then sealfs again"
        )
    others = environment.get("LD_PRELOAD", "")
    if str(LIBRARY) in os.environ.get("LD_PRELOAD", "").split(":"):
        raise MountError("the dynamic loader ignores LD_PRELOAD here", "is Python a static or a setuid program?")
    changed = {**environment, "LD_PRELOAD": f"{LIBRARY}:{others}" if others else str(LIBRARY)}
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1 : _own_options()], *arguments], changed)  # noqa: S606


def _secrets(options: argparse.Namespace) -> list[int]:
    """Return the descriptors that secrets come by."""
    given = (options.identity_fd, options.passphrase_fd, options.keys_fd, options.runner_fd)
    return [descriptor for descriptor in given if descriptor is not None]


def _own_options() -> int:
    """Return how many of `sys.orig_argv` are the interpreter's: up to and with `-m sealfs.enclave.launch`."""
    return len(sys.orig_argv) - (len(sys.argv) - 1)


def _key_source(options: argparse.Namespace) -> KeySource:
    """Return where this launch's keys come from: one place, and nothing to fall back on."""
    if options.keys_fd is not None:
        return PresharedKeys.parse(read_secret(options.keys_fd), f"what descriptor {options.keys_fd} gives")
    if options.attested or options.runner_fd is not None:
        from sealfs.enclave.attested import keys_for_evidence  # noqa: PLC0415 - loads what talks to a broker

        return keys_for_evidence(None if options.attested else read_secret(options.runner_fd), options.broker)
    text = read_secret(options.identity_fd)
    passphrase = None if options.passphrase_fd is None else read_secret(options.passphrase_fd).rstrip("\n")
    return IdentityKeys(parse_identity(text, f"what descriptor {options.identity_fd} gives", passphrase))


def attach_all(datasets: Sequence[DataMount], source: KeySource, settings: Settings) -> None:
    """Verify datasets and serve them at their paths, made if missing.

    Raises:
        SealfsError: One is not there, not to be believed, not to be opened, or its path is unfit.
    """
    trust = TrustStore()
    for data in datasets:
        with closing(open_store(data.address)) as store:
            dataset = Dataset.open(store, trust, version=data.version, signer=data.signer)
            if dataset.first_use and data.signer is None:
                say(f"first use of {store.uri}: from now on only snapshots signed by "
                     f"{dataset.newest.signer} are believed")  # fmt: skip
            try:
                os.makedirs(data.path, exist_ok=True)
            except OSError as error:
                raise LocalIOError(
                    f"cannot make {data.path}: {error.strerror}", "choose another path for the data"
                ) from None
            attach_dataset(data.path, dataset, source.keys(dataset), settings)


def is_script(program: Sequence[str]) -> bool:
    """Whether a program is run by this interpreter: a `.py` file, or any that is not executable by itself."""
    return program[0].endswith(".py") or (os.path.isfile(program[0]) and not os.access(program[0], os.X_OK))


def _run_with_results(program: list[str], output: Output, source: KeySource | None) -> None:
    from sealfs.enclave.results import sealed_results  # noqa: PLC0415 - loads all that a push needs

    with sealed_results(output, source.proven if source is not None else None) as signer:
        say(f"results are signed by {signer}")
        if output.log is None:
            _run_script(program)
        else:
            _run_logged(program, Path(output.path) / output.log)


def _run_logged(program: list[str], log: Path) -> None:
    """Run a script and write what it prints to a file, to the last traceback; it is sealed with the results.

    Raises:
        SystemExit: As the script; what the interpreter would print about it is in the file.
    """
    try:
        print_to(log)
    except OSError as error:
        sys.exit(_told(LocalIOError(f"cannot write {log}: {error.strerror}", "name another with --out-log")))
    try:
        _run_script(program)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            raise
        print(end.code, file=sys.stderr)  # as the interpreter does, but before the last snapshot
        sys.exit(1)


def _become(program: list[str]) -> None:
    """Run the user's program: a script in this interpreter, anything else in its place."""
    if is_script(program):
        _run_script(program)
        return
    if shutil.which(program[0]) is None:
        sys.exit(_told(UsageError(f"there is no program '{program[0]}'", "check its name and PATH")))
    sys.stdout.flush()
    os.execvp(program[0], program)  # noqa: S606 - that is what was asked for


def _run_script(program: list[str]) -> None:
    answer_shell_outs()
    sys.argv = program
    sys.path[0] = str(Path(program[0]).resolve().parent)
    runpy.run_path(program[0], run_name="__main__")


def _told(error: SealfsError) -> int:
    say(error.message + (f" ({error.hint})" if error.hint else ""))
    return error.exit_code


if __name__ == "__main__":
    main()
