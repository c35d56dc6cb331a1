"""Keys by evidence: from a broker that decides, and only for what its owner has published."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from broker.tools import DEVELOPMENT, MANIFEST, REHEARSAL, STRICT, Broker, running

from sealfs.attestation.policy import Policy
from sealfs.attestation.runner import RunnerProvider
from sealfs.broker.publishing import Publishing
from sealfs.dataset.access import AccessChange
from sealfs.dataset.dataset import Dataset
from sealfs.dataset.push import Push, PushOptions
from sealfs.dataset.trust import TrustStore
from sealfs.enclave.attach import LIBRARY
from sealfs.enclave.attested import AttestedKeys, OwnKeysFirst, check_published, keys_for_evidence, parse_hint
from sealfs.enclave.keysource import IdentityKeys, RunnerSecret
from sealfs.errors import ConflictError, KeyAccessError, KeyRefusedError, TrustError, UsageError
from sealfs.keys import Identity
from sealfs.progress import Silent
from sealfs.store.local import LocalStore


@pytest.fixture
def broker(tmp_path: Path, identity: Identity) -> Iterator[Broker]:
    with running(tmp_path / "broker", identity) as found:
        yield found


@pytest.fixture
def push(tree: Path, local_store: LocalStore, broker: Broker, trust: TrustStore) -> Callable[..., Dataset]:
    """Returns a function that pushes, and tells the broker."""

    def pushed(policy: Policy | None = None) -> Dataset:
        publishing = Publishing(broker.address, broker.owner)
        Push(tree, local_store, broker.owner, trust, PushOptions(broker=publishing.greet())).run()
        dataset = Dataset.open(local_store, trust)
        publishing.bring_up_to_date(dataset, policy)
        return dataset

    return pushed


def seen_by_a_newcomer(store: LocalStore, tmp_path: Path, version: int | None = None) -> Dataset:
    return Dataset.open(store, TrustStore(tmp_path / os.urandom(4).hex()), version=version)


def test_by_evidence_alone(push: Callable[..., Dataset], broker: Broker, tmp_path: Path) -> None:
    dataset = push(REHEARSAL)
    source = AttestedKeys(broker.runner())
    assert source.proven is None
    keys = source.keys(seen_by_a_newcomer(dataset.store, tmp_path))
    assert dataset.index(keys).entries > 10
    assert source.proven == "L2"


def test_a_snapshot_without_a_broker(
    tree: Path, local_store: LocalStore, trust: TrustStore, broker: Broker
) -> None:
    Push(tree, local_store, broker.owner, trust).run()
    with pytest.raises(KeyAccessError, match="no broker is known"):
        AttestedKeys(None).keys(Dataset.open(local_store, trust))


def test_the_owners_identity_comes_first(push: Callable[..., Dataset], broker: Broker, tmp_path: Path) -> None:
    dataset = push(STRICT)
    own = OwnKeysFirst(IdentityKeys(broker.owner), AttestedKeys(None))
    assert dataset.index(own.keys(dataset)).entries > 10
    assert own.proven is None
    for nobody in (IdentityKeys(Identity.generate()), KeyAccessError("no identity")):
        with pytest.raises(KeyRefusedError, match="this dataset needs L5; this process offered no evidence"):
            OwnKeysFirst(nobody, AttestedKeys(None)).keys(dataset)


def test_without_a_broker_the_reason_is_ones_own(
    tree: Path, local_store: LocalStore, trust: TrustStore, broker: Broker
) -> None:
    Push(tree, local_store, broker.owner, trust).run()
    with pytest.raises(KeyAccessError, match="no identity here"):
        OwnKeysFirst(KeyAccessError("no identity here"), AttestedKeys(None)).keys(Dataset.open(local_store, trust))


def test_a_store_that_serves_an_old_snapshot(
    push: Callable[..., Dataset], broker: Broker, tree: Path, tmp_path: Path
) -> None:
    dataset = push(REHEARSAL)
    provider = broker.runner()
    old, _ = dataset.store.get("head", max_size=10_000)
    (tree / "new").write_text("new")
    push()
    assert AttestedKeys(provider).keys(seen_by_a_newcomer(dataset.store, tmp_path)).latest == 1
    dataset.store.put("head", old)
    with pytest.raises(TrustError, match="the store serves version 1, but the owner has published 2"):
        AttestedKeys(provider).keys(seen_by_a_newcomer(dataset.store, tmp_path))


def test_an_older_version_asked_for(
    push: Callable[..., Dataset], broker: Broker, tree: Path, tmp_path: Path
) -> None:
    dataset = push(REHEARSAL)
    (tree / "new").write_text("new")
    push()
    with pytest.raises(KeyRefusedError, match="version 1 is out of date"):
        AttestedKeys(broker.runner()).keys(seen_by_a_newcomer(dataset.store, tmp_path, 1))


def test_a_version_that_the_owner_has_not_published(
    push: Callable[..., Dataset], broker: Broker, tree: Path, trust: TrustStore, tmp_path: Path
) -> None:
    dataset = push(REHEARSAL)
    (tree / "new").write_text("new")
    Push(tree, dataset.store, broker.owner, trust).run()
    newest = seen_by_a_newcomer(dataset.store, tmp_path)
    assert newest.newest.broker == dataset.newest.broker
    with pytest.raises(TrustError, match="has published 1 only"):
        AttestedKeys(broker.runner()).keys(newest)


def test_what_is_published_is_compared(push: Callable[..., Dataset], broker: Broker) -> None:
    dataset = push(REHEARSAL)
    released = broker.client(broker.runner()).resource("owner", dataset.snapshot.dataset)
    check_published(dataset, released)
    with pytest.raises(TrustError, match="is not the one that the owner has published"):
        check_published(dataset, replace(released, sha256=bytes(32)))
    with pytest.raises(TrustError, match="its owner's broker says"):
        check_published(dataset, replace(released, signer=Identity.generate().signer))


def test_rotating_brings_the_new_key_to_the_broker(
    push: Callable[..., Dataset], broker: Broker, trust: TrustStore, tmp_path: Path
) -> None:
    dataset = push(REHEARSAL)
    AccessChange(dataset.store, broker.owner, trust).rotate(True, Silent())
    rotated = Dataset.open(dataset.store, trust)
    Publishing(broker.address, broker.owner).bring_up_to_date(rotated)
    keys = AttestedKeys(broker.runner()).keys(seen_by_a_newcomer(dataset.store, tmp_path))
    assert keys.latest == 2
    assert rotated.index(keys).entries > 10


def test_publishing_again_changes_nothing(push: Callable[..., Dataset], broker: Broker) -> None:
    dataset = push(REHEARSAL)
    revision = broker.member().held(dataset.snapshot.dataset).revision
    publishing = Publishing(broker.address, broker.owner)
    assert publishing.bring_up_to_date(dataset).version == 1
    publishing.bring_up_to_date(dataset, REHEARSAL)
    assert broker.member().held(dataset.snapshot.dataset).revision == revision
    publishing.bring_up_to_date(dataset, DEVELOPMENT)
    assert broker.member().held(dataset.snapshot.dataset).policy == DEVELOPMENT


def test_a_forked_dataset_is_not_published(push: Callable[..., Dataset], broker: Broker) -> None:
    dataset = push(REHEARSAL)
    other = replace(dataset, ref=replace(dataset.ref, sha256=bytes(32)))
    with pytest.raises(ConflictError) as refused:
        Publishing(broker.address, broker.owner).bring_up_to_date(other)
    assert "version 1 is in the store, but the broker at" in refused.value.message
    assert "the broker knows another version 1" in refused.value.message
    with pytest.raises(TrustError, match="not to this identity"):
        Publishing(broker.address, Identity.generate()).bring_up_to_date(dataset)


def test_a_runners_secret(identity: Identity) -> None:
    text = RunnerSecret(identity, MANIFEST).to_text()
    parsed = RunnerSecret.parse(text)
    assert (parsed.identity.signer, parsed.manifest) == (identity.signer, MANIFEST)
    assert text.splitlines()[1] not in repr(parsed)
    for wrong in ("", identity.to_text(), text.replace(MANIFEST, "zz")):
        with pytest.raises(KeyAccessError):
            RunnerSecret.parse(wrong)
    assert isinstance(keys_for_evidence(text, None)._provider, RunnerProvider)


def test_hints() -> None:
    address = "https://127.0.0.1:8600#sha256:" + "0" * 64
    assert parse_hint(f"hospital@{address}").to_json() == {"url": address, "owner": "hospital"}
    for wrong in (address, f"@{address}", f"Hospital!@{address}", "hospital@nonsense"):
        with pytest.raises(UsageError):
            parse_hint(wrong)


@pytest.mark.skipif(not LIBRARY.exists(), reason="the library for enclaves has not been built")
def test_the_launcher_gets_keys_by_evidence_and_results_say_how_well(
    push: Callable[..., Dataset], broker: Broker, tmp_path: Path
) -> None:
    """The whole of an enclave's run but the enclave: nothing is handed in but a runner's word."""
    dataset = push(REHEARSAL)
    provider = broker.runner()
    script, data, out, results = (tmp_path / name for name in ("train.py", "data", "out", "results"))
    script.write_text("import sys; open(sys.argv[2] + '/model', 'wb').write(open(sys.argv[1], 'rb').read())")
    recipient = Identity.generate()
    launch = [sys.executable, "-m", "sealfs.enclave.launch", "--data", f"{dataset.store.uri}:{data}",
              "--signer", str(broker.owner.signer), "--out", f"{results}:{out}",
              "--out-recipient", str(recipient.recipient)]  # fmt: skip

    def run(source: list[str], secret: str) -> subprocess.CompletedProcess[str]:
        command = [*launch, *source, "--", str(script), str(data / "script"), str(out)]
        return subprocess.run(command, input=secret, capture_output=True, text=True, timeout=120, check=False)

    refused = run(["--attested"], "")
    assert refused.returncode == 4
    assert "this dataset needs L2; this process offered no evidence" in refused.stderr
    done = run(["--runner-fd", "0"], RunnerSecret(provider._identity, provider._manifest).to_text())
    assert done.returncode == 0, done.stderr
    made = seen_by_a_newcomer(LocalStore(results), tmp_path)
    assert made.snapshot.level == "L2"
    assert made.index(made.keys(recipient)).entries == 2
    assert [record["event"] for record in broker.member().log()][-2:] == ["attested", "released"]
