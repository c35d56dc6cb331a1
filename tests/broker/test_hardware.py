"""SGX and TDX machines made of paper against a broker: what the levels above rehearsals are for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from attestation.hardware import MRENCLAVE, MRSIGNER, TDX_MEASUREMENT, SyntheticProvider

from broker.tools import MACHINE, STRICT, Broker
from sealfs.attestation.evidence import Evidence
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.attestation.verdict import RegisteredManifest
from sealfs.errors import KeyRefusedError


def enclave(**options: Any) -> SyntheticProvider:
    return SyntheticProvider(MACHINE, "sgx", **options)


@pytest.fixture
def registered(broker: Broker) -> Broker:
    """A broker that knows the enclave's manifest, which lets nobody in."""
    broker.member().register(RegisteredManifest(MRENCLAVE, Level.L5))
    return broker


def test_an_enclave_gets_the_keys(registered: Broker) -> None:
    keys = registered.publish(STRICT)
    released = registered.client(enclave()).resource("owner", keys.dataset)
    assert released.keys.pack() == keys.pack()
    assert released.level == Level.L5


def test_a_guest_gets_what_its_level_allows(broker: Broker) -> None:
    guest = SyntheticProvider(MACHINE, "tdx")
    broker.intel.says = MACHINE.collateral("tdx")
    policy = Policy.from_json({"level": "L4", "measurements": {"tdx": [TDX_MEASUREMENT]}})
    keys, strict = broker.publish(policy), broker.publish(STRICT)
    client = broker.client(guest)
    assert client.resource("owner", keys.dataset).level == Level.L4
    with pytest.raises(KeyRefusedError, match="needs L5; this process offered 'tdx' evidence"):
        client.resource("owner", strict.dataset)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"debug": True}, "[Dd]ebug"),
        ({"mrenclave": "e2" * 32}, "measurement: demanded one of 1"),
    ],
)
def test_another_enclave(registered: Broker, options: dict[str, Any], words: str) -> None:
    keys = registered.publish(STRICT)
    with pytest.raises(KeyRefusedError, match=words):
        registered.client(enclave(**options)).resource("owner", keys.dataset)


@pytest.mark.parametrize(
    ("collateral", "words"),
    [
        ({"status": "OutOfDate"}, "TCB status: demanded UpToDate, offered OutOfDate"),
        ({"status": "SWHardeningNeeded"}, "TCB status"),
        ({"status": "Revoked"}, "evoked"),
        ({"advisories": ("INTEL-SA-00615",)}, "advisories: demanded none, offered INTEL-SA-00615"),
        ({"pck_revoked": True}, "certificate chain"),
    ],
)
def test_a_platform_that_is_not_up_to_date(registered: Broker, collateral: dict[str, Any], words: str) -> None:
    keys = registered.publish(STRICT)
    registered.intel.says = MACHINE.collateral(**collateral)
    with pytest.raises(KeyRefusedError, match=words):
        registered.client(enclave()).resource("owner", keys.dataset)


def test_a_status_that_is_allowed_explicitly(registered: Broker) -> None:
    policy = replace(
        STRICT,
        tcb_statuses=frozenset({"SWHardeningNeeded"}),
        advisories=frozenset({"INTEL-SA-00615"}),
        minimum_evaluation_number=17,
    )
    keys = registered.publish(policy)
    registered.intel.says = MACHINE.collateral(status="SWHardeningNeeded", advisories=("INTEL-SA-00615",))
    assert registered.client(enclave()).resource("owner", keys.dataset).level == Level.L5
    stricter = replace(policy, minimum_evaluation_number=18)
    member = registered.member()
    member.set_policy(keys.dataset, stricter, member.held(keys.dataset).revision)
    with pytest.raises(KeyRefusedError, match="evaluation number: demanded 18 or more, offered 17"):
        registered.client(enclave()).resource("owner", keys.dataset)


def test_collateral_that_expires_during_a_session(registered: Broker) -> None:
    keys = registered.publish(STRICT)

    registered.intel.says = MACHINE.collateral(
        expires=datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=60)
    )
    client = registered.client(enclave())
    client.resource("owner", keys.dataset)
    registered.clock.offset = 90
    with pytest.raises(KeyRefusedError, match="collateral: demanded in date"):
        client.resource("owner", keys.dataset)


def test_a_manifest_that_lets_the_host_in(broker: Broker) -> None:
    """The measurement is right, and what was measured is not good enough."""
    keys = broker.publish(STRICT)
    client = broker.client(enclave())
    with pytest.raises(KeyRefusedError, match="not registered"):
        client.resource("owner", keys.dataset)
    broker.member().register(RegisteredManifest(MRENCLAVE, Level.L1, ("loader.insecure__use_cmdline_argv",)))
    with pytest.raises(KeyRefusedError, match=r"one for L1: loader\.insecure__use_cmdline_argv"):
        client.resource("owner", keys.dataset)
    broker.member().register(RegisteredManifest(MRENCLAVE, Level.L5))
    client.resource("owner", keys.dataset)


def test_by_who_signed_it(registered: Broker) -> None:
    def policy(svn: int) -> Policy:
        return Policy.from_json({"signers": [{"signer": MRSIGNER, "product": 0, "minimum_svn": svn}]})

    old, new = registered.publish(policy(0)), registered.publish(policy(9))
    client = registered.client(enclave(product=0, svn=3))
    client.resource("owner", old.dataset)
    with pytest.raises(KeyRefusedError, match="SVN 9 or more"):
        client.resource("owner", new.dataset)


def test_a_machine_that_nobody_vouches_for(registered: Broker) -> None:
    from attestation.hardware import Machine

    keys = registered.publish(STRICT)
    forged = Machine(MACHINE.now)
    registered.intel.says = forged.collateral()
    with pytest.raises(KeyRefusedError):
        registered.client(SyntheticProvider(forged)).resource("owner", keys.dataset)


def test_a_quote_that_was_made_before(registered: Broker) -> None:
    """Whatever is bound to another challenge is somebody else's."""
    keys = registered.publish(STRICT)

    class Replaying:
        tee = "sgx"
        kept: Evidence | None = None

        def collect(self, report_data: bytes) -> Evidence:
            self.kept = self.kept or enclave().collect(report_data)
            return self.kept

    provider = Replaying()
    registered.client(provider).resource("owner", keys.dataset)
    with pytest.raises(KeyRefusedError, match="bound to another challenge, key or broker"):
        registered.client(provider).resource("owner", keys.dataset)
