"""What runs first in an enclave: gets the keys, attaches datasets, and becomes the user's program.

    python -m sealfs.enclave.launch --identity-fd 3 --data URI:/path [--data ...] -- train.py ARGS 3<identity

A Python script runs in this same interpreter as `__main__`; anything else is exec'd. Both see the datasets as
ordinary folders, and so do their children. The identity comes by an inherited descriptor: never in the
environment or the arguments, where other processes could read it.
"""

from __future__ import annotations

import argparse
import os
import runpy
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.attach import LIBRARY, Settings, attach_dataset, is_preloaded
from sealfs.enclave.defaults import apply_defaults
from sealfs.enclave.shellouts import answer_shell_outs
from sealfs.errors import KeyAccessError, LocalIOError, MountError, SealfsError, UsageError
from sealfs.keys import Identity, Signer, parse_identity
from sealfs.store.address import open_store

_MAX_IDENTITY = 64 << 10


@dataclass(frozen=True, slots=True)
class Source:
    """An address and the path at which it is seen."""

    uri: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Source:
        """Read `URI:/path`.

        Raises:
            UsageError: It is not of that form.
        """
        uri, colon, path = text.rpartition(":/")
        if not colon or not uri or path.startswith("/"):
            raise UsageError(f"'{text}' is not URI:/path", "write for example --data /store/eyes:/data")
        return cls(uri, "/" + path)


def _preload_and_restart(arguments: Sequence[str]) -> NoReturn:
    if not LIBRARY.exists():
        raise MountError(
            f"{LIBRARY.name} has not been built", "install a C compiler and OpenSSL's headers, then sealfs again"
        )
    environment = dict(os.environ)
    others = environment.get("LD_PRELOAD", "")
    if str(LIBRARY) in others.split(":"):
        raise MountError("the dynamic loader ignores LD_PRELOAD here", "is Python a static or a setuid program?")
    environment["LD_PRELOAD"] = f"{LIBRARY}:{others}" if others else str(LIBRARY)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1 : _own_options()], *arguments], environment)  # noqa: S606


def _own_options() -> int:
    """Return how many of `sys.orig_argv` are the interpreter's: up to and with `-m sealfs.enclave.launch`."""
    return len(sys.orig_argv) - (len(sys.argv) - 1)


def _read_identity(descriptor: int) -> Identity:
    try:
        with os.fdopen(descriptor, "rb") as file:
            text = file.read(_MAX_IDENTITY).decode("ascii", "replace")
    except OSError as error:
        raise KeyAccessError(f"cannot read descriptor {descriptor}: {error.strerror}") from None
    return parse_identity(text, f"what descriptor {descriptor} gives")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sealfs.enclave.launch", description=__doc__)
    parser.add_argument(
        "--data", action="append", default=[], metavar="URI:/path", help="what to attach, and where"
    )
    parser.add_argument("--identity-fd", type=int, required=True, metavar="N", help="descriptor to read it from")
    parser.add_argument("--signer", help="whom to believe when a dataset is seen for the first time")
    parser.add_argument("--cache", type=int, default=0, metavar="BYTES", help="decrypted bytes to keep in memory")
    parser.add_argument("--real-files", action="store_true", help="always give out files of the kernel")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="-- script.py or program, and its arguments")
    options = parser.parse_args(arguments)
    if options.program[:1] == ["--"]:
        del options.program[0]
    if not options.program:
        parser.error("which program?")
    return options


def _attach_all(options: argparse.Namespace) -> None:
    identity = _read_identity(options.identity_fd)
    signer = Signer.parse(options.signer) if options.signer else None
    settings = Settings(cache_size=options.cache, real_files=options.real_files)
    for source in [Source.parse(text) for text in options.data]:
        store = open_store(source.uri)
        dataset = Dataset.open(store, TrustStore(), signer=signer)
        try:
            os.makedirs(source.path, exist_ok=True)
        except OSError as error:
            raise LocalIOError(f"cannot make {source.path}: {error.strerror}") from None
        attach_dataset(source.path, dataset, dataset.keys(identity), settings)
        store.close()


def _become(program: list[str]) -> None:
    """Run the user's program: a script in this interpreter, anything else in its place."""
    first = Path(program[0])
    apply_defaults()
    if first.suffix == ".py" or (first.is_file() and not os.access(first, os.X_OK)):
        answer_shell_outs()
        sys.argv = program
        sys.path[0] = str(first.resolve().parent)
        runpy.run_path(program[0], run_name="__main__")
        return
    if shutil.which(program[0]) is None:
        raise UsageError(f"there is no program '{program[0]}'")
    sys.stdout.flush()
    os.execvp(program[0], program)  # noqa: S606 - that is what was asked for


def main(arguments: Sequence[str] | None = None) -> None:
    """Attach and become the program; ends the process with the error's exit code if that fails."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parse(arguments)
    try:
        if not is_preloaded():
            os.set_inheritable(options.identity_fd, True)
            _preload_and_restart(arguments)
        _attach_all(options)
    except SealfsError as error:
        sys.exit(_told(error))
    except OSError as error:
        sys.exit(_told(LocalIOError(f"cannot start: {error.strerror}")))
    _become(options.program)


def _told(error: SealfsError) -> int:
    print(f"sealfs: {error.message}" + (f" ({error.hint})" if error.hint else ""), file=sys.stderr)
    return error.exit_code


if __name__ == "__main__":
    main()
