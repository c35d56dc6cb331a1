"""What came out: ratios, JSON, the table."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from benchmark.common import SEGMENT, Size
from benchmark.contenders import InProcess, Memory, Plain, Sealfs, Zeros
from benchmark.gramine import GramineRates
from benchmark.rows import EPOCH, Row, make_rows

PLAIN, OURS, LIMIT, INSIDE, MEMORY = Plain.name, Sealfs.name, Zeros.name, InProcess.name, Memory.name


@dataclass(frozen=True)
class Target:
    """What is asked of reading in-process: so many times the rate of another contender in a row."""

    row: str
    to: str
    at_least: float


GRAMINE_TARGETS = {
    "sequential_cold": 15,
    "random_4k": 3,
    "small_again": 15,
}  # random: of the file just read through


@dataclass(frozen=True)
class GramineRatio:
    """A row under gramine-direct: what sealfs and an encrypted mount did a second, the ratio, and what is asked."""

    row: str
    sealfs: float
    encrypted: float
    ratio: float
    at_least: float


@dataclass
class Results:
    """What was measured.

    Attributes:
        cipher: The library that decrypts in-process.
        rates: By row and contender, one number per round.
        gramine: What was measured under gramine-direct, each round of it.
    """

    size: Size
    rows: list[Row]
    contenders: list[str]
    limits: dict[str, float]
    left_out: dict[str, str]
    cipher: str
    rates: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    gramine: list[GramineRates] = field(default_factory=list)

    def ratio(self, row: str, of: str, to: str) -> float | None:
        """Return the median over the rounds of one contender's rate by another's."""
        pairs = zip(self.rates[row].get(of, ()), self.rates[row].get(to, ()), strict=False)
        ratios = [one / other for one, other in pairs]
        return statistics.median(ratios) if ratios else None

    def best_peer(self, row: str) -> tuple[str, float] | None:
        """Return the peer that is fastest in a row, and how many times as fast as it sealfs is."""
        peers = [name for name in self.contenders if name not in {PLAIN, OURS, LIMIT, INSIDE, MEMORY}]
        found = [(name, ratio) for name in peers if (ratio := self.ratio(row, OURS, name)) is not None]
        return min(found, key=lambda pair: pair[1]) if found else None

    def reached(self) -> list[tuple[Target, float]]:
        """Return how fast in-process reading is beside what is asked of it."""
        of_plain = 0.7 if self.cipher == "ipsec-mb" else 0.4
        asked = (
            Target("sequential_cold", OURS, 1.5),
            Target("small_shuffled", OURS, 10),
            Target("small_again", MEMORY, 0.5),
            Target("sequential_cold", PLAIN, of_plain),
            Target("whole_cold", PLAIN, of_plain),
            Target(EPOCH, PLAIN, 0.95),
        )
        found = [
            (target, self.ratio(target.row, INSIDE, target.to)) for target in asked if target.row in self.rates
        ]
        return [(target, ratio) for target, ratio in found if ratio is not None]

    def gramine_reached(self) -> list[GramineRatio]:
        """Return how fast sealfs is under gramine-direct beside Gramine's encrypted mounts: medians of ratios."""
        return [
            GramineRatio(
                row,
                statistics.median(rates[row]["sealfs"] for rates in self.gramine),
                statistics.median(rates[row]["encrypted"] for rates in self.gramine),
                statistics.median(rates[row]["sealfs"] / rates[row]["encrypted"] for rates in self.gramine),
                at_least,
            )
            for row, at_least in GRAMINE_TARGETS.items()
            if self.gramine
        ]

    def as_json(self) -> dict[str, Any]:
        """Return everything."""
        rows = []
        for row in self.rows:
            peer = self.best_peer(row.key)
            rows.append(
                {
                    "key": row.key,
                    "title": row.title,
                    "unit": row.unit,
                    "contenders": {
                        name: {
                            "rounds": [rate / row.scale for rate in rates],
                            "median": statistics.median(rates) / row.scale,
                            "to_plain": self.ratio(row.key, name, PLAIN),
                        }
                        for name, rates in self.rates[row.key].items()
                    },
                    "best_peer": peer and {"name": peer[0], "sealfs_is_times": peer[1]},
                    "to_fuse_limit": self.ratio(row.key, OURS, LIMIT),
                }
            )
        return {
            "machine": {
                "cpu": cpu_name(),
                "cores": os.cpu_count(),
                "kernel": platform.release(),
                "python": platform.python_version(),
            },
            "size": vars(self.size),
            "limits_bytes_per_second": self.limits,
            "cipher": self.cipher,
            "left_out": self.left_out,
            "in_process_targets": [
                {"row": target.row, "to": target.to, "at_least": target.at_least, "ratio": ratio}
                for target, ratio in self.reached()
            ],
            "gramine": {
                "rounds": self.gramine,
                "targets": [
                    vars(found) | {"reached": found.ratio >= found.at_least} for found in self.gramine_reached()
                ],
            },
            "rows": rows,
        }


