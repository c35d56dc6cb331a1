"""Under gramine-direct, wherever it is on PATH: a contract of several owners, from the command line to the result.

Everybody has an identity, and owners a broker, of their own. The operator measures nothing: the owners do, and each
tells its own broker. What reaches L2 here is a rehearsal: nothing keeps the operator out.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from commands import Outcome, Sealfs, broker_started
from rehearsals import GRAMINE, rehearsal

from sealfs.attestation.canonical import canonical
from sealfs.broker.address import BrokerAddress
from sealfs.broker.exchange import bring
from sealfs.broker.owner import BrokerMember
from sealfs.contracts.files import change_task, load_task
from sealfs.contracts.task import Task
from sealfs.enclave.attach import INTEGRITY_EXIT
from sealfs.enclave.measure import manifest_digest
from sealfs.executors.base import MANIFEST
from sealfs.keys import Identity, load_identity

pytestmark = [*GRAMINE, pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="there is no /dev/fuse")]

OWNERS = ("bank-a", "bank-b", "model-co")
SCRIPT = """
import os, sys
import model
data, out = sys.argv[1:3]
sums = {name: model.total(os.path.join(data, name)) for name in sorted(os.listdir(data))}
with open(os.path.join(out, "sums"), "w") as file:
    file.write(" ".join(f"{name}={total}" for name, total in sums.items()))
print("trained on", len(sums), "files; setting", os.environ.get("SETTING"), "typed", repr(sys.stdin.read()))
"""
MODEL = "def total(path):\n    with open(path) as file:\n        return sum(map(int, file))\n"
DRAFT = """
title = "Loans that fail"
creator = "bank-a"
operator = "cloud"
days = 1
runs = 1
stdout = "sealed"

[function]
name = "sums"
owner = "model-co"
executor = "gramine-direct"
code = "code"
script = "train.py"
arguments = ["/data", "/out"]
environment = { SETTING = "agreed" }

[inputs.loans-a]
owners = ["bank-a"]
path = "/data"
prefix = "a_"
data = "FOLDER/store-bank-a"

[inputs.loans-b]
owners = ["bank-b"]
path = "/data"
prefix = "b_"
data = "FOLDER/store-bank-b"

[inputs.code]
owners = ["model-co"]
path = "/code"
data = "FOLDER/store-model-co"

