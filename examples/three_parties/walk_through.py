"""Walks through an agreement of four parties, from made-up data to an opened result: `examples/three_parties/run`.

Everybody has a home folder, an identity and, if they own something, a broker of their own, all on this machine.
Every command is printed before it runs, and each step ends with who knows what. The sealed data lies in an S3
server (moto's) where there is FUSE to read it through, else in a folder.

Where `gramine-direct` is on PATH the training runs under it, at L2: measured, and by an enrolled runner's word.
That is a rehearsal without SGX. Elsewhere, and with --native, it runs at L1.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
SEALFS = Path(sys.executable).with_name("sealfs")
OWNERS = {"bank-a": "loans-a", "bank-b": "loans-b", "model-co": "code"}
BOLD, YELLOW, DIM, OFF = ("\033[1m", "\033[33;1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("",) * 4
PATIENCE = 60.0  # seconds
NUMBERS = itertools.count(1)
TOOLS = ("gramine-direct", "gramine-manifest", "strace")

LABELS = {
    "L1": (
        "L1: NOTHING IS PROTECTED FROM THIS MACHINE. This shows who agrees to what and who gets what;",
        "the data is made up. In SGX enclaves (L5) the machine's owner would see none of it.",
    ),
    "L2": (
        "L2: A REHEARSAL, WITHOUT SGX: NOTHING IS PROTECTED FROM THIS MACHINE. gramine-direct runs what would run",
        "in an enclave, and an enrolled runner's word stands for its proof; the data is made up.",
    ),
}


class Party:
    """Somebody with a home of their own."""

    def __init__(self, name: str, top: Path, more: dict[str, str]) -> None:
        self.name = name
        self.home = top / name
        self.home.mkdir()
        self.env = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            **more,
        }

    def __call__(self, *words: object, quiet: bool = False, fails: bool = False) -> str:
        """Run a command of sealfs, visibly; return what it printed."""
        print(f"{BOLD}{self.name}${OFF} sealfs {shlex.join(map(str, words))}")
        done = subprocess.run(
            [SEALFS, *map(str, words)],
            env=self.env,
            cwd=self.home.parent,
            text=True,
            capture_output=True,
            check=False,
        )
        said = done.stderr + ("" if quiet else done.stdout)
        print(
            "".join(f"    {line}\n" for line in said.splitlines() if not line.startswith("{")), end="", flush=True
        )
        if (done.returncode != 0) != fails:
            sys.exit(
                f"that should {'not ' if fails else ''}have worked (exit code {done.returncode}): {done.stdout}"
            )
        return done.stdout


def step(title: str) -> None:
    print(f"\n{BOLD}== {next(NUMBERS)}. {title}{OFF}")


def known(**who: str) -> None:
    """Say who knows what now."""
    print(f"{DIM}   who knows what{OFF}")
    for name, what in who.items():
        print(f"{DIM}     {name.replace('_', '-'):<9} {what}{OFF}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server for the length of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=env, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for_line(log: Path, start: str, process: subprocess.Popen[bytes]) -> str:
    """Return the line that a server says when it is ready."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith(start):
                return line
        time.sleep(0.1)
    sys.exit(f"a server did not start: {log.read_text(errors='replace')}")


