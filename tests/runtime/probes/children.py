"""Children: shells, inherited descriptors, posix_spawn, pools of workers."""

# ruff: noqa: E501, UP031 - tables and pieces of programs; files are left open on purpose
from __future__ import annotations

import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

from runtime.probes.cases import SIZES, case, digest


@case
def shells(root: str) -> Any:
    commands = [
        "cat < {0}/bin/small.bin | sha256sum",
        "sha256sum {0}/bin/*.bin",
        "sh -c 'cat < {0}/bin/large.bin' | sha256sum",
        "head -c 100 {0}/bin/large.bin | sha256sum",
        "tail -c 100 {0}/bin/large.bin | sha256sum",
        "wc -c < {0}/bin/large.bin",
        "ls -U {0}",
        "ls -lL --time-style=+%s {0}/bin | tail -n +2 | awk '{{print $1,$5,$6,$7}}'",
        "find {0} -name '*.bin' | sort",
        "cp -r {0}/bin $T/copy && sha256sum < $T/copy/large.bin",
        "tar cf - -C {0} bin | tar tf - | sort",
        "grep -c line {0}/text",
        "(read a; read b; echo $b; cat) < {0}/text | head -5",
        "while read line; do echo $line; done < {0}/text | head -3",
        "cmp {0}/bin/small.bin {0}/link && echo same",
        "stat -c '%s %F %a' {0}/bin/small.bin {0}/link",
        "diff {0}/text {0}/text && echo equal",
        "cat {0}/no",
        "cat {0}",
        "{0}/script",
        "sh {0}/script",
        "test -r {0}/text && echo readable",
        "readlink -f {0}/link",
        "sort {0}/text | head -3",
        "dd if={0}/bin/large.bin bs=1000 skip=3 count=2 2>/dev/null | sha256sum",
        "python3 -c 'print(len(open(\"{0}/text\").read()))' || true",
        "env -i /bin/cat {0}/text | head -1",
        "env -i /bin/sh -c 'cat < {0}/text' | head -1",
        "exec 5< {0}/text; head -c 5 <&5; cat /dev/fd/5 | head -2",
        "cat 7< {0}/text <&7 | head -1",
        "xargs -a {0}/text echo | sha256sum",
        "bash -c 'mapfile -t lines < {0}/text; echo ${{lines[1]}}'",
        "bash -c 'cat <(cat {0}/text)' | head -1",
        "du -a --apparent-size -b {0}/bin/small.bin",
        'perl -e \'open(F,"<{0}/text"); print scalar(<F>); print -s "{0}/text"\'',
    ]
    result = []
    with tempfile.TemporaryDirectory() as folder:
        for command in commands:
            done = subprocess.run(
                command.format(root), shell=True, capture_output=True, env={**os.environ, "T": folder}, check=False
            )
            result.append((command, done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1")))
    return result


@case
def inherited(root: str) -> Any:
    with open(f"{root}/text", "rb") as file:
        first = file.raw.read(10) if hasattr(file, "raw") else b""
        out = [subprocess.run(["head", "-c", "20"], stdin=file, capture_output=True, check=True).stdout]
        out.append(subprocess.run(["cat"], stdin=file, capture_output=True, check=True).stdout[:30])
    with open(f"{root}/text", "rb") as file:
        out.append(
            subprocess.run(
                ["sh", "-c", f"head -c 9 <&{file.fileno()}"],
                pass_fds=[file.fileno()],
                capture_output=True,
                check=True,
            ).stdout
        )
        out.append(subprocess.run(["cat"], stdin=file, capture_output=True, check=True, env={}).stdout[:30])
        out.append(
            subprocess.run(["cat"], stdin=file, capture_output=True, check=True, close_fds=False).stdout[:30]
        )
    return first, [data.hex() for data in out]


@case
def spawned(root: str) -> Any:
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for number, (program, environment) in enumerate(
            [(["cat"], os.environ), (["/bin/cat"], {}), (["sh", "-c", "cat"], os.environ)]
        ):
            out = f"{folder}/{number}"
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, f"{root}/text", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT, 0o600),
            ]
            pid = os.posix_spawnp(program[0], program, environment, file_actions=actions)
            results.append((os.waitpid(pid, 0)[1], digest(pathlib.Path(out).read_bytes())))
        pid = os.posix_spawn(
            f"{root}/script",
            ["script"],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, f"{folder}/s", 0o1101, 0o600)],
        )
        results.append((os.waitpid(pid, 0)[1], pathlib.Path(f"{folder}/s").read_text()))
    return results


@case
def close_storms(root: str) -> Any:
    """Children that close everything, while this process holds sealed files open."""
    with open(f"{root}/bin/large.bin", "rb") as file:
        head = digest(file.read(100_000))
        for _ in range(5):
            subprocess.run(["true"], close_fds=True, check=True)
        code = "import os; os.closerange(3, 5000); print(open('%s/text').readline(), end='')" % root
        closed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        code = f"import os,subprocess; os.closerange(3, 5000); print(subprocess.check_output(['cat', '{root}/text'])[:20])"
        again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        return head, digest(file.read()), closed.stdout, closed.stderr, again.stdout, again.stderr


@case
def popened(root: str) -> Any:
    library = ctypes.CDLL(None)
    with os.popen(f"wc -c < {root}/bin/large.bin") as pipe:
        count = pipe.read()
    return (
        count,
        library.system(os.fsencode(f"grep -q line {root}/text")),
        library.system(os.fsencode(f"test -e {root}/no")),
    )


@case
def pools(root: str) -> Any:
    import multiprocessing

    results = []
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            results.append(pool.map(read_digest, [f"{root}/bin/{size}.bin" for size in SIZES] * 3))
    return results


def read_digest(path: str) -> str:
    with open(path, "rb") as file:
        return digest(file.read())
