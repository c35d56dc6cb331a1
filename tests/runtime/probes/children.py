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

from runtime.probes.cases import SIZES, case, digest, refusal


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
    """Each child has a descriptor of its own, whose offset is not where the file begins."""
    ways: list[tuple[list[str], dict[str, Any]]] = [
        (["head", "-c", "20"], {}),
        (["cat"], {"env": {}}),
        (["cat"], {"close_fds": False}),
    ]
    out = []
    for command, how in ways:
        with open(f"{root}/text", "rb", buffering=0) as file:
            first = file.read(10)
            said = subprocess.run(command, stdin=file, capture_output=True, check=True, **how).stdout
        out.append((first, said[:30]))
    with open(f"{root}/text", "rb") as file:
        number = file.fileno()
        command = ["sh", "-c", f"head -c 9 <&{number}"]
        said = subprocess.run(command, pass_fds=[number], capture_output=True, check=True).stdout
    return [*out, said]


@case
def offset_shared_with_child(root: str) -> Any:
    with open(f"{root}/text", "rb", buffering=0) as file:
        subprocess.run(["head", "-c", "20"], stdin=file, capture_output=True, check=True)
        return file.read(10)


@case
def spawned(root: str) -> Any:
    results = []
    programs: list[tuple[list[str], Any]] = [
        (["cat"], os.environ),
        (["/bin/cat"], {}),
        (["sh", "-c", "cat"], os.environ),
    ]
    for program, environment in programs:
        reading, writing = os.pipe()
        actions = [(os.POSIX_SPAWN_OPEN, 0, f"{root}/text", os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, writing, 1)]
        pid = os.posix_spawnp(program[0], program, environment, file_actions=actions)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = digest(pipe.read())
        results.append((os.waitpid(pid, 0)[1], said))
    return results


@case
def spawned_to_files(root: str) -> Any:
    """Written by the child, read by this process."""
    with tempfile.TemporaryDirectory() as folder:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, f"{root}/text", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, f"{folder}/out", os.O_WRONLY | os.O_CREAT, 0o600),
        ]
        pid = os.posix_spawnp("cat", ["cat"], os.environ, file_actions=actions)
        return os.waitpid(pid, 0)[1], digest(pathlib.Path(f"{folder}/out").read_bytes())


@case
def executed(root: str) -> Any:
    """A program that is sealed itself."""
    said = subprocess.run([f"{root}/script", "one", "two"], capture_output=True, text=True, check=False)
    bare = subprocess.run([f"{root}/script"], capture_output=True, text=True, check=False, env={})
    return (
        said.returncode,
        said.stdout,
        bare.returncode,
        bare.stdout,
        refusal(lambda: os.execv(f"{root}/text", ["text"])),
    )


@case
def executed_by_spawn(root: str) -> Any:
    reading, writing = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writing, 1)]
    pid = os.posix_spawn(f"{root}/script", ["script"], os.environ, file_actions=actions)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        return os.waitpid(pid, 0)[1], pipe.read()


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


def pool(root: str, method: str) -> Any:
    import multiprocessing

    with multiprocessing.get_context(method).Pool(2) as workers:
        return workers.map(read_digest, [f"{root}/bin/{size}.bin" for size in SIZES] * 3)


@case
def pools_by_fork(root: str) -> Any:
    return pool(root, "fork")


@case
def pools_by_spawn(root: str) -> Any:
    return pool(root, "spawn")


@case
def pools_by_forkserver(root: str) -> Any:
    return pool(root, "forkserver")


def read_digest(path: str) -> str:
    with open(path, "rb") as file:
        return digest(file.read())
