"""Reads a Gramine manifest as an attacker would: every line that lets the host in, with the reason.

Levels: an `error` gives the host plaintext or control; a `warning` is a weakness or a known trap; a `note` is
what one should know although it is meant to be so.

Threading: stateless.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, takewhile
from pathlib import PurePosixPath
from typing import Any, Literal

from sealfs.dataset.version import split_version
from sealfs.errors import UsageError
from sealfs.placement import parse_placed

Level = Literal["note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("note", "warning", "error")

# The folders of an enclave through which ciphertext comes and goes; everything read there is authenticated.
CIPHERTEXT_URIS = ("file:ciphertext/", "file:results/")
_CIPHERTEXT_PATHS = (
    "/ciphertext",
    "/results",
)  # where they are seen inside, and nothing is looked for but ciphertext

PLAIN_OUTPUT = "standard output and error"

_INSECURE = {
    "insecure__use_cmdline_argv": "whoever starts the enclave chooses its arguments: 'python -c ...' is a shell "
    "inside it, and the measurement does not change",
    "insecure__use_host_env": "whoever starts the enclave chooses its environment: LD_PRELOAD, PYTHONPATH and "
    "PYTHONSTARTUP run code inside it",
    "insecure__disable_aslr": "memory lies at known addresses, which makes every memory error easier to exploit",
    "insecure__allow_eventfd": "eventfd is emulated by the host, which can lose, invent and reorder events",
    "insecure__keys": "the keys of encrypted files are written in the manifest, which is public",
    "insecure__rpc_thread_num": "threads outside of the enclave serve its calls through shared memory "
    "(INTEL-SA-00657, INTEL-SA-00615)",
    "insecure__protected_files_key": "the key of protected files is written in the manifest, which is public",
}
_LAUNCHER = "sealfs.enclave.launch"
_CONTRACTS = ("-m", "sealfs.tasks.inside", "--from", *_CIPHERTEXT_PATHS)
_REHEARSED = ("--runner-fd", "0")
_HOST_KEYS = {
    "--identity-fd": "the identity that opens the data comes from the host, which can open it as well",
    "--keys-fd": "the keys that open the data come from the host, in the clear: for tests only",
    "--runner-fd": "the keys are released on the word of a runner, who is the host: for rehearsals only",
}
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|PASSPHRASE|PRIVATE|ACCESS_KEY|API_KEY", re.IGNORECASE)
_RUNTIME = re.compile(r"gramine\.runtimedir|/gramine/runtime/")
_KEY_FILE = re.compile(r"identity|\.pem$|test[-_]keys|\.key$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something to think about.

    Attributes:
        line: Where, from 1; 0 if it is about something that is not there.
        level: How bad it is.
        what: The key or the value.
        why: What it lets the host do.
    """

    line: int
    level: Level
    what: str
    why: str


def lint(text: str) -> list[Finding]:
    """Return what is to be said about a manifest, in the order of its lines.

    Args:
        text: TOML, as `sealfs measure` or `gramine-manifest` rendered it.

    Raises:
        UsageError: It is no TOML; a template has to be rendered first.
    """
    try:
        manifest = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"this is no manifest: {error}",
            "a template has to be rendered first, by 'sealfs measure' or gramine-manifest",
        ) from None
    return sorted(set(_Linter(text, manifest).findings()))


def worst(findings: list[Finding]) -> Level | None:
    """Return the highest level among findings."""
    return max((finding.level for finding in findings), key=LEVELS.index, default=None)