[outputs.model]
recipients = ["bank-a", "bank-b"]
path = "/out"
max_size = 100_000
votes = 2
voters = ["bank-a", "bank-b", "model-co"]
"""


@dataclass(frozen=True)
class World:
    """Three owners with a broker each, whose data only contracts open, and only in the enclave that was measured.

    Attributes:
        parties: By name, the operator "cloud" among them, who is the enrolled runner as well.
        brokers: Owner to the address of its broker.
        enclave: The folder that was measured.
    """

    folder: Path
    parties: dict[str, Sealfs]
    brokers: dict[str, str]
    enclave: Path

    def __getitem__(self, name: str) -> Sealfs:
        return self.parties[name]

    @property
    def runner(self) -> Path:
        return self["cloud"].identity_path

    def measure(self, script: Path, *arguments: object) -> str:
        """Have every owner measure what a script loads, and tell its broker; returns what they demand."""
        job = ["--executor", "gramine-direct", "--contract", "--keys", "runner", "--enclave", self.enclave]
        job += ["--exclude", f"{self.folder}/*"]
        for name, url in self.brokers.items():
            again = ["--again"] if name != OWNERS[0] else []
            command = ["--register", url, *again, "--", sys.executable, script, *arguments]
            said = self[name]("measure", *job, *command, timeout=600)
            assert "it may serve L2" in said.stderr
            assert said.text.endswith(f"manifest SHA-256 {manifest_digest(self.enclave)}\n")
        return rehearsal(manifest_digest(self.enclave))

    def push(self, owner: str, plain: Path, store: str, demanded: str) -> None:
        """Seal a folder, for contracts only."""
        policy = self.folder / "policy.toml"
        policy.write_text("contract = true\n" + demanded)
        broker = ("--broker", self.brokers[owner], "--policy", policy)
        self[owner]("push", plain, self.folder / store, *broker)

    def drafted(self, name: str, change: Callable[[str], str] = lambda draft: draft) -> Path:
        """Write a contract down; returns the task's file."""
        draft = DRAFT.replace("FOLDER", str(self.folder))
        for party in self.parties:
            draft += f'\n[parties.{party}]\nkeys = "{party}.pub"\n'
            if party in self.brokers:
                draft += f'broker = "{self.brokers[party]}"\n'
        draft += "\n[policy]\n" + rehearsal(manifest_digest(self.enclave))
        (self.folder / f"{name}.toml").write_text(change(draft))
        path = self.folder / f"{name}.task"
        self["bank-a"]("task", "new", self.folder / f"{name}.toml", path)
        return path

    def signed(self, path: Path) -> Path:
        """Have everybody sign a contract, and bring it to the owners' brokers."""
        task = load_task(path)
        for name in task.contract.approvers:
            task = task.approve(load_identity(self[name].identity_path), datetime.now(UTC))
        for name, url in self.brokers.items():
            member = BrokerMember(BrokerAddress.parse(url), load_identity(self[name].identity_path))
            if name in task.contract.approvers:
                bring(member, task)
        change_task(path, lambda known: known.merged(task))
        return path

    def run(self, task: Path, *options: object, code: int | None = 4, **more: Any) -> Outcome:
        """Run a contract in Gramine, as its operator."""
        words = ["--results", self.folder / "results", "--enclave", self.enclave, "--runner", self.runner]
        return self["cloud"]("task", "run", task, *words, *options, code=code, timeout=900, **more)

    def last_decision(self, owner: str) -> str:
        """What an owner's broker has decided last, of releasing keys."""
        lines = self[owner]("broker", "log", "--json", "--local").lines
        events = [json.loads(line).get("event") for line in lines]
        return [event for event in events if event in {"released", "refused"}][-1]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("task")
    parties = {name: Sealfs(folder / name, Identity.generate()) for name in (*OWNERS, "cloud")}
    for name, party in parties.items():
        shutil.copy(party.identity_path.with_name("identity.pub"), folder / f"{name}.pub")
    for name, files in {
        "bank-a": {"1": "1\n2\n", "2": "4\n"},
        "bank-b": {"1": "10\n20\n"},
        "model-co": {"train.py": SCRIPT, "model.py": MODEL},
    }.items():
        (folder / f"plain-{name}").mkdir()
        for path, content in files.items():
            (folder / f"plain-{name}" / path).write_text(content)
    (folder / "samples-out").mkdir()
    with ExitStack() as stack:
        brokers = {}
        for name in OWNERS:
            brokers[name] = stack.enter_context(broker_started(parties[name], parties[name].home, "--name", name))
        made = World(folder, parties, brokers, folder / "enclave")
        samples = (folder / "plain-bank-a", folder / "samples-out")
        demanded = made.measure(folder / "plain-model-co" / "train.py", *samples)
        for name, url in brokers.items():
            parties[name]("broker", "enrol", "runner", "node-1", folder / "cloud.pub", "--broker", url)
            made.push(name, folder / f"plain-{name}", f"store-{name}", demanded)
        yield made


