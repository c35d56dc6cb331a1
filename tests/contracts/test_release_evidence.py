"""Release by contract, to what proves what it is: an enrolled runner's word, and synthetic hardware."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from attestation.hardware import MRENCLAVE, SyntheticProvider
from broker.tools import MACHINE

from contracts.test_provenance import made
from contracts.world import RUN, World
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.attestation.runner import RunnerProvider
from sealfs.attestation.sample import SampleProvider
from sealfs.attestation.verdict import RegisteredManifest
from sealfs.attestation.verify import Verifier
from sealfs.broker.client import BrokerClient, Released
from sealfs.contracts.provenance import Exhibit
from sealfs.contracts.vouching import vouch
from sealfs.errors import KeyRefusedError, TrustError
from sealfs.keys import Identity
from sealfs.tasks.release import release


def test_a_contract_that_is_not_known_gets_nothing_also_where_none_is_demanded(world: World) -> None:
    """What carries out contracts does what it was handed: its measurement says nothing of that."""
    runner = Identity.generate()
    policy = world.rehearse(runner.signer, "ab" * 32)
    world.seal("bank-a", "loans-a", {"2": b"7\n"}, policy=policy)
    data, broker = world["bank-a"].data["loans-a"], world["bank-a"].broker
    assert broker is not None
    assert not policy.contract

    def ask_bound_to(bound: str | None) -> Released:
        enclave = BrokerClient(broker.address, RunnerProvider(runner, "ab" * 32), bound=bound)
        return enclave.resource("bank-a", bytes.fromhex(data.dataset), data.version)

    with pytest.raises(KeyRefusedError, match="does not know the contract"):
        ask_bound_to(world.contract().digest)
    assert ask_bound_to(None).level is Level.L2


def test_a_rehearsal_with_evidence_and_what_vouches_for_its_results(world: World) -> None:
    """L2: an enrolled runner says what it runs, and signs contract and results' key along with it."""
    runner = Identity.generate()
    task = world.approved(world.contract(policy=world.rehearse(runner.signer, "ab" * 32)))
    with pytest.raises(KeyRefusedError, match="needs L2"):
        release(task.contract, Identity.generate(), RUN, SampleProvider())
    with pytest.raises(KeyRefusedError, match="measurement"):
        release(task.contract, Identity.generate(), RUN, RunnerProvider(runner, "cd" * 32))
    run_identity = Identity.generate()
    keys = release(task.contract, run_identity, RUN, RunnerProvider(runner, "ab" * 32))
    assert keys.level is Level.L2
    provenance = made(
        task.contract, run=RUN, signer=run_identity.signer, level=Level.L2, tee=keys.tee, exhibits=keys.exhibits,
        started=datetime.now(UTC), finished=datetime.now(UTC),
    )  # fmt: skip
    vouched = vouch(provenance, task.contract, Verifier(runners=[runner.signer], allow_sample=True))
    assert vouched.is_vouched
    with pytest.raises(TrustError, match="not enrolled"):
        vouch(provenance, task.contract, Verifier(allow_sample=True))
    with pytest.raises(TrustError, match="does not reach"):
        vouch(replace(provenance, level=Level.L5), task.contract, Verifier(runners=[runner.signer]))
    for level in (Level.L2, Level.L5):  # by anybody, who need not have asked a broker
        with pytest.raises(TrustError, match=f"nothing vouches for the result: agreed is L2, .* at {level}"):
            vouch(replace(provenance, level=level, exhibits=()), task.contract, Verifier())
    others = replace(provenance, exhibits=(Exhibit(keys.exhibits[0].runtime_data, keys.exhibits[1].evidence),))
    with pytest.raises(TrustError, match="does not verify"):
        vouch(others, task.contract, Verifier(runners=[runner.signer]))


def test_enclaves_made_of_paper_get_what_was_agreed_for_them_only(world: World) -> None:
    """L5 with synthetic hardware, under a root of the tests' own: as near as this gets without SGX."""
    measured = {"sgx": frozenset({MRENCLAVE})}
    for owner in ("bank-a", "bank-b"):
        world.seal(owner, f"loans-{owner[-1]}", {"2": b"7\n"}, policy=Policy(measurements=measured, contract=True))
        broker = world[owner].broker
        assert broker is not None
        broker.member().register(RegisteredManifest(MRENCLAVE, Level.L5))
    task = world.approved(world.contract(policy=Policy(measurements=measured)))
    run_identity = Identity.generate()
    keys = release(task.contract, run_identity, RUN, SyntheticProvider(MACHINE))
    assert keys.level is Level.L5
    for options in ({"debug": True}, {"mrenclave": "e2" * 32}):
        with pytest.raises(KeyRefusedError):
            release(task.contract, Identity.generate(), RUN, SyntheticProvider(MACHINE, **options))
    shown = world.approved(world.contract(policy=Policy(Level.L4, measurements=measured), stdout="host"))
    with pytest.raises(KeyRefusedError, match=r"needs L5.*L4"):  # the owners': at L5 the host reads nothing
        release(shown.contract, Identity.generate(), RUN, SyntheticProvider(MACHINE))
    other = world.approved(world.contract(policy=Policy(measurements={"sgx": frozenset({"e2" * 32})})))
    with pytest.raises(KeyRefusedError, match="measurement"):  # by the contract's, not the owners' policies
        release(other.contract, Identity.generate(), RUN, SyntheticProvider(MACHINE))
    now = datetime.now(UTC).replace(microsecond=0)
    provenance = made(
        task.contract, run=RUN, signer=run_identity.signer, level=Level.L5, tee=keys.tee, exhibits=keys.exhibits,
        started=now, finished=now,
    )  # fmt: skip
    broker = world["bank-a"].broker
    assert broker is not None
    vouched = vouch(provenance, task.contract, Verifier(collateral=broker.intel, intel_root=MACHINE.root_der))
    assert vouched.is_vouched
    assert any("reaches L5" in line for line in vouched.findings)
    with pytest.raises(TrustError, match="does not verify"):  # under Intel's own root it is worth nothing
        vouch(provenance, task.contract, Verifier(collateral=broker.intel))
