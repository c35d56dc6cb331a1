"""`sealfs`: finds the verb, runs it, and turns every error into one line and an exit code."""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Mapping
from typing import ClassVar, NoReturn, TextIO

import click

from sealfs import __version__
from sealfs.cli.lazy import LazyGroup, Verb
from sealfs.errors import LocalIOError, SealfsError
from sealfs.terminal import LineFormatter, escaped

_SUMMARIES = {
    "keygen": "Make an identity and print its public recipient string.",
    "push": "Seal a folder as a new snapshot.",
    "ls": "List what is in a dataset.",
    "cat": "Write a file of a dataset to standard output.",
    "stat": "Describe a dataset or a path in it.",
    "pull": "Write a dataset, or a part of it, to a local folder.",
    "verify": "Check that the store still holds what was signed.",
    "log": "List a dataset's versions.",
    "diff": "Show what changed between two versions.",
    "gc": "Delete objects that no version needs.",
    "grant": "Let somebody else open a dataset.",
    "revoke": "Keep somebody from opening what is pushed from now on.",
    "rotate": "Start a new key epoch.",
    "trust": "Show or change whose signature is believed at an address.",
    "mount": "Mount a dataset as a read-only folder.",
    "run": "Run a command on sealed data, natively or in an enclave.",
    "task": "Agree with others on one use of everybody's data, and run it.",
    "measure": "Make an enclave's files for a command, and print its measurement.",
    "lint": "Say what in an enclave's manifest lets the host in.",
    "policy": "Show what a policy demands, or explain its verdict on evidence.",
    "broker": "Run a key broker: keys only for what has proven itself.",
    "umount": "Unmount, and return when it is really gone.",
    "fetch": "Copy a version's objects to a folder, without any key.",
    "warm": "Fetch a dataset's ciphertext into the cache ahead of time.",
    "status": "Show what is mounted and how it does.",
    "doctor": "Check this machine, a key and a store, and say what to do.",
    "completion": "Print the shell completion script.",
}

_BROKEN_PIPE = 141  # as a shell sees a program that SIGPIPE ended
_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}

_EPILOG = """\b
Exit codes:
   0  done                        6  signature, pin or rollback refused
   1  internal error              7  store unreachable or refused
   2  wrong usage                 8  somebody else pushed meanwhile
   3  no such dataset or path     9  local file or disk problem
   4  no usable key              10  mount problem
   5  data does not authenticate 11  written by a newer sealfs
 130  interrupted                12  no place to run it: tool or file missing
  13  key broker not reachable     14  not proven what a policy demands
  15  a contract does not allow it
  85  run: the workload's in-process reader found data that does not authenticate
\b
Three steps:
  sealfs keygen
  sealfs push ./scans s3://bucket/scans
  sealfs mount s3://bucket/scans /data/scans
"""


class VerbGroup(LazyGroup):
    """All verbs."""

    verbs: ClassVar[Mapping[str, Verb]] = {
        name: Verb(summary, f"{name}_cmd") for name, summary in _SUMMARIES.items()
    }

    def invoke(self, ctx: click.Context) -> object:
        """See click, which ends with 1 when the reader of our output goes away; that is no internal error."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _give_up(sys.stdout)
            raise click.exceptions.Exit(_BROKEN_PIPE) from None


@click.group(cls=VerbGroup, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="sealfs %(version)s")
@click.option("-v", "--verbose", is_flag=True, help="Say more about what is going on.")
def cli(verbose: bool) -> None:
    """Train on data you are not allowed to see.

    A data provider seals a folder into an object store, which then holds ciphertext only. Whoever holds a key
    reads it as ordinary files. URI is s3://BUCKET/PREFIX, file:///FOLDER or a plain path; URI@VERSION names an
    older version. 'sealfs VERB --help' tells more.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter("sealfs: %(message)s"))
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler], force=True)


def _give_up(stream: TextIO) -> None:
    """Let what is still to be written to a stream go nowhere: at its end the interpreter would fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _fail(message: str, code: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except OSError:
        _give_up(sys.stdout)
    try:
        click.echo(click.style("sealfs: ", fg="red", bold=True) + escaped(message), err=True)
    except OSError:  # the exit code says it as well
        _give_up(sys.stderr)
    sys.exit(code)


def _show_help(error: click.exceptions.NoArgsIsHelpError) -> NoReturn:
    """Tell whoever named no verb which there are."""
    try:
        error.show()
    except OSError:  # as in `_fail`
        _give_up(sys.stderr)
    sys.exit(error.exit_code)


def _fail_internally(error: Exception) -> NoReturn:
    if os.environ.get("SEALFS_DEBUG"):
        traceback.print_exc()
    _fail(f"internal error: {type(error).__name__}: {error}; SEALFS_DEBUG=1 shows where, please report it", 1)


def main() -> NoReturn:
    """Run the command line and exit."""
    try:
        code = cli.main(standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        _show_help(error)
    except click.UsageError as error:
        help_hint = f"; '{error.ctx.command_path} --help' tells more" if error.ctx else ""
        _fail(error.format_message() + help_hint, 2)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except SealfsError as error:
        _fail(error.message + (f"; {error.hint}" if error.hint else ""), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted", 130)
    except BrokenPipeError:
        _give_up(sys.stdout)
        sys.exit(_BROKEN_PIPE)
    except OSError as error:
        if error.errno not in _UNWRITABLE:  # of all other files who has them open says what is wrong
            _fail_internally(error)
        hint = "make room, or write it elsewhere"
        _fail(f"cannot write to standard output: {error.strerror}; {hint}", LocalIOError.exit_code)
    except Exception as error:
        _fail_internally(error)
