"""Measures FLOE segment lengths against each other: the numbers behind docs/adr/0002-segment-length.md.

Each length gets a dataset of its own with the same files. All lengths take turns, round after round, and a round
gives ratios to 64 KiB; the medians of the ratios count. Start it with `tools/bench segments`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmark.common import BIG, MIB, OUTPUT, RANDOM_SIZE, SMALL_SIZE, BenchError, Size, console
from benchmark.contenders import Sealfs
from benchmark.data import make_data, small_paths, warm
from benchmark.processes import handle_signals, raise_priority
from benchmark.reading import read_at_random, read_files, read_through
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.trust import TrustStore
from sealfs.keys import load_identity
from sealfs.opening import open_view
from sealfs.store.local import LocalStore
from sealfs.vfs import View

LENGTHS = [length << 10 for length in (16, 32, 64, 128, 256, 512, 1024)]
REFERENCE = 64 << 10
FULL = Size(big=512 * MIB, small=10_000, images=0, random_reads=4000, remote=0, rounds=5)
QUICK = Size(big=64 * MIB, small=1_000, images=0, random_reads=1000, remote=0, rounds=3)


class Sample:
    """The same files, sealed with one segment length."""

    def __init__(self, work: Path, plain: Path, length: int, size: Size) -> None:
        folder = work / str(length)
        folder.mkdir()
        self._size = size
        self._mount = Sealfs(folder, "--segment-length", f"{length >> 10}K")
        self._mount.seal(plain)
        self._identity = load_identity(folder / "sealfs" / "config" / "sealfs" / "identity")
        self._trust = TrustStore(folder / "trust")

    @contextlib.contextmanager
    def view(self) -> Iterator[View]:
        """Open the reader core, with nothing cached."""
        dataset = Dataset.open(LocalStore(self._mount.uri), self._trust)
        view, _ = open_view(dataset, dataset.keys(self._identity))
        with contextlib.closing(view):
            yield view

    def core_sequential(self, _: int) -> float:
        """Read the big file in pieces of 1 MiB; return bytes per second."""
        out = memoryview(bytearray(MIB))
        with self.view() as view:
            file = view.lookup(BIG.encode())
            began = time.perf_counter()
            for offset in range(0, self._size.big, MIB):
                view.read_into(file, offset, out)
            return self._size.big / (time.perf_counter() - began)

    def core_random(self, number: int) -> float:
        """Read 4 KiB at random places of it; return reads per second."""
        out = memoryview(bytearray(RANDOM_SIZE))
        reads = self._size.random_reads
        pages = random.Random(number).sample(range(self._size.big // RANDOM_SIZE), reads)
        with self.view() as view:
            file = view.lookup(BIG.encode())
            began = time.perf_counter()
            for page in pages:
                view.read_into(file, page * RANDOM_SIZE, out)
            return reads / (time.perf_counter() - began)

    def core_small(self, number: int) -> float:
        """Read the small files in shuffled order; return files per second."""
        out = memoryview(bytearray(SMALL_SIZE))
        names = [bytes(path) for path in small_paths(self._size)]
        random.Random(number).shuffle(names)
        with self.view() as view:
            began = time.perf_counter()
            for name in names:
                if view.read_into(view.lookup(name), 0, out) != SMALL_SIZE:
                    raise BenchError(f"a short read from {name!r}")
            return len(names) / (time.perf_counter() - began)

    def mount_sequential(self, _: int) -> float:
        """Do the same through the mount."""
        with self._mount.mounted() as folder:
            return read_through(folder / BIG)

    def mount_random(self, number: int) -> float:
        """Do the same through the mount."""
        with self._mount.mounted() as folder:
            return read_at_random(folder / BIG, self._size.random_reads, number)

    def mount_small(self, number: int) -> float:
        """Do the same through the mount."""
        paths = [str(self._mount.folder / path) for path in small_paths(self._size)]
        random.Random(number).shuffle(paths)
        with self._mount.mounted():
            return read_files(paths)


@dataclass(frozen=True)
class Row:
    """One thing that is measured; more is better."""

    key: str
    title: str
    unit: str
    scale: float
    measure: Callable[[Sample, int], float]


ROWS = (
    Row("core_sequential", "core: sequential", "GB/s", 1e9, Sample.core_sequential),
    Row("core_random", "core: random 4 KiB", "k/s", 1e3, Sample.core_random),
    Row("core_small", "core: 10 KB files", "k/s", 1e3, Sample.core_small),
    Row("mount_sequential", "mount: sequential", "GB/s", 1e9, Sample.mount_sequential),
    Row("mount_random", "mount: random 4 KiB", "k/s", 1e3, Sample.mount_random),
    Row("mount_small", "mount: 10 KB files", "k/s", 1e3, Sample.mount_small),
)
Rates = dict[str, dict[int, list[float]]]


def measure(stack: contextlib.ExitStack, size: Size) -> Rates:
    """Do the whole run."""
    work = Path(stack.enter_context(tempfile.TemporaryDirectory("", "sealfs-bench-", ignore_cleanup_errors=True)))
    plain = work / "data"
    with console.status("making data"):
        make_data(plain, size)
        samples = {length: Sample(work, plain, length, size) for length in LENGTHS}
        warm(work)
    rates: Rates = {row.key: {length: [] for length in LENGTHS} for row in ROWS}
    with console.status("measuring") as status:
        for number in range(size.rounds):
            for row in ROWS:
                status.update(f"round {number + 1} of {size.rounds}, {row.title}")
                turn = number % len(LENGTHS)
                for length in LENGTHS[turn:] + LENGTHS[:turn]:
                    rates[row.key][length].append(row.measure(samples[length], number))
    return rates


def ratio(rates: dict[int, list[float]], length: int) -> float:
    """Return the median over the rounds of a length's rate by that of 64 KiB."""
    return statistics.median(one / other for one, other in zip(rates[length], rates[REFERENCE], strict=True))


