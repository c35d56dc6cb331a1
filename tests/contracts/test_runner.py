"""Contracts at L2, carried out natively: keys by an enrolled runner's word, which is for one contract only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Sealfs

from contracts.test_run import Operator
from contracts.world import World, three_brokers
from sealfs.attestation.evidence import Evidence
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.attestation.runner import RunnerProvider
from sealfs.attestation.verify import Verifier
from sealfs.contracts.files import save_new_task
from sealfs.contracts.task import State
from sealfs.contracts.vouching import vouch
from sealfs.enclave.attach import LIBRARY
from sealfs.enclave.collected import Collected
from sealfs.enclave.keysource import RunnerSecret
from sealfs.enclave.measure import measure
from sealfs.errors import ExecutorError, KeyRefusedError, TrustError
from sealfs.executors.base import MANIFEST, Job, find_executor
from sealfs.keys import Identity
from sealfs.tasks.outside import Report, load_provenance
from sealfs.tasks.release import release

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LIBRARY.exists(), reason="the in-process reader is not built: no C compiler"),
]


class Rehearsal:
    """A machine that a runner has measured, and owners who demand exactly that."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.runner = Identity.generate()
        self.enclave = world.folder / "measured"
        self.enclave.mkdir()
        self.library = world.folder / "library.py"
        self.library.write_text("layers = 3\n")
        Collected.here([str(self.library)], 4, "16G").save(self.enclave)
        job = Job((), None, (), "runner", enclave=self.enclave, contract=True)
        self.manifest = measure(job, find_executor("native")).manifest or ""
        assert self.manifest == hashlib.sha256((self.enclave / MANIFEST).read_bytes()).hexdigest()
        self.policy = world.rehearse(self.runner.signer, self.manifest)

    def operator(self, policy: Policy | None = None) -> Operator:
        return Operator(self.world, self.world.approved(self.world.contract(policy=policy or self.policy)))

    def run(self, cloud: Operator, runner: Identity | None = None, manifest: str | None = None) -> Report:
        word = RunnerSecret(runner or self.runner, manifest or self.manifest)
        return cloud.run(enclave=self.enclave, runner=word)


@pytest.fixture
def rehearsal(tmp_path: Path) -> Iterator[Rehearsal]:
    with three_brokers(tmp_path) as world:
        yield Rehearsal(world)


def refused(rehearsal: Rehearsal, cloud: Operator, report: Report) -> str:
    """Return why a broker refused, as its log has it: nothing has run, nothing was released."""
    assert report.code != 0
    assert report.results == {}
    assert [run.state for run in cloud.task.runs.values()] == [State.FAILED]
    log = rehearsal.world.log_of("bank-a")
    assert "released" not in {record["event"] for record in log}
    return str(log[-1])


def test_carried_out_by_a_runners_word(rehearsal: Rehearsal, capfd: pytest.CaptureFixture[str]) -> None:
    cloud = rehearsal.operator()
    report = rehearsal.run(cloud)
    assert report.code == 0, capfd.readouterr().err
    assert "this run reaches L2" in capfd.readouterr().err
    opened = cloud.opened(report.run, "bank-a")
    assert opened["sums"] == "a_rehearsal=7 b_rehearsal=7"
    _, provenance = load_provenance(cloud.task, report.run, "model")
    assert provenance.level is Level.L2
    contract = cloud.task.contract
    assert vouch(provenance, contract, Verifier(runners=[rehearsal.runner.signer], allow_sample=True)).is_vouched
    with pytest.raises(TrustError, match="not enrolled"):
        vouch(provenance, contract, Verifier(allow_sample=True))


def test_from_the_command_line(rehearsal: Rehearsal, tmp_path: Path) -> None:
    """What a run prints, where a contract shows it to the host, does not get between the lines of the report."""
    world = rehearsal.world
    agreed = world.contract(policy=rehearsal.policy, stdout="host")
    path = tmp_path / "agreed.task"
    save_new_task(path, world.approved(agreed))
    cloud = Sealfs(tmp_path / "cloud", world["cloud"].identity)
    rehearsal.runner.save(tmp_path / "runner")
    words = ["task", "run", path, "--results", tmp_path / "results", "--script", world.script, "--json"]
    alone = cloud(*words, "--runner", tmp_path / "runner", code=2)
    assert "name both: --runner FILE --enclave DIR" in alone.stderr
    ended = cloud(*words, "--runner", tmp_path / "runner", "--enclave", rehearsal.enclave)
    assert list(ended.json["results"]) == ["model"]
    assert (
        "L2: a rehearsal: an enrolled runner signs which manifest it runs, and nothing protects it" in ended.stderr
    )
    assert "trained on 2 files; setting agreed" in ended.stderr
    bank = Sealfs(tmp_path / "bank-a", world["bank-a"].identity)
    public = rehearsal.runner.signer
    found = bank("task", "results", path, "--verify", "--accept-runner", public, "--json").json
    assert [(result["level"], result["vouched_for"]) for result in found] == [("L2", True)]