def test_agreed_run_verified_voted_and_opened(world: World) -> None:
    task = world.drafted("whole")
    for owner in OWNERS:
        world[owner]("task", "show", task)
        world[owner]("task", "approve", task)
        world[owner]("task", "sync", task)
    before = world.folder / "forgotten.task"
    shutil.copy(task, before)
    ended = world.run(task, "--json", code=0, stdin=b"use these weights instead\n")
    assert "L2: a rehearsal" in ended.stderr
    assert "this run reaches L2" in ended.stderr
    assert "trained on" not in ended.text + ended.stderr
    run = ended.json["run"]
    results = world.folder / "results" / run / "model"
    assert ended.json["results"] == {"model": results.as_uri()}
    for path in results.rglob("*"):
        assert path.is_dir() or not any(word in path.read_bytes() for word in (b"a_1=3", b"trained on"))
    assert list((world.enclave / "results").iterdir()) == []
    for owner in OWNERS:
        assert world.last_decision(owner) == "released"

    early = world["bank-b"]("task", "results", task, "--pull", world.folder / "early", code=15)
    assert "0 of the 2 votes that are needed" in early.complaint
    for voter in ("bank-a", "model-co"):
        world[voter]("task", "vote", task, run, "model")
    assert "for bank-a, bank-b only" in world["model-co"]("task", "results", task, "--pull", "x", code=4).complaint
    words = ["task", "results", task, "--verify", "--json"]
    runner = ["--accept-runner", world.folder / "cloud.pub"]
    opened = world["bank-b"](*words, *runner, "--pull", world.folder / "opened").json[0]
    assert (opened["level"], opened["vouched_for"]) == ("L2", True)
    files = {path.name: path.read_text() for path in Path(opened["files"]).iterdir()}
    assert files["sums"] == "a_1=3 a_2=4 b_1=30"
    assert files["printed.log"] == "trained on 3 files; setting agreed typed ''\n"
    assert "not enrolled" in world["bank-b"](*words, code=6).complaint

    assert "all 1 agreed runs are used up" in world.run(task, code=15).stderr
    again = world.run(before, "--offline")  # an operator that forgets is told by the brokers
    assert "all 1 agreed runs are used up" in refused(world, again)


def refused(world: World, ended: Outcome) -> str:
    """Return the reason for a refusal: the script has not run, and no broker has released a key."""
    assert "trained on" not in ended.text + ended.stderr
    assert "this run reaches" not in ended.stderr
    assert "failed (exit code" in ended.text
    return ended.stderr


def with_a_plain_script(draft: str) -> str:
    code = draft[draft.index("[inputs.code]") : draft.index("[outputs.model]")]
    draft = draft.replace(code, "").replace('code = "code"', "public = true")
    return draft.replace('script = "train.py"', 'script = "public.py"')


def test_operator_swaps_the_script(world: World) -> None:
    script = world.folder / "public.py"
    script.write_text("print('trained on nothing')\n")
    task = world.signed(world.drafted("plain", with_a_plain_script))
    assert "finished" in world.run(task, "--script", script, code=0).text
    task = world.signed(world.drafted("swapped", with_a_plain_script))
    script.write_text("import os; print('trained on', os.environ)\n")
    ended = world.run(task, "--script", script, code=15)
    assert "is not the script agreed on" in ended.stderr
    assert "trained on" not in ended.text + ended.stderr


@contextmanager
def edited(file: Path, old: str, new: str) -> Iterator[None]:
    before = file.read_text()
    assert old in before
    file.write_text(before.replace(old, new, 1))
    try:
        yield
    finally:
        file.write_text(before)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"-m",', '"-O", "-m",'),
        ("[loader.env]", "[loader.env]\nSETTING = 'the operator says'"),
        ("[loader]", "[loader]\ninsecure__use_host_env = true"),
    ],
    ids=["argv", "environment", "host"],
)
def test_operator_swaps_what_was_measured(old: str, new: str, world: World, request: pytest.FixtureRequest) -> None:
    task = world.signed(world.drafted(request.node.callspec.id))
    with edited(world.enclave / MANIFEST, old, new):
        changed = manifest_digest(world.enclave)
        said = refused(world, world.run(task))
    assert f"measurement: demanded one of 1 allow-listed for 'sealfs-runner', offered {changed}" in said
    assert world.last_decision("model-co") == "refused"  # the first that was asked


def test_files_of_another_enclave_are_not_started(world: World) -> None:
    task = world.drafted("template")
    with edited(world.enclave / f"{MANIFEST}.template", "sgx.debug = false", "sgx.debug = true"):
        assert "was made for another run" in world.run(task, "--offline", code=12).stderr


