"""Members' calls: who may make them, once, and what of two conflicting ones."""

from __future__ import annotations

import os
import time

import pytest
from broker.tools import DEVELOPMENT, REHEARSAL, STRICT, Broker, digest_of

from sealfs.broker.calls import CALL_PATH, Call
from sealfs.broker.transport import Connection, ProblemError
from sealfs.dataset.keyring import DatasetKeys
from sealfs.errors import ConflictError, KeyRefusedError, UsageError
from sealfs.keys import Identity


def send(broker: Broker, data: bytes) -> bytes:
    with Connection(broker.address) as connection:
        return connection.ask("POST", CALL_PATH, data).body


def signed(
    broker: Broker,
    name: str = "hello",
    arguments: dict[str, object] | None = None,
    meant: str | None = None,
    away: int = 0,
) -> bytes:
    now = int(time.time()) + away
    call = Call.new(name, arguments or {}, meant or broker.home.identity, broker.owner.signer, now)
    return call.sign(broker.owner)


def add(broker: Broker, name: str, *roles: str) -> Identity:
    identity = Identity.generate()
    arguments = {"name": name, "signer": str(identity.signer), "roles": list(roles), "revision": 0}
    broker.member().call("set-member", arguments)
    return identity


def test_the_first_member_may_do_everything(broker: Broker) -> None:
    greeting = broker.member().hello()
    assert greeting.name == "owner"
    assert greeting.roles == ("admin", "auditor", "owner")


def test_a_stranger(broker: Broker) -> None:
    with pytest.raises(KeyRefusedError, match="no member of this broker"):
        broker.member(Identity.generate()).hello()


def test_a_call_counts_once(broker: Broker) -> None:
    data = signed(broker)
    assert b"checkpoint" in send(broker, data)
    with pytest.raises(ProblemError, match="made before"):
        send(broker, data)


def test_a_call_that_failed_counts_as_well(broker: Broker) -> None:
    """Else it could be kept, and sent when it does no longer fail."""
    data = signed(broker, "withdraw", {"dataset": "00" * 16, "revision": 1})
    with pytest.raises(ProblemError, match="not there"):
        send(broker, data)
    with pytest.raises(ProblemError, match="made before"):
        send(broker, data)


def test_a_call_for_another_broker(broker: Broker) -> None:
    with pytest.raises(ProblemError, match="another broker"):
        send(broker, signed(broker, meant="sha256:" + "0" * 64))


@pytest.mark.parametrize(("away", "words"), [(-3600, "behind"), (3600, "ahead of")])
def test_a_call_at_another_time(broker: Broker, away: int, words: str) -> None:
    with pytest.raises(ProblemError) as refused:
        send(broker, signed(broker, away=away))
    assert words in refused.value.hint


def test_a_call_signed_by_another(broker: Broker) -> None:
    mallory = Identity.generate()
    call = Call.new("hello", {}, broker.home.identity, broker.owner.signer, int(time.time()))
    with pytest.raises(ProblemError, match="no valid signature"):
        send(broker, call.sign(mallory))


def test_a_call_that_was_changed(broker: Broker) -> None:
    from base64 import b64decode, b64encode

    from sealfs.attestation.canonical import canonical, parse_json

    envelope = parse_json(signed(broker, "members"), "call")
    envelope["payload"] = b64encode(b64decode(envelope["payload"]).replace(b"members", b"datasets")).decode()
    with pytest.raises(ProblemError, match="no valid signature"):
        send(broker, canonical(envelope))


@pytest.mark.parametrize(
    ("role", "call", "arguments"),
    [
        ("owner", "set-member", {"name": "x", "signer": "", "roles": [], "revision": 0}),
        ("owner", "enrol", {"kind": "tpm", "name": "x", "value": "", "revision": 0}),
        ("owner", "log", {"after": 0, "limit": 1}),
        ("admin", "datasets", {}),
        ("admin", "log", {"after": 0, "limit": 1}),
        ("admin", "withdraw", {"dataset": "00" * 16, "revision": 1}),
        ("auditor", "publish", {}),
        ("auditor", "set-member", {}),
    ],
)
def test_roles(broker: Broker, role: str, call: str, arguments: dict[str, object]) -> None:
    somebody = add(broker, "somebody", role)
    with pytest.raises(KeyRefusedError, match=f"'somebody' is no "):
        broker.member(somebody).call(call, arguments)
    if call not in {"log", "datasets"}:
        *_, last = broker.member().log()
        assert (last["event"], last["member"], last["call"]) == ("call refused", "somebody", call)


