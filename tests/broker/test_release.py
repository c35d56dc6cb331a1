"""Evidence in, key out: what is released, and what is refused and in which words."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.tools import DEVELOPMENT, MANIFEST, REHEARSAL, STRICT, Broker, digest_of, running
from sealfs.attestation.binding import RuntimeData
from sealfs.attestation.canonical import Members, parse_json
from sealfs.attestation.evidence import Evidence
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.attestation.runner import RunnerProvider
from sealfs.attestation.verdict import RegisteredManifest
from sealfs.broker import protocol
from sealfs.broker.address import BrokerAddress
from sealfs.broker.client import BrokerClient
from sealfs.broker.jose import RunKey
from sealfs.broker.protocol import Attestation, Challenge, Request
from sealfs.broker.transport import Connection, ProblemError
from sealfs.dataset.keyring import DatasetKeys
from sealfs.errors import BrokerError, KeyRefusedError
from sealfs.keys import Identity


class Steps:
    """The protocol's steps one by one, for who does not keep to their order or content."""

    def __init__(self, broker: Broker, provider: RunnerProvider) -> None:
        self._broker = broker
        self._provider = provider
        self.key = RunKey()

    def auth(self) -> tuple[str, str]:
        """Return cookie and nonce."""
        with Connection(self._broker.address) as connection:
            answer = connection.ask("POST", protocol.AUTH_PATH, Request("0.1.1", self._provider.tee).to_bytes())
        assert answer.cookie
        return answer.cookie, Challenge.parse(answer.body).nonce

    def attestation(self, nonce: str, key: RunKey | None = None, **extra: object) -> bytes:
        extra = {"broker": self._broker.home.identity} | extra
        runtime = RuntimeData(nonce, (key or self.key).public, {k: v for k, v in extra.items() if v is not None})
        return Attestation(runtime, self._provider.collect(runtime.report_data()).body).to_bytes()

    def attest(self, cookie: str, attestation: bytes) -> str:
        """Return the token."""
        with Connection(self._broker.address) as connection:
            answer = connection.ask("POST", protocol.ATTEST_PATH, attestation, cookie)
        return Members.parse(answer.body, "token").text("token")

    def fetch(self, cookie: str, dataset: bytes) -> bytes:
        with Connection(self._broker.address) as connection:
            answer = connection.ask("GET", f"{protocol.RESOURCE_PATH}/owner/{dataset.hex()}/latest", cookie=cookie)
        return self.key.open(Members.parse(answer.body, "response"))


@pytest.fixture
def steps(broker: Broker) -> Steps:
    return Steps(broker, broker.runner())


def events(broker: Broker) -> list[str]:
    return [record["event"] for record in broker.member().log()]


def test_a_runner_gets_the_keys(broker: Broker) -> None:
    keys = broker.publish(REHEARSAL, version=3)
    released = broker.client(broker.runner()).resource("owner", keys.dataset)
    assert released.keys.pack() == keys.pack()
    assert (released.version, released.sha256) == (3, digest_of(3))
    assert released.signer == broker.owner.signer
    assert (released.level, released.demanded) == (Level.L2, Level.L2)
    assert events(broker)[-2:] == ["attested", "released"]


def test_without_evidence_only_made_up_data_is_given_out(broker: Broker) -> None:
    made_up, real = broker.publish(DEVELOPMENT), broker.publish(STRICT)
    client = broker.client()
    assert client.resource("owner", made_up.dataset).level == Level.L1
    with pytest.raises(KeyRefusedError, match="this dataset needs L5; this process offered no evidence"):
        client.resource("owner", real.dataset)
    assert client.resource("owner", made_up.dataset).keys.pack() == made_up.pack()
    assert events(broker)[-3:] == ["released", "refused", "released"]


def test_a_low_dataset_lowers_nothing_for_a_high_one(broker: Broker) -> None:
    """One session, first a dataset that L2 will do for, then one that needs L5, also under the same owner."""
    low, high = broker.publish(REHEARSAL), broker.publish(STRICT)
    client = broker.client(broker.runner())
    client.resource("owner", low.dataset)
    with pytest.raises(KeyRefusedError, match="needs L5; this process offered 'sealfs-runner' evidence"):
        client.resource("owner", high.dataset)


