"""What all parts of the benchmark speak of: sizes, names of files, errors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "bench-output"
MIB = 1 << 20
SEGMENT = 64 << 10
BIG, SMALL, VESSELS = "big.bin", "small", "vessels"
SMALL_SIZE, FOLDERS = 10_000, 10
RANDOM_SIZE = 4096
console = Console(stderr=True, highlight=False)


class BenchError(Exception):
    """Something that has to work does not."""


class AbsentError(Exception):
    """A contender is not here; the message says why."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    big: int
    small: int
    images: int
    random_reads: int
    remote: int
    rounds: int


FULL = Size(big=512 * MIB, small=10_000, images=120, random_reads=2000, remote=500, rounds=3)
QUICK = Size(big=64 * MIB, small=1_000, images=12, random_reads=1000, remote=200, rounds=2)