def table_of(rates: Rates) -> Table:
    """Return the table for people."""
    table = Table(box=box.SIMPLE_HEAD, title="ratios to 64 KiB, medians of interleaved rounds; more is better")
    table.add_column("")
    for length in LENGTHS:
        table.add_column(f"{length >> 10} KiB", justify="right")
    table.add_column("64 KiB is", justify="right")
    for row in ROWS:
        of = rates[row.key]
        rate = f"{statistics.median(of[REFERENCE]) / row.scale:.3g} {row.unit}"
        table.add_row(row.title, *(f"{ratio(of, length):.2f}" for length in LENGTHS), rate)
    return table


def main() -> int:
    """Measure, print, and write bench-output/segments.json."""
    parser = argparse.ArgumentParser(prog="tools/bench segments", description="Compare FLOE segment lengths.")
    parser.add_argument("--quick", action="store_true", help="less data, 3 rounds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    args = parser.parse_args()
    handle_signals()
    raise_priority()
    try:
        with contextlib.ExitStack() as stack:
            rates = measure(stack, QUICK if args.quick else FULL)
    except KeyboardInterrupt:
        console.print("interrupted; all is taken down again")
        return 130
    except BenchError as error:
        console.print(f"[red]{escape(str(error))}[/]")
        return 1
    report = {
        row.key: {
            str(length): {
                "rounds": [rate / row.scale for rate in rates[row.key][length]],
                "to_64_kib": ratio(rates[row.key], length),
            }
            for length in LENGTHS
        }
        for row in ROWS
    }
    OUTPUT.mkdir(exist_ok=True)
    (OUTPUT / "segments.json").write_text(json.dumps(report, indent=2) + "\n")
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        Console(highlight=False, width=None if sys.stdout.isatty() else 120).print(table_of(rates))
    return 0


if __name__ == "__main__":
    sys.exit(main())