def test_an_owners_weak_policy_for_anothers_dataset_gives_nothing_away(broker: Broker) -> None:
    """Mallory may publish under the same id: it is her own entry, with her own keys."""
    keys = broker.publish(STRICT)
    mallory = Identity.generate()
    broker.member().call(
        "set-member", {"name": "mallory", "signer": str(mallory.signer), "roles": ["owner"], "revision": 0}
    )
    forged = DatasetKeys(keys.dataset, {1: bytes(32)})
    broker.member(mallory).publish(forged, 1, bytes(32), mallory.signer, DEVELOPMENT, 0)
    released = broker.client().resource("mallory", keys.dataset)
    assert released.keys.pack() == forged.pack()
    with pytest.raises(KeyRefusedError, match="needs L5"):
        broker.client().resource("owner", keys.dataset)


def test_anothers_registered_manifest_does_not_count(broker: Broker) -> None:
    """What Mallory registers of a measurement raises nobody else's level."""
    identity, mallory = Identity.generate(), Identity.generate()
    member = broker.member()
    member.call("enrol", {"kind": "sealfs-runner", "name": "r", "value": str(identity.signer), "revision": 0})
    roles = {"name": "mallory", "signer": str(mallory.signer), "roles": ["owner"], "revision": 0}
    member.call("set-member", roles)
    broker.member(mallory).register(RegisteredManifest(MANIFEST, Level.L5))
    keys = broker.publish(REHEARSAL)
    with pytest.raises(KeyRefusedError, match="not registered"):
        broker.client(RunnerProvider(identity, MANIFEST)).resource("owner", keys.dataset)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda client, keys: client.resource("owner", os.urandom(16)), "this broker has no owner/"),
        (lambda client, keys: client.resource("somebody", keys.dataset), "this broker has no somebody/"),
        (lambda client, keys: client.resource("owner", keys.dataset, 1), "version 1 is out of date"),
        (lambda client, keys: client.resource("owner", keys.dataset, 3), "no version 3, the newest is 2"),
    ],
)
def test_the_right_environment_asking_for_something_else(
    broker: Broker, ask: Callable[[BrokerClient, DatasetKeys], object], words: str
) -> None:
    keys = broker.publish(REHEARSAL)
    broker.publish(None, keys, version=2)
    client = broker.client(broker.runner())
    assert client.resource("owner", keys.dataset, 2).version == 2
    with pytest.raises(KeyRefusedError, match=words):
        ask(client, keys)


def test_a_withdrawn_dataset(broker: Broker) -> None:
    keys = broker.publish(REHEARSAL)
    client = broker.client(broker.runner())
    client.resource("owner", keys.dataset)
    broker.member().withdraw(keys.dataset, broker.member().held(keys.dataset).revision)
    with pytest.raises(KeyRefusedError, match="withdrawn"):
        client.resource("owner", keys.dataset)
    broker.publish(None, keys, version=2)  # as pushes go on
    with pytest.raises(KeyRefusedError, match="withdrawn"):
        client.resource("owner", keys.dataset)
    broker.publish(REHEARSAL, keys, version=3)  # on purpose
    assert client.resource("owner", keys.dataset).version == 3


def test_a_policy_that_changes_holds_for_open_sessions(broker: Broker) -> None:
    keys = broker.publish(REHEARSAL)
    client = broker.client(broker.runner())
    client.resource("owner", keys.dataset)
    member = broker.member()
    member.set_policy(keys.dataset, STRICT, member.held(keys.dataset).revision)
    with pytest.raises(KeyRefusedError, match="needs L5"):
        client.resource("owner", keys.dataset)


def test_a_runner_that_is_struck_off(broker: Broker) -> None:
    keys = broker.publish(REHEARSAL)
    provider = broker.runner()
    (enrolled,) = broker.member().enrolled()
    broker.member().call("strike", {"kind": enrolled["kind"], "name": enrolled["name"], "revision": 1})
    with pytest.raises(KeyRefusedError, match="not enrolled"):
        broker.client(provider).resource("owner", keys.dataset)
    assert events(broker)[-1] == "evidence refused"


