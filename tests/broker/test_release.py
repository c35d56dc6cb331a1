"""Evidence in, key out: what is released, and what is refused and in which words."""

from __future__ import annotations

import pytest

from broker.tools import DEVELOPMENT, REHEARSAL, STRICT, Broker, digest_of
from sealfs.attestation.levels import Level
from sealfs.errors import KeyRefusedError


def test_a_runner_gets_the_keys(broker: Broker) -> None:
    keys = broker.publish(REHEARSAL, version=3)
    released = broker.client(broker.runner()).resource("owner", keys.dataset)
    assert released.keys.pack() == keys.pack()
    assert (released.version, released.sha256) == (3, digest_of(3))
    assert released.signer == broker.owner.signer
    assert (released.level, released.demanded) == (Level.L2, Level.L2)


def test_without_evidence_only_made_up_data_is_given_out(broker: Broker) -> None:
    made_up, real = broker.publish(DEVELOPMENT), broker.publish(STRICT)
    client = broker.client()
    assert client.resource("owner", made_up.dataset).level == Level.L1
    with pytest.raises(KeyRefusedError, match="this dataset needs L5; this process offered no evidence"):
        client.resource("owner", real.dataset)
    assert client.resource("owner", made_up.dataset).keys.pack() == made_up.pack()