def test_an_owner_sees_and_changes_their_own_only(broker: Broker) -> None:
    keys = broker.publish(STRICT)
    other = broker.member(add(broker, "other", "owner"))
    assert other.held(keys.dataset).revision == 0
    assert other.datasets() == []
    with pytest.raises(ConflictError, match="not there"):
        other.set_policy(keys.dataset, DEVELOPMENT, 1)


def test_two_admins_conflicting_edits(broker: Broker) -> None:
    """Both have looked, both decide, one is first: the other learns of it and nothing is lost."""
    keys = broker.publish(REHEARSAL)
    first, second = broker.member(), broker.member()
    seen = first.held(keys.dataset).revision
    assert second.held(keys.dataset).revision == seen
    first.set_policy(keys.dataset, STRICT, seen)
    with pytest.raises(ConflictError, match=f"it is at revision {seen + 1}, you had seen {seen}"):
        second.set_policy(keys.dataset, DEVELOPMENT, seen)
    assert broker.member().held(keys.dataset).policy == STRICT


def test_two_admins_change_one_member(broker: Broker) -> None:
    somebody = add(broker, "somebody", "owner")
    change = {"name": "somebody", "signer": str(somebody.signer), "revision": 1}
    broker.member().call("set-member", {**change, "roles": []})
    with pytest.raises(ConflictError, match="revision 2, you had seen 1"):
        broker.member().call("set-member", {**change, "roles": ["owner", "admin"]})
    with pytest.raises(ConflictError):
        broker.member().call("remove-member", {"name": "somebody", "revision": 1})
    broker.member().call("remove-member", {"name": "somebody", "revision": 2})


def test_the_last_admin_stays(broker: Broker) -> None:
    with pytest.raises(KeyRefusedError, match="without an admin"):
        broker.member().call("remove-member", {"name": "owner", "revision": 1})
    with pytest.raises(KeyRefusedError, match="without an admin"):
        broker.member().call(
            "set-member",
            {"name": "owner", "signer": str(broker.owner.signer), "roles": ["owner"], "revision": 1},
        )


def test_a_key_belongs_to_one_member(broker: Broker) -> None:
    with pytest.raises(ConflictError, match="another member"):
        broker.member().call(
            "set-member", {"name": "x", "signer": str(broker.owner.signer), "roles": [], "revision": 0}
        )


def test_a_dataset_never_goes_back(broker: Broker) -> None:
    keys = broker.publish(REHEARSAL, version=5)
    with pytest.raises(ConflictError, match="newer than 4"):
        broker.publish(None, keys, version=4)
    member = broker.member()
    with pytest.raises(ConflictError, match="another version 5"):
        member.publish(keys, 5, os.urandom(32), broker.owner.signer, None, 1)
    assert member.held(keys.dataset).sha256 == digest_of(5).hex()


def test_keys_are_added_never_lost_or_changed(broker: Broker) -> None:
    keys = broker.publish(REHEARSAL)
    more = broker.publish(None, keys.with_new_epoch(), version=2)
    with pytest.raises(ConflictError, match="keys of this dataset that the published ones lack"):
        broker.publish(None, keys, version=3)
    other = DatasetKeys(keys.dataset, {1: os.urandom(32), 2: os.urandom(32)})
    with pytest.raises(ConflictError):
        broker.publish(None, other, version=3)
    assert broker.client(broker.runner()).resource("owner", keys.dataset).keys.pack() == more.pack()


def test_a_new_dataset_needs_a_policy(broker: Broker) -> None:
    with pytest.raises(KeyRefusedError, match="no policy"):
        broker.publish(None)


def test_an_unknown_call(broker: Broker) -> None:
    with pytest.raises(KeyRefusedError, match="no call 'nonsense'"):
        broker.member().call("nonsense")
    with pytest.raises(KeyRefusedError, match="unknown member"):
        broker.member().call("hello", {"more": 1})


def test_changes_are_logged_without_keys(broker: Broker) -> None:
    keys = broker.publish(REHEARSAL)
    *_, last = broker.member().log()
    assert (last["event"], last["member"], last["call"]) == ("changed", "owner", "publish")
    assert last["arguments"]["dataset"] == keys.dataset.hex()
    assert last["arguments"]["policy"] == REHEARSAL.to_json()
    assert keys.pack().hex() not in str(last)


def test_bad_roles(broker: Broker) -> None:
    with pytest.raises(KeyRefusedError, match="no such role"):
        add(broker, "x", "king")
    with pytest.raises(UsageError):
        from sealfs.broker.members import parse_roles

        parse_roles(["king"])