def test_a_replayed_nonce(broker: Broker, steps: Steps) -> None:
    """The whole exchange again, by somebody who has seen it."""
    keys = broker.publish(REHEARSAL)
    cookie, nonce = steps.auth()
    attestation = steps.attestation(nonce)
    steps.attest(cookie, attestation)
    assert keys.pack().hex().encode() in steps.fetch(cookie, keys.dataset)
    with pytest.raises(ProblemError, match="answered before"):
        steps.attest(cookie, attestation)
    assert events(broker)[-1] == "evidence refused"


def test_a_nonce_is_spent_across_a_restart(tmp_path: Path, owner: Identity) -> None:
    with running(tmp_path, owner) as broker:
        steps = Steps(broker, broker.runner())
        cookie, nonce = steps.auth()
        attestation = steps.attestation(nonce)
        steps.attest(cookie, attestation)
        unanswered = steps.auth()
    with running(tmp_path, owner) as broker:
        again = Steps(broker, steps._provider)
        again.key = steps.key
        with pytest.raises(ProblemError, match="answered before"):
            again.attest(cookie, attestation)
        again.attest(unanswered[0], again.attestation(unanswered[1]))  # which was issued before the restart


def test_a_session_that_ended_with_the_broker_is_made_anew(tmp_path: Path, owner: Identity) -> None:
    with running(tmp_path, owner) as broker:
        keys = broker.publish(REHEARSAL)
        provider = broker.runner()
        client = broker.client(provider)
        client.resource("owner", keys.dataset)
    with running(tmp_path, owner) as broker:
        client._address = broker.address
        assert client.resource("owner", keys.dataset).keys.pack() == keys.pack()


def test_an_old_challenge(broker: Broker, steps: Steps) -> None:
    cookie, nonce = steps.auth()
    broker.clock.offset = 301
    with pytest.raises(ProblemError, match="too old"):
        steps.attest(cookie, steps.attestation(nonce))


def test_an_old_session(broker: Broker, steps: Steps) -> None:
    keys = broker.publish(REHEARSAL)
    cookie, nonce = steps.auth()
    steps.attest(cookie, steps.attestation(nonce))
    broker.clock.offset = 301
    with pytest.raises(ProblemError, match="has ended"):
        steps.fetch(cookie, keys.dataset)


def test_a_challenge_with_another_ones_cookie(broker: Broker, steps: Steps) -> None:
    cookie, nonce = steps.auth()
    other, _ = steps.auth()
    with pytest.raises(ProblemError, match="not issued here"):
        steps.attest(other, steps.attestation(nonce))
    forged = cookie.replace("sealfs-runner", "sample")
    with pytest.raises(ProblemError, match="not issued here"):
        steps.attest(forged, steps.attestation(nonce))


def test_evidence_for_another_key(broker: Broker, steps: Steps) -> None:
    """A relay: Mallory has the evidence of the real one, and her own key."""
    cookie, nonce = steps.auth()
    members = parse_json(steps.attestation(nonce), "attestation")
    members["runtime-data"]["tee-pubkey"] = RunKey().public
    from sealfs.attestation.canonical import canonical

    with pytest.raises(ProblemError, match="bound to another"):
        steps.attest(cookie, canonical(members))


def test_what_is_released_opens_for_the_attested_key_only(broker: Broker, steps: Steps) -> None:
    """Mallory has stolen the cookie: what she gets is of no use to her."""
    keys = broker.publish(REHEARSAL)
    cookie, nonce = steps.auth()
    steps.attest(cookie, steps.attestation(nonce))
    steps.key = RunKey()
    with pytest.raises(BrokerError, match="does not open"):
        steps.fetch(cookie, keys.dataset)


def test_evidence_for_another_broker(broker: Broker, steps: Steps) -> None:
    cookie, nonce = steps.auth()
    other = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    with pytest.raises(ProblemError, match="for another broker"):
        steps.attest(cookie, steps.attestation(nonce, broker=other))
    cookie, nonce = steps.auth()
    with pytest.raises(ProblemError, match="names no broker"):
        steps.attest(cookie, steps.attestation(nonce, broker=None))


