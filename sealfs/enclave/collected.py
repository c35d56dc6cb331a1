"""What a workload really loads: found by running it once under strace, kept with the hash of every file.

strace sees what any other way misses: data files of libraries, what a child process loads, what is loaded and
closed again. The list is what an enclave trusts, so it holds files, never folders: thousands of them, where whole
folders would be tens of thousands.

Threading: stateless.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from sealfs.errors import ExecutorError, LocalIOError

FILE_NAME = "collected.json"
_FORMAT = 3
_HASH_STEP = 1 << 20

# Of the machine or the moment, not of the workload; Gramine and Occlum have their own.
_NEVER = ("/proc/*", "/sys/*", "/dev/*", "/run/*", "/etc/ld.so.cache", "/etc/resolv.conf")
_CALL = re.compile(
    r"(?P<call>open|openat|execve)\((?:AT_FDCWD<(?P<cwd>[^>]*)>, |\d+<(?P<folder>[^>]*)>, )?"
    r'"(?P<path>(?:[^"\\]|\\.)*)"'
    r"(?P<rest>.*?)\) = \d+(?:<(?P<real>[^>]*)>)?"
)
_WRITING = re.compile(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_DIRECTORY|O_PATH")
COMPILED = re.compile(r"(/.*/)__pycache__/([^/]+)(\.cpython-\d+(?:\.opt-\d)?\.pyc)")


@dataclass(frozen=True, slots=True, order=True)
class LoadedFile:
    """A file that the workload loads.

    Attributes:
        path: Absolute, as the workload asked for it.
        sha256: Of its content, in hex.
    """

    path: str
    sha256: str

    @property
    def folder(self) -> str:
        """Where it lies."""
        return str(PurePosixPath(self.path).parent)


@dataclass(frozen=True, slots=True)
class Collected:
    """All that the measurement of an enclave depends on, but for the job.

    Attributes:
        files: What is loaded, sorted.
        python: The interpreter.
        python_path: What PYTHONPATH was.
        library_path: Where the interpreter's own libraries are.
        start_dir: Where the workload was started.
        threads: For OpenMP.
        enclave_size: Memory of the enclave, such as 16G.
        compiled: Copies of compiled modules among them (compiled.py); their paths begin at the enclave's folder.
    """

    files: tuple[LoadedFile, ...]
    python: str
    python_path: str
    library_path: str
    start_dir: str
    threads: int
    enclave_size: str
    compiled: tuple[LoadedFile, ...] = ()

    @classmethod
    def here(cls, paths: Iterable[str], threads: int, enclave_size: str) -> Collected:
        """Return what this interpreter, here, would load: `paths`, hashed now."""
        return cls(
            files=tuple(hashed(paths)),
            python=sys.executable,
            python_path=os.environ.get("PYTHONPATH", ""),
            library_path=sysconfig.get_config_var("LIBDIR") or "/usr/lib",
            start_dir=os.getcwd(),
            threads=threads,
            enclave_size=enclave_size,
        )

    def save(self, folder: Path) -> None:
        """Write it to an enclave's folder.

        Raises:
            LocalIOError: That is not possible.
        """
        try:
            (folder / FILE_NAME).write_text(json.dumps({"format": _FORMAT, **asdict(self)}, indent=1) + "\n")
        except OSError as error:
            raise LocalIOError(f"cannot write {folder / FILE_NAME}: {error.strerror}") from None

    @classmethod
    def load(cls, folder: Path) -> Collected:
        """Read it from an enclave's folder.

        Raises:
            ExecutorError: It is not there, or is something else.
        """
        hint = "run 'sealfs measure' first, with the same options and the same command"
        try:
            document = json.loads((folder / FILE_NAME).read_text())
            if document.pop("format") != _FORMAT:
                raise ValueError
            files, compiled = (
                tuple(LoadedFile(**file) for file in document.pop(kind)) for kind in ("files", "compiled")
            )
            return cls(files=files, compiled=compiled, **document)
        except FileNotFoundError:
            raise ExecutorError(f"{folder} has no {FILE_NAME}", hint) from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExecutorError(f"{folder / FILE_NAME} cannot be used: {error}", hint) from None

    def changed(self, enclave: Path) -> list[str]:
        """Return the files, copies in the enclave's folder among them, that are not what they were when collected.

        Raises:
            LocalIOError: One can't be read any more.
        """
        known = {file.path: file.sha256 for file in self.files}
        known |= {str(enclave / file.path): file.sha256 for file in self.compiled}
        return [file.path for file in hashed(known) if known[file.path] != file.sha256]


def collect(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    excludes: Sequence[str] = (),
) -> tuple[int, set[str]]:
    """Run a command to its end under strace.

    Args:
        command: What to run.
        environment: Added to ours.
        excludes: Globs of absolute paths that the enclave gets in another way, such as data and results.

    Returns:
        Its exit code, and the paths of regular files that it or its children read and did not write.

    Raises:
        ExecutorError: There is no strace, or it may not trace here.
    """
    if shutil.which("strace") is None:
        raise ExecutorError("strace is not installed", "on Debian and Ubuntu: apt-get install strace")
    with tempfile.TemporaryDirectory(prefix="sealfs-trace-") as folder:
        traced = ["strace", "-ff", "-qq", "-z", "-y", "-s", "4096", "-e", "trace=open,openat,execve"]
        for name, value in (environment or {}).items():
            traced += ["-E", f"{name}={value}"]  # for the command only, not for strace
        ended = subprocess.run(
            [*traced, "-o", f"{folder}/trace", "--", *command],
            check=False,
            stdout=2,  # what a trial run says is no output of ours
        )
        traces = sorted(Path(folder).iterdir())
        if not any(trace.stat().st_size for trace in traces):
            raise ExecutorError(
                "strace could not trace the command", "in a container it needs --cap-add SYS_PTRACE"
            )
        paths: set[str] = set()
        written: set[str] = set()
        for trace in traces:
            _read_trace(trace, paths, written)
    wanted = {path for path in paths - written if not _matches(path, (*_NEVER, *excludes))}
    return ended.returncode, {path for path in _with_sources(wanted) if os.path.isfile(path)}


def _matches(path: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(path, glob) for glob in globs)


def _read_trace(trace: Path, paths: set[str], written: set[str]) -> None:
    """Add what one process read and wrote, under the names it used and the real ones."""
    with trace.open(encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            match = _CALL.match(line)
            if match is None:
                continue
            asked = os.path.normpath(
                os.path.join(match["cwd"] or match["folder"] or "/", _unescaped(match["path"]))
            )
            names = {asked, os.path.realpath(asked), match["real"] or asked}
            (written if _WRITING.search(match["rest"]) and match["call"] != "execve" else paths).update(names)


def _unescaped(text: str) -> str:
    """Undo strace's way of writing bytes."""
    raw = text.encode("utf-8", "surrogateescape").decode("unicode_escape").encode("latin-1", "replace")
    return os.fsdecode(raw) if "\\" in text else text


def _with_sources(paths: Iterable[str]) -> Iterator[str]:
    """Yield paths, and the sources of compiled modules: tracebacks and `inspect` read them."""
    for path in paths:
        yield path
        source = source_of(path)
        if source is not None:
            yield source


def source_of(path: str) -> str | None:
    """Return the source of a compiled module in a `__pycache__`; None for other files."""
    match = COMPILED.fullmatch(path)
    return match and f"{match[1]}{match[2]}.py"


def hashed(paths: Iterable[str]) -> Iterator[LoadedFile]:
    """Yield files with their hashes, in the order of their names.

    Raises:
        LocalIOError: One can't be read, or has a name that no manifest can hold.
    """
    for path in sorted(set(paths)):
        if not path.isprintable() or "{{" in path or "{%" in path:
            raise LocalIOError(f"{path!r} is no name for a manifest", "rename it, or leave it out with --exclude")
        digest = hashlib.sha256()
        try:
            with open(path, "rb") as file:
                while chunk := file.read(_HASH_STEP):
                    digest.update(chunk)
        except OSError as error:
            raise LocalIOError(f"cannot read {path}: {error.strerror}", "leave it out with --exclude") from None
        yield LoadedFile(path, digest.hexdigest())
