"""Under gramine-direct, wherever it is on PATH: keys by a runner's evidence alone, or a reason why not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from commands import Outcome, Sealfs, broker_started
from rehearsals import GRAMINE, rehearsal

from sealfs.attestation.levels import Level
from sealfs.enclave.measure import manifest_digest
from sealfs.executors.base import MANIFEST
from sealfs.keys import Identity

pytestmark = GRAMINE

SCRIPT = """
import sys
data, out = sys.argv[1:]
numbers = list(map(int, open(data + "/numbers").read().split()))
open(out + "/model", "w").write(str(sum(numbers)))
print("trained on", len(numbers))
"""
NUMBERS = range(1000)
STRICT = 'measurements = { sgx = ["' + "cd" * 32 + '"] }\n'


@dataclass(frozen=True)
class World:
    """An owner with a broker and a sealed dataset, and a host that holds nothing but a runner's identity.

    Attributes:
        url: The broker's address.
        host: Who starts enclaves; no recipient of the dataset.
        keys: Where keys come from, as `--keys` has it.
        enclave: The folder that was measured for that.
    """

    folder: Path
    owner: Sealfs
    owner_identity: Identity
    host: Sealfs
    url: str
    keys: str
    enclave: Path

    @property
    def runner(self) -> Path:
        return self.host.identity_path

    def _job(self, results: Path) -> list[object]:
        place = self.folder / "data"
        return [
            *("--executor", "gramine-direct", "--enclave", self.enclave, "--keys", self.keys),
            *("--data", f"{self.folder / 'store'}:{place}", "--signer", self.owner_identity.signer),
            *("--out", f"{results}:{self.folder / 'out'}", "--out-recipient", self.owner_identity.recipient),
        ]

    def _command(self) -> list[object]:
        return ["--", sys.executable, self.folder / "train.py", self.folder / "data", self.folder / "out"]

    def measure(self, *options: object) -> Outcome:
        """Measure the script with the plain folder at the data's path."""
        place = self.folder / "data"
        place.symlink_to(self.folder / "plain")
        try:
            job = self._job(self.folder / "nowhere")
            return self.owner("measure", *job, *options, *self._command(), timeout=600)
        finally:
            place.unlink()

    def run(self, results: str, *, runner: Path | None = None, code: int | None = 4) -> Outcome:
        """Run the script in Gramine, on the host's behalf."""
        job = self._job(self.folder / results)
        if self.keys == "runner":
            job += ["--runner", runner or self.runner]
        return self.host("run", *job, *self._command(), code=code, timeout=300)

    def demand(self, text: str) -> None:
        """Replace the dataset's policy."""
        dataset = self.owner("stat", self.folder / "store", "--json").json["dataset"]
        self.owner("broker", "policy", dataset, self.policy(text), "--broker", self.url)

    def policy(self, text: str) -> Path:
        path = self.folder / "policy.toml"
        path.write_text(text)
        return path

    def last(self) -> dict[str, Any]:
        """What the broker has logged last; each record before it was verified."""
        return dict(json.loads(self.owner("broker", "log", "--json", "--local").lines[-1]))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A dataset at L2 whose only allow-listed manifest is measured and registered, and its broker on loopback."""
    folder = tmp_path_factory.mktemp("evidence")
    identity = Identity.generate()
    owner = Sealfs(folder / "owner", identity)
    host = Sealfs(folder / "host", Identity.generate())
    (folder / "plain").mkdir()
    (folder / "plain" / "numbers").write_text(" ".join(map(str, NUMBERS)))
    (folder / "train.py").write_text(SCRIPT)
    with broker_started(owner, folder) as address:
        url = address.replace("127.0.0.1", "localhost", 1)  # the enclave looks the name up, too
        made = World(folder, owner, identity, host, url, "runner", folder / "enclave")
        registered = made.measure("--register", url)
        digest = manifest_digest(made.enclave)
        assert f"registered {digest}: it may serve L2" in registered.stderr
        policy = made.policy(rehearsal(digest))
        pushed = owner("push", folder / "plain", folder / "store", "--broker", url, "--policy", policy)
        assert "to what proves L2" in pushed.stderr
        enrol = ("broker", "enrol", "runner", "node-1", host.identity_path.with_name("identity.pub"))
        owner(*enrol, "--broker", url)
        yield made


def refused(ended: Outcome, world: World, results: str) -> str:
    """Return the reason for a refusal: the script has not run, and nothing was sealed."""
    said = ended.text + ended.stderr  # Gramine writes both to standard output
    assert "trained on" not in said
    assert not (world.folder / results / "head").exists()
    return said


def test_by_evidence_alone(world: World) -> None:
    """The host's own identity opens nothing; what is made is the owner's, and says how little protected it."""
    opened = world.host("cat", world.folder / "store", "numbers", code=None)
    assert opened.code != 0
    ended = world.run("results", code=0)
    assert f"trained on {len(NUMBERS)}" in ended.text
    assert "gramine-direct is NO ENCLAVE" in ended.stderr
    results = world.folder / "results"
    assert world.owner("cat", results, "model").text == str(sum(NUMBERS))
    stat = world.owner("stat", results, "--json")
    assert stat.json["level"].startswith(f"{Level.L2}")
    assert "was made at L2" in stat.stderr
    last = world.last()
    assert (last["event"], last["tee"], last["level"]) == ("released", "sealfs-runner", "L2")


def test_a_runner_that_is_not_enrolled(world: World, tmp_path: Path) -> None:
    stranger = Identity.generate()
    stranger.save(tmp_path / "stranger")
    ended = world.run("stranger", runner=tmp_path / "stranger")
    reason = f"the runner {stranger.signer} is not enrolled here"
    assert reason in refused(ended, world, "stranger")
    last = world.last()
    assert (last["event"], last["tee"], last["reason"]) == ("evidence refused", "sealfs-runner", reason)


def test_a_manifest_that_was_changed_after_measuring(world: World) -> None:
    """First it is not what the policy lists; once it is listed, it still is not registered."""
    manifest = world.enclave / MANIFEST
    measured = manifest.read_bytes()
    digest = manifest_digest(world.enclave)
    try:
        manifest.write_bytes(measured + b"# one line more\n")
        changed = manifest_digest(world.enclave)
        said = refused(world.run("changed"), world, "changed")
        assert f"measurement: demanded one of 1 allow-listed for 'sealfs-runner', offered {changed}" in said
        world.demand(rehearsal(changed))
        said = refused(world.run("changed"), world, "changed")
        assert "this dataset needs L2; this process offered 'sealfs-runner' evidence" in said
        assert "one that is not registered ('sealfs measure --register')" in said
        assert "measurement" not in said
    finally:
        manifest.write_bytes(measured)
        world.demand(rehearsal(digest))


def test_a_dataset_that_needs_hardware(world: World) -> None:
    world.demand(STRICT)
    try:
        said = refused(world.run("strict"), world, "strict")
        last = world.last()
    finally:
        world.demand(rehearsal(manifest_digest(world.enclave)))
    assert "this dataset needs L5; this process offered 'sealfs-runner' evidence" in said
    assert (last["event"], last["demanded"], last["level"]) == ("refused", "L5", "L2")
    assert last["reason"] in said


def test_there_is_no_quote_without_sgx(world: World) -> None:
    """`--keys attested` asks with what this place can prove, which is nothing."""
    other = replace(world, keys="attested", enclave=world.folder / "attested")
    other.measure("--register", world.url)
    said = refused(other.run("attested"), other, "attested")
    assert "this dataset needs L2; this process offered no evidence" in said
    last = world.last()
    assert (last["event"], last["demanded"], last["level"]) == ("refused", "L2", "L1")