@contextlib.contextmanager
def store(top: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Where the sealed data lies, and what everybody's environment needs to get there."""
    server = Path(sys.executable).with_name("moto_server")
    if not server.exists() or not has_fuse():
        (top / "store").mkdir()
        yield f"file://{top}/store", {}
        return
    port = free_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "everybody",
        "AWS_SECRET_ACCESS_KEY": "may-read-ciphertext",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with running([str(server), "-H", "127.0.0.1", "-p", str(port)], dict(os.environ), top / "s3.log") as process:
        deadline = time.monotonic() + PATIENCE
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            if time.monotonic() > deadline or process.poll() is not None:
                sys.exit("the S3 server did not start")
            time.sleep(0.1)
        make = "import boto3; boto3.client('s3').create_bucket(Bucket='shared')"
        subprocess.run([sys.executable, "-c", make], env={**os.environ, **env}, check=True)
        yield "s3://shared", env


def has_fuse() -> bool:
    return os.access("/dev/fuse", os.R_OK | os.W_OK)


def has_gramine() -> bool:
    """Whether this machine has what a rehearsal takes."""
    return all(map(shutil.which, TOOLS)) and find_spec("jinja2") is not None and has_fuse()


def make_data(folder: Path, seed: int) -> None:
    """Write made-up loans: income, debt, and whether it failed."""
    dice = random.Random(seed)
    folder.mkdir()
    for year in (2024, 2025):
        lines = []
        for _ in range(200):
            income, debt = dice.gauss(0, 1), dice.gauss(0, 1)
            lines.append(f"{income:.3f},{debt:.3f},{int(debt - income + dice.gauss(0, 0.5) > 0)}\n")
        (folder / f"{year}.csv").write_text("".join(lines))


def measure(top: Path, parties: dict[str, Party], brokers: dict[str, str]) -> str:
    """Have every owner measure what will run, and tell its broker; return the measurement."""
    step("Every owner measures what will run, on made-up samples, and enrols the cloud as a runner")
    make_data(top / "samples", 0)
    (top / "samples-out").mkdir()
    script = parties["model-co"].home / "plain" / "train.py"
    job = ("measure", "--executor", "gramine-direct", "--contract", "--keys", "runner", "--enclave", "enclave")
    found = set()
    for name, address in brokers.items():
        again = ("--again",) if found else ()
        words = (*job, *again, "--exclude", f"{top}/*", "--register", address, "--json", "--")
        said = parties[name](*words, sys.executable, script, "samples", "samples-out", quiet=True)
        found.add(json.loads(said)["manifest"])
        parties[name]("broker", "enrol", "runner", "cloud", "cloud.pub", "--broker", address)
    (manifest,) = found
    print(f"    all of them have measured {manifest}")
    known(everybody="what would run: which files, each by its hash, and nothing of anybody's data")
    return manifest


def main() -> None:
    rehearses = has_gramine() and "--native" not in sys.argv[1:]
    level = "L2" if rehearses else "L1"
    exposed = f"sizes and times (and at {level}, whatever it cares to look at)"
    with contextlib.ExitStack() as stack:
        top = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sealfs-three-parties-")))
        place = top / "machine"
        place.mkdir()
        uri, env = stack.enter_context(store(top))
        parties = {name: Party(name, top, env) for name in (*OWNERS, "cloud")}
        a, b, model, cloud = parties.values()
        print(YELLOW + "\n".join(LABELS[level]) + OFF)
        if not rehearses:
            print("(a rehearsal under gramine-direct takes that on PATH, strace, /dev/fuse and sealfs[enclave])")

        step("Everybody makes an identity; owners start a broker each")
        brokers = {}
        for name, party in parties.items():
            party("keygen", quiet=True)
            shutil.copy(party.home / ".config/sealfs/identity.pub", top / f"{name}.pub")
            if name in OWNERS:
                log = top / f"{name}.log"
                command = [str(SEALFS), "broker", "serve", "--name", name, "--listen", "127.0.0.1:0"]
                process = stack.enter_context(running(command, party.env, log))
                brokers[name] = wait_for_line(log, "https://", process)
                print(f"    the broker of {name}: {brokers[name]}")
        known(everybody="who the others are, by their public keys; nothing else")

        make_data(a.home / "plain", 1)
        make_data(b.home / "plain", 2)
        (model.home / "plain").mkdir()
        shutil.copy(HERE / "train.py", model.home / "plain")
        if rehearses:
            policy = f'level = "L2"\nmeasurements = {{ "sealfs-runner" = ["{measure(top, parties, brokers)}"] }}\n'
        else:
            policy = 'level = "L1"\ndevelopment = true\n'
        (top / "policy.toml").write_text(policy)
        (top / "only-by-contract.toml").write_text("contract = true\n" + policy)

        step("Owners seal what is theirs, and entrust the keys to their own brokers: only for contracts")
        for name, what in OWNERS.items():
            folder = parties[name].home / "plain"
            words = ("--broker", brokers[name], "--policy", "only-by-contract.toml")
            parties[name]("push", folder, f"{uri}/{what}", *words)
        known(bank_a="its loans", bank_b="its loans", model_co="its code", cloud="nothing", store="ciphertext")

        step("bank-a writes the contract down, everybody reads it and signs")
        text = (HERE / "agreement.toml").read_text().replace("@STORE@", uri)
        text = text.replace("@PLACE@", "" if rehearses else str(place))  # in Gramine paths are its own
        text = text.replace("@EXECUTOR@", "gramine-direct" if rehearses else "native")
        for name, address in brokers.items():
            text = text.replace(f"@BROKER-{name}@", address)
        (top / "agreement.toml").write_text(text)
        a("task", "new", "agreement.toml", "bank-a.task")
        digest = json.loads(a("task", "status", "bank-a.task", "--json", quiet=True))["digest"]
        print(a("task", "show", "bank-a.task", quiet=True))
        for name in ("bank-a", "bank-b", "model-co"):
            if name != "bank-a":
                shutil.copy(top / "bank-a.task", top / f"{name}.task")
                parties[name]("task", "show", f"{name}.task", quiet=True)
            parties[name]("task", "approve", f"{name}.task")
            parties[name]("task", "sync", f"{name}.task")
        a("task", "sync", "bank-a.task")
        known(everybody="the contract and who signed it", brokers="the same, each having checked all signatures")

        step("The operator tries something else first: another contract with itself as the recipient")
        shutil.copy(top / "bank-a.task", top / "cloud.task")
        changed = text.replace('recipients = ["bank-a", "bank-b"]', 'recipients = ["cloud"]')
        (top / "changed.toml").write_text(changed.replace('creator = "bank-a"', 'creator = "cloud"'))
        cloud("task", "new", "changed.toml", "changed.task")
        how = ("--enclave", "enclave", "--runner", "cloud/.config/sealfs/identity") if rehearses else ()
        run = ("--results", f"{uri}/results", *how)
        cloud("task", "run", "changed.task", *run, fails=True)
        known(cloud="nothing: nobody has signed that")

        step("The operator runs what was agreed")
        report = json.loads(cloud("task", "run", "cloud.task", *run, "--json", quiet=True))
        known(
            bank_a="that it ran; the result not yet",
            bank_b="that it ran; the result not yet",
            model_co="that it ran; no loans, no result",
            cloud=exposed,
        )

        step("Two of three vote that the result may be opened")
        for name in ("bank-a", "bank-b", "model-co"):
            parties[name]("task", "sync", f"{name}.task")
        a("task", "results", "bank-a.task", "--pull", "opened", fails=True)
        for name in ("bank-a", "model-co"):
            parties[name]("task", "vote", f"{name}.task", report["run"], "model")
            parties[name]("task", "sync", f"{name}.task")
        b("task", "sync", "bank-b.task")
        known(
            bank_a="two shares of the lock, so it can open the result",
            bank_b="likewise",
            model_co="its own share; all of them would not do without a bank's key",
        )

        step("The banks check where it comes from, and open it; nobody else can")
        believed = ("--accept-runner", "cloud.pub") if rehearses else ()
        b("task", "results", "bank-b.task", "--verify", *believed, "--pull", "opened")
        found = json.loads((top / "opened" / report["run"][:8] / "model" / "model.json").read_text())
        printed = (top / "opened" / report["run"][:8] / "model" / "printed.log").read_text()
        print("".join(f"    {line}\n" for line in printed.splitlines()), end="")
        print(f"    the model of {found['loans']} loans: {[round(weight, 2) for weight in found['weights']]}")
        model("task", "results", "model-co.task", "--pull", "stolen", fails=True)
        known(
            bank_a="its loans, the result",
            bank_b="its loans, the result; of bank-a's loans only what the result tells",
            model_co="its code; no loans, no result",
            cloud=exposed,
        )

        step("Nobody can deny anything, and nothing can be repeated")
        b("task", "audit", "bank-b.task")
        cloud("task", "run", "cloud.task", *run, fails=True)
        known(everybody="who signed what, when it ran, how often; each broker's log has it, too")
        print(f"\ndone: contract {digest[:16]}… was carried out once, as agreed")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