class _Linter:
    def __init__(self, text: str, manifest: Mapping[str, Any]) -> None:
        self._lines = text.splitlines()
        self._manifest = manifest

    def findings(self) -> Iterator[Finding]:
        """Yield them in no order."""
        yield from self._insecure(self._manifest)
        yield from self._environment()
        yield from self._launcher()
        yield from self._files()
        yield from self._mounts()
        yield from self._ways_to_code()
        yield from self._switches()

    def _get(self, path: str, default: Any = None) -> Any:
        value: Any = self._manifest
        for name in path.split("."):
            if not isinstance(value, Mapping) or name not in value:
                return default
            value = value[name]
        return value

    def _line(self, *words: str) -> int:
        """Return the first line, comments apart, that has all these words; 0 if none has."""
        for number, line in enumerate(self._lines, 1):
            code = line.split(" #", 1)[0]
            if not code.lstrip().startswith("#") and all(word in code for word in words):
                return number
        return 0

    def _finding(self, level: Level, what: str, why: str, *words: str) -> Finding:
        return Finding(self._line(*(words or (what.rpartition(".")[2],))), level, what, why)

    def _insecure(self, table: Mapping[str, Any], prefix: str = "") -> Iterator[Finding]:
        for name, value in table.items():
            if name.startswith("insecure__") and value not in (False, 0, {}, []):
                why = _INSECURE.get(name, "Gramine itself calls it insecure")
                yield self._finding("error", f"{prefix}{name}", why)
            elif isinstance(value, Mapping):
                yield from self._insecure(value, f"{prefix}{name}.")

    def _environment(self) -> Iterator[Finding]:
        for name, value in self._get("loader.env", {}).items():
            if isinstance(value, Mapping) and value.get("passthrough"):
                why = "the host chooses its value, unmeasured"
                if name.startswith(("LD_", "PYTHON")):
                    why = "the host chooses its value, and so what code runs in the enclave"
                yield self._finding("error", f"loader.env.{name}", why)
            elif _SECRET_NAME.search(name):
                yield self._finding(
                    "error",
                    f"loader.env.{name}",
                    "a manifest is measured, not secret: everybody can read this value",
                )
        for name in ("argv_src_file", "env_src_file"):
            uri = self._get(f"loader.{name}")
            if uri is not None and uri not in self._trusted():
                yield self._finding("error", f"loader.{name}", f"{uri} is no trusted file: the host writes it")

    def _launcher_words(self) -> list[str]:
        """Return the launcher's own arguments; none if something else is started."""
        argv = [str(word) for word in self._get("loader.argv", [])]
        if argv[1:3] != ["-m", _LAUNCHER]:
            return []
        words = takewhile(lambda word: word != "--", argv[3:])
        return [part for word in words for part in (word.split("=", 1) if word.startswith("--") else [word])]

    def _carries_out(self, *words: str) -> bool:
        """Whether it is started for contracts, with these words besides."""
        return tuple(self._get("loader.argv", []))[1:] == (*_CONTRACTS, *words)

    def _carries_out_contracts(self) -> bool:
        return self._carries_out() or self._carries_out(*_REHEARSED)

    def _launcher(self) -> Iterator[Finding]:
        """Look at what the launcher is told: where keys come from, and which datasets it takes."""
        argv = self._launcher_words() or (list(_REHEARSED) if self._carries_out(*_REHEARSED) else [])
        for option, value in pairwise(argv):
            if option in _HOST_KEYS:
                yield self._finding("warning", option, _HOST_KEYS[option], f'"{option}"')
            if option == "--data":
                yield from self._version(value, attested="--attested" in argv)

    def _version(self, data: str, *, attested: bool) -> Iterator[Finding]:
        uri, path = parse_placed(data)
        version = split_version(uri)[1]
        if attested:
            why = f"which of its provider's datasets is at {path}, and which version, their broker decides"
            yield self._finding("note", data, why, f'"{data}"')
            return
        if version is None:
            why = f"the host chooses which of its provider's datasets and versions is at {path}"
        elif isinstance(version, int):
            why = f"the host may put version {version} of another of its provider's datasets at {path}"
        else:
            return
        pin = "pin it with URI@sha256:DIGEST, which 'sealfs stat URI@VERSION' prints"
        yield self._finding("warning", data, f"{why}: {pin}", f'"{data}"')

    def _trusted(self) -> list[str]:
        entries = self._get("sgx.trusted_files", [])
        return [entry["uri"] if isinstance(entry, Mapping) else entry for entry in entries]

    def _files(self) -> Iterator[Finding]:
        trusted, allowed = self._trusted(), self._get("sgx.allowed_files", [])
        for uri in allowed:
            if _is_ciphertext(uri):
                why = "ciphertext goes through here, unprotected by Gramine, authenticated by sealfs"
                yield self._finding("note", uri, why, uri)
                continue
            yield self._finding(
                "error", uri, "the host can read what is written there, and change what is read there", uri
            )
            code = [other for other in trusted if _covers(uri, other)]
            if code:
                why = f"allowed although {len(code)} trusted files lie there, {code[0]} for one"
                yield self._finding("error", uri, why, uri)
        for uri in trusted:
            if uri.endswith("/") and not _RUNTIME.search(uri):
                yield self._finding(
                    "warning",
                    uri,
                    "a whole folder: whatever lies there when it is signed is trusted, and tens of thousands of "
                    "files never start; 'sealfs measure' lists what is loaded",
                    uri,
                )
            if _KEY_FILE.search(PurePosixPath(uri).name) and "site-packages" not in uri:
                yield self._finding(
                    "error",
                    uri,
                    "looks like a key that lies on the host: fit for trials, it makes nothing confidential",
                    uri,
                )
        policy = self._get("sgx.file_check_policy", "strict")
        if policy != "strict":
            yield self._finding(
                "error", "sgx.file_check_policy", f"'{policy}' lets the host add and change any file"
            )

    def _mounts(self) -> Iterator[Finding]:
        root = self._get("fs.root")
        if not isinstance(root, Mapping) or root.get("type", "chroot") == "chroot":
            why = "the root is a folder of the host (Gramine's default: where it was started), not memory"
            yield self._finding("warning", "fs.root", why, "fs.root")
        for mount in self._get("fs.mounts", []):
            path, uri, kind = mount.get("path", ""), mount.get("uri", ""), mount.get("type", "chroot")
            if kind == "untrusted_shm":
                yield self._finding(
                    "error", f"{path} ({kind})", "memory that the host reads and writes", path, kind
                )
            if kind == "encrypted":
                why = "does not notice a file that was rolled back, and 20 times slower than sealfs"
                yield self._finding("warning", f"{path} ({kind})", why, f'"{path}"', kind)
            if uri.startswith("dev:"):
                yield self._finding(
                    "warning", uri, "a device of the host: what comes from it is the host's choice", uri
                )
            if kind == "chroot" and path == "/":
                yield self._finding(
                    "warning", "/", "all of the host's names are visible in the enclave", f'"{path}"', uri
                )

    def _seen_at(self) -> Iterator[tuple[str, str]]:
        """Yield each folder that the host may write to, and where it is seen inside."""
        root = self._get("fs.root", {})
        mounts = [{"path": "/", "uri": "file:.", **(root if isinstance(root, Mapping) else {})}]
        for mount in (*mounts, *self._get("fs.mounts", [])):
            kind, path, name = mount.get("type", "chroot"), mount.get("path", ""), mount.get("uri", "")
            if kind != "chroot" or not name.startswith("file:"):
                continue
            top = PurePosixPath(posixpath.normpath(name.removeprefix("file:")))
            for uri in filter(_is_ciphertext, self._get("sgx.allowed_files", [])):
                folder = PurePosixPath(posixpath.normpath(uri.removeprefix("file:")))
                if folder.is_relative_to(top):
                    yield name, posixpath.normpath(posixpath.join(path, folder.relative_to(top)))
                elif top.is_relative_to(folder):
                    yield name, posixpath.normpath(path)

    def _ways_to_code(self) -> Iterator[Finding]:
        """Look for what would take a file that the host writes for code: nothing there is measured."""
        for uri, place in self._seen_at():
            if not _lies_in(place, _CIPHERTEXT_PATHS):
                why = f"the host writes what is seen at {place}, where more than ciphertext may be looked for"
                yield self._finding("error", f"{place} ({uri})", why, f'"{uri}"')
        places = {place for _, place in self._seen_at()}
        start = str(self._get("fs.start_dir", "/"))

        def leads(path: str, what: str, *words: str) -> Iterator[Finding]:
            if _lies_in(posixpath.join(start, path), places):
                why = "leads to where the host writes: what is loaded from there is not measured"
                yield self._finding("error", what, why, *words)

        yield from leads("", "fs.start_dir", "fs.start_dir")
        for name, given in self._get("loader.env", {}).items():
            value = given.get("value") if isinstance(given, Mapping) else given
            for part in value.split(":") if isinstance(value, str) else ():
                yield from leads(part, f"loader.env.{name}", f"env.{name}")
        argv = [str(word) for word in self._get("loader.argv", [])]
        if self._carries_out_contracts():
            return
        words = argv[argv.index("--") :] if self._launcher_words() and "--" in argv else argv
        for word in (str(self._get("libos.entrypoint", "/")), *words):
            yield from leads(word, word, f'"{word}"')

    def _switches(self) -> Iterator[Finding]:
        if self._get("sgx.debug", False):
            yield self._finding("error", "sgx.debug", "a debug enclave's memory can be read by the host")
        if self._get("sgx.profile.enable", "none") not in ("none", False):
            yield self._finding(
                "error", "sgx.profile.enable", "tells the host where the program is, instruction by instruction"
            )
        if self._get("sgx.enable_stats", False):
            yield self._finding("warning", "sgx.enable_stats", "tells the host how often the enclave does what")
        level = self._get("loader.log_level", "error")
        if level not in ("none", "error"):
            yield self._finding(
                "error", "loader.log_level", f"'{level}' writes arguments of system calls where the host reads"
            )
        if self._get("loader.log_file") is not None:
            yield self._finding("error", "loader.log_file", "a plain file on the host")
        if self._get("sgx.remote_attestation", "none") == "none":
            why = "without it nobody can release keys to this enclave, and only it"
            yield self._finding("warning", "sgx.remote_attestation", why)
        if self._get("sgx.allowed_ioctls"):
            yield self._finding("warning", "sgx.allowed_ioctls", "device calls pass through to the host")
        if self._get("sys.enable_sigterm_injection", False):
            why = "the host chooses when the program is told to end; it could also just kill it"
            yield self._finding("note", "sys.enable_sigterm_injection", why)
        if self._get("sys.enable_extra_runtime_domain_names_conf", False):
            why = (
                "the host chooses which address a name stands for, which nobody believes: a broker is known by its "
                "TLS key, or by a certificate authority where its address has no '#sha256:...'"
            )
            yield self._finding("note", "sys.enable_extra_runtime_domain_names_conf", why)
        if "--out-log" not in self._launcher_words() and not self._carries_out_contracts():  # a contract says
            why = "what the program prints, the host reads: losses, names in tracebacks"
            yield self._finding("note", PLAIN_OUTPUT, why, "loader.argv")


def _is_ciphertext(uri: object) -> bool:
    """Whether a file or folder is one through which ciphertext comes and goes, also after its '..'."""
    if not isinstance(uri, str):
        return False
    plain = f"file:{posixpath.normpath(uri.removeprefix('file:'))}/"
    return uri.startswith(CIPHERTEXT_URIS) and plain.startswith(CIPHERTEXT_URIS)


def _lies_in(path: str, folders: Collection[str]) -> bool:
    """Whether an absolute path lies in one of these folders."""
    plain = PurePosixPath("/" + posixpath.normpath(path).lstrip("/"))  # two slashes at the front are kept otherwise
    return any(plain.is_relative_to(folder) for folder in folders)


def _covers(outer: str, inner: str) -> bool:
    return inner == outer or (outer.endswith("/") and inner.startswith(outer))