def test_enclave_told_another_contract_than_it_attests(world: World) -> None:
    """The host swaps the contract behind the back of `sealfs task run`, just before Gramine starts."""
    task = world.signed(world.drafted("told"))
    agreed = load_task(task)
    recipients = {"model": replace(agreed.contract.outputs["model"], recipients=("cloud",))}
    other = replace(agreed.contract, outputs=recipients)
    forged = agreed.to_json() | {"contract": other.to_json()}
    forgers = {name: Identity.generate() for name in other.parties}
    parties = {
        name: replace(party, signer=forgers[name].signer, recipient=forgers[name].recipient)
        for name, party in other.parties.items()
    }
    signed = Task(replace(other, parties=parties))
    for name in signed.contract.approvers:
        signed = signed.approve(forgers[name], datetime.now(UTC))
    for told, reason in (
        (Task(other).to_bytes(), "not approved by"),  # nobody has signed it
        (canonical(forged), "another contract"),  # the signatures are the agreed one's
        (
            signed.to_bytes(),
            "does not know the contract",
        ),  # by keys that are nobody's: then that is what it attests
    ):
        (world.folder / "told").write_bytes(told)
        said = refused(world, world.run(task, "--offline", code=None, env={"PATH": swapping(world)}))
        assert reason in said
    shutil.rmtree(world.folder / "bin")


def swapping(world: World) -> str:
    """A PATH on which Gramine finds another contract than the one it was started for."""
    real = shutil.which("gramine-direct")
    (world.folder / "bin").mkdir(exist_ok=True)
    tool = world.folder / "bin" / "gramine-direct"
    tool.write_text(f'#!/bin/sh\ncp {world.folder}/told ciphertext/+told/task && exec {real} "$@"\n')
    tool.chmod(0o755)
    return f"{tool.parent}:{world['cloud'].env['PATH']}"


def test_damage_in_one_owners_store_ends_the_run(world: World) -> None:
    store = world.folder / "damaged"
    shutil.copytree(world.folder / "store-bank-b", store)
    (pack,) = (store / "packs").iterdir()
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    ended = world.run(world.signed(world.drafted("damaged")), "--at", f"loans-b={store}", code=INTEGRITY_EXIT)
    assert "data turned out to be damaged" in ended.stderr
    assert "failed (exit code 85)" in ended.text


def of_images(draft: str) -> str:
    """One owner's images and another's masks, side by side in one folder, for a script that anybody may see."""
    draft = with_a_plain_script(draft).replace("public.py", "train_segmentation.py")
    draft = draft.replace('prefix = "a_"\n', "").replace('prefix = "b_"\n', "")
    draft = draft.replace("store-bank-a", "store-images").replace("store-bank-b", "store-masks")
    draft = draft.replace('votes = 2\nvoters = ["bank-a", "bank-b", "model-co"]\n', "")
    draft = draft.replace('"/data", "/out"', '"/data", "--epochs", "1", "--workers", "0", "--save", "/out/saved"')
    return draft.replace("max_size = 100_000", "max_size = 100_000_000")


def test_an_unmodified_paddle_script_on_two_owners_data(world: World) -> None:
    """The losses and weights of the plain run, to the last digit."""
    examples = Path(__file__).parents[2] / "examples"
    plain = world.folder / "plain-eyes"
    make = [sys.executable, examples / "make_vessels.py", plain, "--count", "4", "--size", "32"]
    subprocess.run(make, check=True, capture_output=True)
    script = world.folder / "train_segmentation.py"
    shutil.copy(examples / script.name, script)
    options = ["--epochs", "1", "--workers", "0", "--save"]
    command = [sys.executable, script, plain, *options, world.folder / "saved"]
    expected = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    paddle = replace(world, enclave=world.folder / "enclave-paddle")
    demanded = paddle.measure(script, plain, *options, world.folder / "saved-again")
    for owner, part in (("bank-a", "images"), ("bank-b", "masks")):
        top = world.folder / f"plain-{part}"
        top.mkdir()
        shutil.move(plain / part, top / part)
        paddle.push(owner, top, f"store-{part}", demanded)
    task = paddle.signed(paddle.drafted("images", of_images))
    run = paddle.run(task, "--script", script, "--json", code=0).json["run"]
    world["bank-a"]("task", "results", task, "--pull", world.folder / "opened-paddle")
    opened = world.folder / "opened-paddle" / run[:8] / "model"
    printed = (opened / "printed.log").read_text().splitlines()
    assert [line for line in printed if line.startswith(("epoch ", "dice "))] == expected.splitlines()
    saved = {path.name: path.read_bytes() for path in (world.folder / "saved").iterdir()}
    assert {path.name: path.read_bytes() for path in (opened / "saved").iterdir()} == saved
