"""The whole of it, from signatures to opened results; and what an operator might try."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from contracts.world import SCRIPT, World
from sealfs.attestation.levels import Level
from sealfs.attestation.sample import SampleProvider
from sealfs.attestation.verify import Verifier
from sealfs.cli.task_run import _pull
from sealfs.contracts.contract import Contract
from sealfs.contracts.files import load_task, save_new_task
from sealfs.contracts.task import State, Task
from sealfs.contracts.terms import Input, Output
from sealfs.contracts.vouching import vouch
from sealfs.enclave.attach import INTEGRITY_EXIT, LIBRARY
from sealfs.errors import (
    ContractError,
    ExecutorError,
    IntegrityError,
    KeyAccessError,
    KeyRefusedError,
    SealfsError,
    TrustError,
)
from sealfs.executors.base import Job
from sealfs.keys import Identity
from sealfs.tasks.outside import Report, TaskRun, load_provenance
from sealfs.tasks.release import release

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LIBRARY.exists(), reason="the in-process reader is not built: no C compiler"),
]

SAMPLES = Verifier(allow_sample=True)


class Operator:
    """Runs a task from its file."""

    def __init__(self, world: World, task: Task) -> None:
        self.world = world
        self.path = world.folder / f"{task.contract.digest[:8]}.task"
        if not self.path.exists():
            save_new_task(self.path, task)

    def run(self, **changes: Any) -> Report:
        world = self.world
        options = {"script": world.script, "places": {}, "enclave": None, "tell": print, **changes}
        return TaskRun(self.path, world["cloud"].identity, str(world.folder / "results"), **options).run()

    @property
    def task(self) -> Task:
        return load_task(self.path)

    def opened(self, run: str, name: str, output: str = "model", task: Task | None = None) -> dict[str, str]:
        folder = _pull(
            task or self.task, run, output, self.world[name].identity, self.world.folder / f"opened-{name}"
        )
        return {path.name: path.read_text() for path in folder.iterdir()}


def operator(world: World, agreed: Contract | None = None) -> Operator:
    return Operator(world, world.approved(agreed))


def test_from_signatures_to_results(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    cloud = operator(world)
    report = cloud.run()
    assert report.code == 0
    task = cloud.task
    assert task.runs[report.run].state is State.FINISHED
    assert task.runs_left == 1
    assert cloud.opened(report.run, "bank-a") == {
        "sums": "a_1=3 a_2=4 b_1=30",
        "printed.log": "trained on 3 files; setting agreed\n",
    }
    out, err = capfd.readouterr()
    assert "trained on" not in out + err  # what is printed is sealed
    assert "this run reaches L1" in err
    _, provenance = load_provenance(task, report.run, "model")
    vouched = vouch(provenance, task.contract, SAMPLES)
    assert not vouched.is_vouched
    assert any("NOTHING VOUCHES" in line for line in vouched.findings)
    with pytest.raises(TrustError, match=r"nothing vouches for the result: agreed is L1, .* at L4"):
        vouch(replace(provenance, level=Level.L4), task.contract, SAMPLES)
    for owner in ("bank-a", "bank-b"):
        released = [record for record in world.log_of(owner) if record["event"] == "released"]
        assert [record["bound"] for record in released] == [task.contract.digest]
    assert not list(Path(world.out_path).parent.glob("out*"))
    assert os.listdir(world.data_path) == []


def test_as_often_as_agreed_and_no_more(world: World) -> None:
    cloud = operator(world)
    runs = {cloud.run().run for _ in range(2)}
    assert len(runs) == 2
    assert cloud.task.state(datetime.now(UTC)) is State.FINISHED
    with pytest.raises(ContractError, match="used up"):
        cloud.run()
    # an operator that forgets what it has run is told by the brokers
    again = Operator.__new__(Operator)
    again.world, again.path = world, world.folder / "forgetful.task"
    save_new_task(again.path, world.approved(cloud.task.contract))
    assert again.run().code == KeyAccessError.exit_code
    assert [run.state for run in again.task.runs.values()] == [State.FAILED]


def test_results_are_for_the_recipients_only(world: World) -> None:
    cloud = operator(world)
    report = cloud.run()
    for name in ("bank-b", "model-co", "cloud"):
        with pytest.raises(KeyAccessError, match="for bank-a only"):
            cloud.opened(report.run, name)
    # nor does the dataset itself know anybody else
    from sealfs.dataset.dataset import Dataset
    from sealfs.dataset.trust import TrustStore
    from sealfs.store.address import open_store

    store = open_store(report.results["model"].address)
    dataset = Dataset.open(store, TrustStore(world.folder / "pins"))
    recipients = set(dataset.keyring().recipients)
    assert world["bank-a"].identity.recipient in recipients
    # the other one is the run's own identity, which was made inside and is gone
    assert len(recipients - {somebody.identity.recipient for somebody in world.parties.values()}) == 1
    assert len(recipients) == 2
    with pytest.raises(KeyAccessError):
        dataset.keys(world["cloud"].identity)
    store.close()


def test_locked_until_k_of_n_have_voted(world: World) -> None:
    voters = ("bank-a", "bank-b", "model-co")
    terms = {"model": Output(("bank-a", "bank-b"), world.out_path, 1 << 20, 2, voters)}
    cloud = operator(world, world.contract(outputs=terms))
    report = cloud.run()
    task = cloud.task
    with pytest.raises(ContractError, match="0 of the 2 votes"):
        cloud.opened(report.run, "bank-b")
    from sealfs.cli.task_run import _lock_of

    at, provenance = load_provenance(task, report.run, "model")
    lock = _lock_of(task, report.run, "model", provenance, at.address)
    with pytest.raises(ContractError, match="no voter"):
        task.vote(lock, world["cloud"].identity, datetime.now(UTC))
    task = task.vote(lock, world["model-co"].identity, datetime.now(UTC))
    task = task.vote(lock, world["model-co"].identity, datetime.now(UTC))  # twice is once
    with pytest.raises(ContractError, match="1 of the 2 votes"):
        cloud.opened(report.run, "bank-b", task=task)
    task = Task.parse(task.vote(lock, world["bank-a"].identity, datetime.now(UTC)).to_bytes())
    for name in ("bank-a", "bank-b"):
        assert cloud.opened(report.run, name, task=task)["sums"] == "a_1=3 a_2=4 b_1=30"
    with pytest.raises(KeyAccessError, match="for bank-a, bank-b only"):
        cloud.opened(report.run, "model-co", task=task)
    # the voters together have the lock's key, and still can't open it: that takes a recipient's identity
    votes = {name: said.shares for name, said in task.votes(report.run, "model").items()}
    with pytest.raises(SealfsError):
        lock.open("bank-b", world["model-co"].identity, votes)


def test_sealed_code_of_its_own_owner(world: World) -> None:
    code = world.seal(
        "model-co", "code", {"train.py": b"import helper\n" + SCRIPT, "helper.py": b"print('helped')\n"}
    )
    path = str(world.folder / "run" / "code")
    base = world.contract()
    agreed = replace(
        base,
        function=replace(base.function, code="code", sha256=None),
        inputs={**base.inputs, "code": Input(("model-co",), path, "", code)},
    )
    cloud = operator(world, agreed)
    report = cloud.run(script=None)
    assert report.code == 0
    assert cloud.opened(report.run, "bank-a")["printed.log"].startswith("helped\ntrained on 3 files")
    objects = b"".join(p.read_bytes() for p in (world.folder / "store-code").rglob("*") if p.is_file())
    assert b"helper" not in objects


def test_operator_swaps_the_script(world: World) -> None:
    cloud = operator(world)
    world.script.write_bytes(SCRIPT + b"\nprint(open('/etc/passwd').read())\n")
    report = cloud.run()
    assert report.code == ContractError.exit_code
    assert report.results == {}
    assert next(iter(cloud.task.runs.values())).state is State.FAILED


def test_operator_puts_modules_and_variables_in_the_way(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.folder / "json.py").write_text("raise SystemExit('taken over')")  # beside the script
    monkeypatch.setenv("SETTING", "the operator's")
    monkeypatch.setenv("PYTHONSTARTUP", "/no/such")
    cloud = operator(world)
    report = cloud.run()
    assert report.code == 0
    assert cloud.opened(report.run, "bank-a")["printed.log"] == "trained on 3 files; setting agreed\n"


def test_operator_swaps_arguments(world: World) -> None:
    """There is no way to say them but the contract, which then is another one."""
    task = world.approved()
    swapped = replace(task.contract, function=replace(task.contract.function, arguments=("/etc", world.out_path)))
    cloud = Operator(world, Task(swapped))
    with pytest.raises(ContractError, match="not approved by"):
        cloud.run()


def inside(world: World, task_file: Path, *options: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    """Start what runs inside directly, as an operator can who doesn't keep to `sealfs task run`."""
    (world.folder / "r").mkdir(exist_ok=True)
    return subprocess.run(
        [
            *(sys.executable, "-m", "sealfs.tasks.inside", "--task", task_file, "--run", "cd" * 16),
            *("--data", f"loans-a={world.folder / 'store-loans-a'}"),
            *("--data", f"loans-b={world.folder / 'store-loans-b'}"),
            *("--result", f"model={world.folder / 'r'}", "--script", world.script, *options),
        ],
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_operator_types_something(world: World) -> None:
    """Standard input is an input, too, and one that nobody has agreed to."""
    world.script.write_text("import sys\nprint('read', repr(sys.stdin.read()))\n")
    base = world.contract(stdout="host")
    digest = hashlib.sha256(world.script.read_bytes()).hexdigest()
    path = world.folder / "t.task"
    path.write_bytes(world.approved(replace(base, function=replace(base.function, sha256=digest))).to_bytes())
    ended = inside(world, path, typed="use these weights instead")
    assert (ended.returncode, ended.stdout) == (0, "read ''\n"), ended.stderr


def test_told_another_contract_than_it_attests(world: World) -> None:
    task = world.approved()
    other = Task(replace(task.contract, outputs={"model": Output(("cloud",), world.out_path, 1 << 20)}))
    path = world.folder / "other.task"
    path.write_bytes(other.to_bytes())
    told = inside(world, path, "--digest", task.contract.digest)
    assert told.returncode == ContractError.exit_code
    assert f"started for the contract {task.contract.digest}" in told.stderr
    quiet = inside(world, path)  # it says nothing of another contract: then that one is what it would attest
    assert quiet.returncode == ContractError.exit_code
    assert "not approved by" in quiet.stderr
    document = task.to_json()
    document["contract"]["outputs"]["model"]["recipients"] = ["cloud"]
    from sealfs.attestation.canonical import canonical

    path.write_bytes(canonical(document))
    forged = inside(world, path)
    assert forged.returncode == ContractError.exit_code
    assert "another contract" in forged.stderr
    assert not any(record["event"] == "released" for record in world.log_of("bank-a"))


def test_unapproved_inside_asks_no_broker_and_a_patched_inside_gets_no_key(world: World) -> None:
    task = world.approved(but=("bank-b",))
    path = world.folder / "t.task"
    path.write_bytes(task.to_bytes())
    assert "not approved by bank-b" in inside(world, path).stderr
    decided = {"released", "refused"}
    assert not decided & {record["event"] for record in world.log_of("bank-a")}
    with pytest.raises(KeyRefusedError, match="not approved by bank-b"):
        release(task.contract, Identity.generate(), "cd" * 16, SampleProvider())
    assert decided & {record["event"] for record in world.log_of("bank-a")} == {"refused"}


def test_other_ciphertext_than_agreed(world: World) -> None:
    task = world.approved()
    world.seal("bank-a", "loans-a", {"smuggled": b"1000000\n"})  # a newer version, signed by the owner itself
    cloud = Operator(world, task)
    report = cloud.run()
    assert report.code == 0
    assert "smuggled" not in cloud.opened(report.run, "bank-a")["sums"]
    swapped = {"loans-a": str(world.folder / "store-loans-b")}
    report = cloud.run(places=swapped)
    assert report.code != 0
    assert report.results == {}


def test_a_damaged_pack_ends_the_run_and_nothing_is_sealed(world: World) -> None:
    world.damage("loans-b")
    cloud = operator(world)
    report = cloud.run()
    assert report.code == INTEGRITY_EXIT
    assert report.results == {}
    assert not os.path.lexists(world.out_path)  # what it wrote in memory is gone as well


def test_names_that_clash_in_the_union(world: World) -> None:
    base = world.contract()
    inputs = {name: replace(entry, prefix="") for name, entry in base.inputs.items()}
    report = operator(world, replace(base, inputs=inputs)).run()
    assert report.code != 0
    side_by_side = {
        "loans-a": replace(base.inputs["loans-a"], path=f"{world.data_path}-a", prefix=""),
        "loans-b": replace(base.inputs["loans-b"], path=world.data_path, prefix=""),
    }
    cloud = operator(world, replace(base, inputs=side_by_side))
    report = cloud.run()
    assert cloud.opened(report.run, "bank-a")["sums"] == "1=30"


def test_an_output_outside_the_agreed_path_does_not_leave(world: World) -> None:
    elsewhere = world.folder / "elsewhere"
    script = SCRIPT + f"\nopen({str(elsewhere)!r}, 'w').write('x' * 1000)\n".encode()
    world.script.write_bytes(script)
    base = world.contract()
    agreed = replace(base, function=replace(base.function, sha256=hashlib.sha256(script).hexdigest()))
    cloud = operator(world, agreed)
    report = cloud.run()
    # natively (L1) the file is the host's to see, as `task show` says; of the results it is no part
    assert set(cloud.opened(report.run, "bank-a")) == {"sums", "printed.log"}
    for path in (f"{world.out_path}/../x", "/etc/out", world.data_path):
        with pytest.raises(SealfsError):
            replace(base, outputs={"model": Output(("bank-a",), path, 1)})


def test_more_than_the_size_limit(world: World) -> None:
    base = world.contract()
    cloud = operator(world, replace(base, outputs={"model": replace(base.outputs["model"], max_size=20)}))
    report = cloud.run()
    assert report.code != 0
    assert report.results == {}
    store = world.folder / "results" / report.run / "model"
    assert not (store / "provenance").exists()
    assert len(list((store / "snapshots").iterdir())) == 1  # the empty one with which the run began


def test_a_script_that_fails(world: World) -> None:
    world.script.write_bytes(b"raise ValueError('a secret')")
    base = world.contract()
    digest = hashlib.sha256(world.script.read_bytes()).hexdigest()
    cloud = operator(world, replace(base, function=replace(base.function, sha256=digest)))
    report = cloud.run()
    assert report.code == 1
    (run,) = cloud.task.runs.values()
    assert run.state is State.FAILED
    assert run.counts


def test_a_result_in_place_of_another(world: World) -> None:
    cloud = operator(world)
    first, second = cloud.run(), cloud.run()
    folders = [Path(report.results["model"].address.removeprefix("file://")) for report in (first, second)]
    provenance = (folders[0] / "provenance").read_bytes()
    (folders[1] / "provenance").write_bytes(provenance)
    with pytest.raises(TrustError, match="not the one that the operator reported"):
        cloud.opened(second.run, "bank-a")
    forger = Identity.generate()
    _, found = load_provenance(cloud.task, first.run, "model")
    (folders[0] / "provenance").write_bytes(replace(found, signer=forger.signer).sign(forger))
    with pytest.raises(TrustError, match="not the one that the operator reported"):
        load_provenance(cloud.task, first.run, "model")


def test_evidence_of_another_run_vouches_for_nothing(world: World) -> None:
    cloud = operator(world)
    first, second = cloud.run(), cloud.run()
    task = cloud.task
    _, one = load_provenance(task, first.run, "model")
    _, two = load_provenance(task, second.run, "model")
    with pytest.raises(TrustError, match="of another run"):
        vouch(replace(two, exhibits=one.exhibits), task.contract, SAMPLES)
    with pytest.raises(TrustError, match="of another run"):
        vouch(replace(one, signer=Identity.generate().signer), task.contract, SAMPLES)
    moved = replace(task.contract, runs=7)
    with pytest.raises(TrustError, match="bound to another contract"):
        vouch(one, moved, SAMPLES)


def test_other_bytes_than_the_provenance_vouches_for(world: World) -> None:
    cloud = operator(world)
    report = cloud.run()
    store = Path(report.results["model"].address.removeprefix("file://"))
    _, provenance = load_provenance(cloud.task, report.run, "model")
    for snapshot in (store / "snapshots").iterdir():
        if hashlib.sha256(snapshot.read_bytes()).hexdigest() == provenance.result.snapshot:
            snapshot.chmod(0o600)
            snapshot.write_bytes(snapshot.read_bytes()[:-1])
    with pytest.raises(IntegrityError):
        cloud.opened(report.run, "bank-a")


class PaperEnclave:
    """Carries out contracts as an enclave's measured command does, without an enclave."""

    notice = "no enclave"
    is_enclave = True

    def check(self, job: Job) -> None:
        assert job.contract

    def files(self, job: Job) -> Mapping[str, str]:
        return {"manifest": "measured"}

    def environment(self, job: Job) -> Mapping[str, str]:
        return {}

    def command(self, job: Job) -> Sequence[str]:
        assert job.enclave is not None
        return [
            sys.executable,
            "-m",
            "sealfs.tasks.inside",
            "--from",
            "ciphertext",
            str(job.enclave / "results"),
        ]


@pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="there is no /dev/fuse")
def test_the_way_of_an_enclave(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sealfs.tasks.outside.find_executor", lambda name: PaperEnclave())
    enclave = world.folder / "enclave"
    enclave.mkdir()
    cloud = operator(world)
    with pytest.raises(ExecutorError, match="was made for another run"):
        cloud.run(enclave=enclave)
    (enclave / "manifest").write_text("measured")
    report = cloud.run(enclave=enclave)
    assert report.code == 0
    assert cloud.opened(report.run, "bank-a")["sums"] == "a_1=3 a_2=4 b_1=30"
    assert not (enclave / "ciphertext" / "+told").exists()
    assert list((enclave / "results").iterdir()) == []
