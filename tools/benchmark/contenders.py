"""The columns: everything that shows the same files, each in its own way."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from servers import Server

from benchmark.common import BIG, SMALL_SIZE, VESSELS, AbsentError, BenchError, Size
from benchmark.epoch import EpochTimer
from benchmark.processes import deepen_read_ahead, end, is_mounted, mounted, run, start
from benchmark.rows import EPOCH, Row
from sealfs.enclave.attach import LIBRARY
from sealfs.opening import CacheSettings

BUCKET = "bench"
TMPFS = Path("/dev/shm")
WORKER = Path(__file__).with_name("worker.py")


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

    def below(self) -> Path | None:
        """Return the folder of what this contender itself reads, if it is here."""
        return self.work

    def rate(self, row: Row, number: int) -> float | None:
        """Mount, measure a row once, unmount; None if this contender can't take part in it."""
        if row.remote or (row.needs_listing and not self.lists):
            return None
        with self.mounted() as folder:
            return row.measure(folder, number)

    def close(self) -> None:  # noqa: B027 (most leave nothing behind)
        """Remove what lies outside of the working folder."""


class FromServer(Contender):
    """One that can take its ciphertext from an S3 server, too."""

    @abstractmethod
    def seal_to(self, server: Server, plain: Path, paths: Sequence[Path]) -> None:
        """Take in some of the plain files there."""

    @abstractmethod
    def mounted_from_server(self) -> contextlib.AbstractContextManager[Path]:
        """Mount that, with nothing cached."""

    def rate(self, row: Row, number: int) -> float | None:
        """See `Contender`."""
        if not row.remote:
            return super().rate(row, number)
        with self.mounted_from_server() as folder:
            return row.measure(folder, number)


class Plain(Contender):
    """The folder itself."""

    name = "plain folder"

    def below(self) -> Path:
        """See `Contender`."""
        return self.folder

    def rate(self, row: Row, number: int) -> float | None:
        """See `Contender`; the files themselves stand for what a server could give, too."""
        return row.measure(self.folder, number)

    def seal(self, plain: Path) -> None:
        """Keep where it is."""
        self.folder = plain

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Nothing to do."""
        yield self.folder


class Sealfs(FromServer):
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


class InProcess(Contender):
    """This project's reader inside the process that reads (runtime/), on what `Sealfs` has sealed."""

    name = "in-process"

    def __init__(self, work: Path, sealed: Sealfs, size: Size) -> None:
        if not LIBRARY.exists():
            raise AbsentError("sealfs was installed without its library for enclaves (needs make, gcc, libssl-dev)")
        super().__init__(work)
        self.sealed = sealed
        self.folder.mkdir()
        self.size = size

    def below(self) -> Path:
        """See `Contender`."""
        return self.sealed.work

    def seal(self, plain: Path) -> None:
        """The store is there already."""
        self.plain = plain

    def mounted(self) -> contextlib.AbstractContextManager[Path]:
        """See `rate`."""
        raise NotImplementedError("there is no mount that this process could see")

    def start(self, command: Sequence[object], **options: Any) -> subprocess.Popen[bytes]:
        """Start a program that has the dataset attached."""
        launch = [sys.executable, "-m", "sealfs.enclave.launch", "--data", f"{self.sealed.uri}:{self.folder}"]
        with (self.sealed.work / "config" / "sealfs" / "identity").open() as identity:
            number = identity.fileno()
            launch += ["--identity-fd", str(number), "--cache-memory", str(CacheSettings().memory_size), "--"]
            return start([*launch, *command], pass_fds=[number], env=self.sealed.env, **options)

    def rate(self, row: Row, number: int) -> float | None:
        """Measure in a process of its own: nothing has been read there yet."""
        if row.remote:
            return None
        if row.key == EPOCH:
            with contextlib.closing(EpochTimer(self.start)) as epoch:
                epoch(self.plain / VESSELS)  # the first one also sets up the framework
                return epoch(self.folder / VESSELS)
        process = self.start(
            [WORKER, self.folder, row.key, number, json.dumps(vars(self.size))], stdout=subprocess.PIPE
        )
        try:
            out, _ = process.communicate(timeout=300)
        finally:
            end(process)
        if process.returncode:
            raise BenchError(f"measuring {row.key} in-process failed")
        return float(out)


class Memory(Contender):
    """The plain files in a tmpfs."""

    name = "tmpfs"

    def __init__(self, work: Path) -> None:
        if not is_mounted(TMPFS):
            raise AbsentError(f"there is no {TMPFS}")
        super().__init__(work)
        self.folder = Path(tempfile.mkdtemp("", "sealfs-bench-", TMPFS))

    def below(self) -> Path:
        """See `Contender`."""
        return self.folder

    def seal(self, plain: Path) -> None:
        """Copy all into it."""
        needed = sum(file.stat().st_size for file in plain.rglob("*") if file.is_file())
        if shutil.disk_usage(TMPFS).free < needed * 5 // 4:
            raise AbsentError(f"{TMPFS} is too small")
        copy(plain, self.folder)

    @contextlib.contextmanager
    def mounted(self) -> Iterator[Path]:
        """Nothing to do."""
        yield self.folder

    def close(self) -> None:
        """Free the memory."""
        shutil.rmtree(self.folder, ignore_errors=True)


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


class Rclone(FromServer):
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
        run([compiler, "-O2", "-o", self.program, Path(__file__).with_name("zeros.c")])
        self.big = 0

    def below(self) -> None:
        """Nothing lies below."""

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
