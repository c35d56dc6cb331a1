"""The rows: everything that is measured."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmark.common import BIG, FOLDERS, MIB, SMALL, VESSELS, BenchError, Size
from benchmark.data import small_paths
from benchmark.epoch import EpochTimer
from benchmark.reading import read_at_random, read_files, read_through, read_whole

EPOCH = "paddle_epoch"


@dataclass(frozen=True)
class Row:
    """One thing that is measured; more is better.

    Attributes:
        key: In the JSON.
        title: In the table.
        unit: Of what `measure` returns, after division by `scale`.
        measure: Called with a freshly mounted folder and the number of the round.
        needs_listing: Whether directories are listed.
        remote: Whether the ciphertext comes from the S3 server.
    """

    key: str
    title: str
    unit: str
    scale: float
    measure: Callable[[Path, int], float]
    needs_listing: bool = True
    remote: bool = False


def make_rows(size: Size, epoch: EpochTimer | None, *, remote: bool) -> list[Row]:
    """Return what is measured."""
    paths = small_paths(size)

    def warm_sequential(folder: Path, _: int) -> float:
        read_through(folder / BIG)
        return max(read_through(folder / BIG) for _ in range(2))

    def shuffled(folder: Path, number: int) -> float:
        order = [str(folder / path) for path in paths]
        random.Random(number).shuffle(order)
        return read_files(order)

    def again(folder: Path, number: int) -> float:  # so few that any cache holds them
        order = [str(folder / path) for path in paths if int(path.parent.name) < FOLDERS // 2]
        read_files(order)
        random.Random(number).shuffle(order)
        return max(read_files(order) for _ in range(2))

    def in_order(folder: Path, _: int) -> float:
        began = time.perf_counter()
        listed = [entry.path for sub in os.scandir(folder / SMALL) for entry in os.scandir(sub.path)]
        took = time.perf_counter() - began
        return 1 / (took / len(listed) + 1 / read_files(listed))

    def find(*test: str) -> Callable[[Path, int], float]:
        def measure(folder: Path, _: int) -> float:
            began = time.perf_counter()
            found = subprocess.run(["find", folder / SMALL, "-type", "f", *test], capture_output=True, check=True)
            took = time.perf_counter() - began
            if found.stdout.count(b"\n") != size.small:
                raise BenchError(f"find in {folder} missed files")
            return size.small / took

        return measure

    def some_shuffled(folder: Path, number: int) -> float:
        return read_files(
            random.Random(number).sample([str(folder / path) for path in paths[: size.remote]], size.remote)
        )

    def big_cold(folder: Path, _: int) -> float:
        return read_through(folder / BIG)

    def big_whole(folder: Path, _: int) -> float:
        return read_whole(folder / BIG)

    def big_random(folder: Path, number: int) -> float:
        return read_at_random(folder / BIG, size.random_reads, number)

    mib, small = f"{size.big // MIB} MiB", f"{size.small:,}"
    rows = [
        Row("sequential_cold", f"read {mib}, cold", "GB/s", 1e9, big_cold, needs_listing=False),
        Row("sequential_warm", f"read {mib}, warm", "GB/s", 1e9, warm_sequential, needs_listing=False),
        Row("whole_cold", f"read {mib} whole, cold", "GB/s", 1e9, big_whole, needs_listing=False),
        Row("random_4k", "random 4 KiB, cold", "k/s", 1e3, big_random, needs_listing=False),
        Row("small_shuffled", f"{small} files, shuffled", "k/s", 1e3, shuffled, needs_listing=False),
        Row("small_again", f"{size.small // 2:,} files, again", "k/s", 1e3, again, needs_listing=False),
        Row("small_listed", f"{small} files, as listed", "k/s", 1e3, in_order),
        Row("find", "find: names", "k/s", 1e3, find()),
        Row("find_stat", "find -size: stat", "k/s", 1e3, find("-size", "+1k")),
    ]
    if remote:
        rows += [
            Row("s3_sequential", f"S3: read {mib}", "GB/s", 1e9, big_cold, remote=True),
            Row("s3_small", f"S3: {size.remote:,} files, shuffled", "k/s", 1e3, some_shuffled, remote=True),
        ]
    if epoch is not None:
        rows.append(Row(EPOCH, "a Paddle epoch", "images/s", 1, lambda folder, _: epoch(folder / VESSELS)))
    return rows