def cpu_name() -> str:
    """Return what the processor calls itself."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def table_of(results: Results) -> Table:
    """Return the table for people."""
    table = Table(
        box=box.SIMPLE_HEAD, title="rates (and ratios to the plain folder), medians of interleaved rounds"
    )
    table.add_column("")
    for name in results.contenders:
        table.add_column(name, justify="right", style="bold" if name == OURS else "")
    table.add_column("sealfs to the\nbest peer", justify="right")
    table.add_column("sealfs to the\nFUSE limit", justify="right")
    for row in results.rows:
        cells = []
        for name in results.contenders:
            rates = results.rates[row.key].get(name)
            ratio = results.ratio(row.key, name, PLAIN)
            cells.append(f"{statistics.median(rates) / row.scale:.3g} ({ratio:.2f})" if rates and ratio else "–")
        peer, limit = results.best_peer(row.key), results.ratio(row.key, OURS, LIMIT)
        lead = "–" if peer is None else f"[{'green' if peer[1] >= 1 else 'red'}]{peer[1]:.2f}× {peer[0]}[/]"
        table.add_row(
            f"{row.title} [{row.unit}]".replace("[", "\\["), *cells, lead, f"{limit:.0%}" if limit else "–"
        )
    return table


def limits_text(results: Results) -> str:
    """Say how far from the physical limits a cold sequential read is."""
    limits = dict(results.limits)
    ours = statistics.median(results.rates["sequential_cold"][OURS])
    words = [
        f"AES-256-GCM in {SEGMENT >> 10} KiB pieces {limits['aes_256_gcm'] / 1e9:.1f} GB/s",
        f"memcpy {limits['memcpy'] / 1e9:.1f} GB/s",
    ]
    inverse = 1 / limits["aes_256_gcm"]
    if LIMIT in results.rates["sequential_cold"]:
        fuse = statistics.median(results.rates["sequential_cold"][LIMIT])
        words.append(f"do-nothing FUSE {fuse / 1e9:.2f} GB/s")
        inverse += 1 / fuse
    text = f"Limits of this run, one core each: {', '.join(words)}."
    if LIMIT in results.rates["sequential_cold"]:
        text += (
            f" FUSE and AES one after the other allow {1 / inverse / 1e9:.2f} GB/s;"
            f" sealfs's cold sequential read reaches {ours * inverse:.0%} of it."
        )
    return text


def targets_text(results: Results) -> str:
    """Say how in-process reading does against what is asked of it, and against its own limit."""
    lines = [f"In-process, with {results.cipher}:"]
    for target, ratio in results.reached():
        title = next(row.title for row in results.rows if row.key == target.row)
        color = "green" if ratio >= target.at_least else "red"
        lines.append(f"  {title}: [{color}]{ratio:.2f}×[/] {target.to}, of which {target.at_least}× is asked")
    rates = results.rates.get("sequential_cold", {})
    if INSIDE in rates and PLAIN in rates:
        copy, ours = statistics.median(rates[PLAIN]), statistics.median(rates[INSIDE])
        allowed = 1 / (1 / copy + 1 / results.limits["aes_256_gcm"])
        lines.append(
            f"  One core that copies ciphertext ({copy / 1e9:.1f} GB/s) and decrypts it with OpenSSL has at most"
            f" {allowed / 1e9:.2f} GB/s; a cold sequential read, by {results.cipher} and all cores, is"
            f" {ours / allowed:.1f} times as fast."
        )
    return "\n".join(lines)


def gramine_table(results: Results) -> Table:
    """Return the table of what was measured under gramine-direct."""
    table = Table(box=box.SIMPLE_HEAD, title="under gramine-direct, medians of rounds of one process each")
    table.add_column("")
    for name in ("sealfs", "encrypted mount", "ratio", "asked", "reached"):
        table.add_column(name, justify="right")
    rows = {row.key: row for row in make_rows(results.size, None, remote=False)}
    for found in results.gramine_reached():
        row = rows[found.row]
        rates = (f"{rate / row.scale:.3g}" for rate in (found.sealfs, found.encrypted))
        reached = "[green]yes[/]" if found.ratio >= found.at_least else "[red]no[/]"
        title = f"{row.title.removesuffix(', cold') if found.row == 'random_4k' else row.title} \\[{row.unit}]"
        table.add_row(title, *rates, f"{found.ratio:.1f}", f"{found.at_least}", reached)
    return table