def test_a_broker_in_the_middle_gets_nothing_from_the_next(tmp_path: Path, owner: Identity) -> None:
    """The enclave attests to a malicious broker, which has taken the nonce from the real one."""
    with running(tmp_path / "real", owner) as real, running(tmp_path / "evil", owner) as evil:
        provider = real.runner()
        cookie, nonce = Steps(real, provider).auth()
        for_evil = Steps(evil, provider).attestation(nonce)  # what the enclave says to whom it is connected to
        with pytest.raises(ProblemError, match="for another broker"):
            Steps(real, provider).attest(cookie, for_evil)


def test_another_broker_at_the_address(broker: Broker) -> None:
    keys = broker.publish(DEVELOPMENT)
    there = broker.address
    wrong = BrokerAddress(there.host, there.port, identity="sha256:" + "0" * 64)
    with pytest.raises(BrokerError, match=f"is {broker.home.identity}, not sha256:00"):
        BrokerClient(wrong, None).resource("owner", keys.dataset)
    with pytest.raises(BrokerError, match="does not answer"):  # no authority vouches for it
        BrokerClient(BrokerAddress(there.host, there.port), None).resource("owner", keys.dataset)


@pytest.mark.error_logs
def test_the_clock_moved_back(broker: Broker, steps: Steps) -> None:
    """Then what has expired would be good again: nothing is released before it is set right."""
    keys = broker.publish(DEVELOPMENT)
    client = broker.client()
    client.resource("owner", keys.dataset)
    broker.clock.offset = -3600
    with pytest.raises(BrokerError, match=r"clock is 3\d\d\d s behind its log"):
        client.resource("owner", keys.dataset)
    broker.clock.offset = -30  # as time services do
    client.resource("owner", keys.dataset)


def test_what_the_caller_binds_is_logged(broker: Broker) -> None:
    keys = broker.publish(REHEARSAL)
    contract = hashlib.sha256(b"a contract").hexdigest()
    client = BrokerClient(broker.address, broker.runner(), bound=contract)
    with pytest.raises(KeyRefusedError, match="does not know the contract"):
        client.resource("owner", keys.dataset)
    *_, last = broker.member().log()
    assert last["bound"] == contract
    with pytest.raises(KeyRefusedError, match="no digest"):
        BrokerClient(broker.address, broker.runner(), bound="nonsense").resource("owner", keys.dataset)


def test_a_policy_that_names_no_measurement_lets_nobody_in(broker: Broker) -> None:
    keys = broker.publish(Policy.from_json({"level": "L2"}))
    with pytest.raises(KeyRefusedError, match="measurement: demanded one of 0"):
        broker.client(broker.runner()).resource("owner", keys.dataset)


def test_a_runner_that_lies_about_its_manifest(broker: Broker, steps: Steps) -> None:
    """Its signature covers what it said."""
    cookie, nonce = steps.auth()
    runtime = RuntimeData(nonce, steps.key.public, {"broker": broker.home.identity})
    honest = steps._provider.collect(runtime.report_data()).body
    from base64 import b64decode, b64encode

    payload = b64decode(honest["payload"]).replace(MANIFEST.encode(), b"cd" * 32)
    lie = Evidence("sealfs-runner", {**honest, "payload": b64encode(payload).decode()})
    with pytest.raises(ProblemError, match="no valid signature"):
        steps.attest(cookie, Attestation(runtime, lie.body).to_bytes())


def test_the_log_tells_what_and_why(broker: Broker) -> None:
    keys = broker.publish(STRICT, version=7)
    with pytest.raises(KeyRefusedError):
        broker.client(broker.runner()).resource("owner", keys.dataset)
    *_, attested, refused = broker.member().log()
    assert attested["session"] == refused["session"]
    assert refused["resource"] == f"owner/{keys.dataset.hex()}/latest"
    assert refused["measurement"] == MANIFEST
    assert refused["policy"] == STRICT.digest
    assert (refused["version"], refused["sha256"]) == (7, digest_of(7).hex())
    assert (refused["level"], refused["demanded"]) == ("L2", "L5")
    assert refused["reason"].startswith("this dataset needs L5")
    assert keys.pack().hex() not in str(list(broker.member().log()))