def test_a_runner_that_is_not_enrolled(rehearsal: Rehearsal, capfd: pytest.CaptureFixture[str]) -> None:
    stranger = Identity.generate()
    cloud = rehearsal.operator()
    report = rehearsal.run(cloud, stranger)
    assert f"the runner {stranger.signer} is not enrolled here" in refused(rehearsal, cloud, report)
    assert "is not enrolled here" in capfd.readouterr().err


def test_no_runner_at_all(rehearsal: Rehearsal) -> None:
    cloud = rehearsal.operator()
    report = cloud.run()
    assert "needs L2; this process offered no evidence" in refused(rehearsal, cloud, report)


def test_something_else_than_was_measured(rehearsal: Rehearsal) -> None:
    """An honest runner does not sign for it; one that says so gets nothing; one that lies is believed (L2)."""
    cloud = rehearsal.operator()
    report = rehearsal.run(cloud, manifest="cd" * 32)
    assert "measurement: demanded one of 1 allow-listed" in refused(rehearsal, cloud, report)
    rehearsal.library.write_text("layers = 4\n")
    with pytest.raises(ExecutorError, match=r"1 files differ from what was measured, .*library\.py"):
        rehearsal.run(cloud)
    rehearsal.library.write_text("layers = 3\n")
    manifest = rehearsal.enclave / MANIFEST
    manifest.write_bytes(manifest.read_bytes().replace(b"library.py", b"another.py"))
    with pytest.raises(ExecutorError, match="was made for another run"):
        rehearsal.run(cloud)
    assert len(cloud.task.runs) == 1  # those that did not start do not count


@pytest.mark.parametrize("level", [Level.L1, Level.L5])
def test_no_contract_lowers_what_owners_demand_and_no_runner_reaches_more(
    level: Level, rehearsal: Rehearsal
) -> None:
    if level is Level.L1:
        cloud = rehearsal.operator(Policy(Level.L1, development=True))
        report = cloud.run()
        assert "needs L2" in refused(rehearsal, cloud, report)
    else:
        cloud = rehearsal.operator(Policy(Level.L5, measurements=rehearsal.policy.measurements))
        report = rehearsal.run(cloud)
        assert "needs L5" in refused(rehearsal, cloud, report)


class Replaying:
    """Makes evidence once, and offers that to everybody from then on."""

    def __init__(self, honest: RunnerProvider) -> None:
        self.tee = honest.tee
        self._honest = honest
        self._made: Evidence | None = None

    def collect(self, report_data: bytes) -> Evidence:
        self._made = self._made or self._honest.collect(report_data)
        return self._made


def test_evidence_that_binds_another_contract(rehearsal: Rehearsal) -> None:
    world = rehearsal.world
    agreed = world.approved(world.contract(policy=rehearsal.policy)).contract
    runner = RunnerProvider(rehearsal.runner, rehearsal.manifest)
    other = replace(agreed, outputs={"model": replace(agreed.outputs["model"], recipients=("cloud",))})
    with pytest.raises(KeyRefusedError, match="does not know the contract"):
        release(other, Identity.generate(), "ab" * 16, runner)
    replaying = Replaying(runner)
    with pytest.raises(KeyRefusedError):  # its evidence is bound to what nobody has signed
        release(other, Identity.generate(), "ab" * 16, replaying)
    with pytest.raises(KeyRefusedError, match="bound"):
        release(agreed, Identity.generate(), "ab" * 16, replaying)
    assert not any(record["event"] == "released" for record in world.log_of("bank-a"))
    release(agreed, Identity.generate(), "ab" * 16, runner)


LOOKS_AROUND = """
import os, sys
links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
names = [os.readlink(link) for link in links if os.path.lexists(link)]
with open(sys.argv[2] + "/seen", "w") as file:
    file.write(repr([[name for name in names if "secret" in name], sys.stdin.read()]))
"""


def test_the_runners_secret_does_not_reach_the_script(rehearsal: Rehearsal) -> None:
    world = rehearsal.world
    world.script.write_text(LOOKS_AROUND)
    base = world.contract(policy=rehearsal.policy)
    digest = hashlib.sha256(world.script.read_bytes()).hexdigest()
    cloud = Operator(world, world.approved(replace(base, function=replace(base.function, sha256=digest))))
    report = rehearsal.run(cloud)
    assert report.code == 0
    assert cloud.opened(report.run, "bank-a")["seen"] == "[[], '']"
