"""Provenance: in-toto's form, and what does not fit a contract."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from contracts.parties import NOW, contract, data, identity
from sealfs.attestation.binding import RuntimeData
from sealfs.attestation.evidence import Evidence
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.contracts.contract import Contract
from sealfs.contracts.provenance import Exhibit, Provenance
from sealfs.dsse import Envelope
from sealfs.errors import DocumentError, TrustError


def made(agreed: Contract | None = None, **changes: Any) -> Provenance:
    agreed = agreed or contract()
    exhibit = Exhibit(
        RuntimeData("nonce", {"kty": "EC"}, {"broker": "sha256:00", "bound": agreed.digest}),
        Evidence("sample", {"report_data": "x"}),
    )
    return replace(
        Provenance(
            contract=agreed.digest,
            task=agreed.id,
            run="12" * 16,
            output="model",
            result=data(9),
            signer=identity("run").signer,
            inputs={name: entry.data for name, entry in agreed.inputs.items() if entry.data},
            script="ab" * 32,
            level=Level.L1,
            tee="sample",
            measurement="",
            started=NOW,
            finished=NOW + timedelta(hours=1),
            exit_code=0,
            exhibits=(exhibit, exhibit),
        ),
        **changes,
    )


def test_it_is_read_back() -> None:
    assert Provenance.parse(made().sign(identity("run"))) == made()
    measured = made(tee="sgx", measurement="ab" * 32, level=Level.L5, exhibits=())
    assert Provenance.parse(measured.sign(identity("run"))) == measured


def test_it_is_an_in_toto_statement_with_slsa_provenance() -> None:
    envelope = Envelope.from_dict(json.loads(made().sign(identity("run"))))
    envelope.verify([identity("run").signer.verification_key()], 1)
    assert envelope.payload_type == "application/vnd.in-toto+json"
    statement = json.loads(envelope.payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert [set(subject) >= {"name", "digest"} for subject in statement["subject"]] == [True]
    # the members that SLSA v1 requires, and no field in them that it does not know
    predicate = statement["predicate"]
    definition, details = predicate["buildDefinition"], predicate["runDetails"]
    assert set(predicate) == {"buildDefinition", "runDetails"}
    assert {"buildType", "externalParameters"} <= set(definition)
    assert set(definition) <= {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"}
    assert set(details) <= {"builder", "metadata", "byproducts"}
    assert set(details["builder"]) <= {"id", "version", "builderDependencies"}
    assert set(details["metadata"]) <= {"invocationId", "startedOn", "finishedOn"}
    known = {"uri", "digest", "name", "downloadLocation", "mediaType", "content", "annotations"}
    for resource in (*statement["subject"], *definition["resolvedDependencies"], *details["byproducts"]):
        assert set(resource) <= known


def test_signed_by_another_than_it_names() -> None:
    with pytest.raises(TrustError, match="not signed by the run's key"):
        Provenance.parse(made().sign(identity("cloud")))


def test_changed_after_it_was_signed() -> None:
    envelope = Envelope.from_dict(json.loads(made().sign(identity("run"))))
    statement = json.loads(envelope.payload)
    statement["predicate"]["buildDefinition"]["internalParameters"]["level"] = "L5"
    envelope.payload = json.dumps(statement).encode()
    with pytest.raises(TrustError):
        Provenance.parse(json.dumps(envelope.to_dict()).encode())


@pytest.mark.parametrize("name", ["_type", "predicateType", "predicate", "subject"])
def test_what_it_cannot_do_without(name: str) -> None:
    statement = made().to_json()
    del statement[name]
    envelope = Envelope(json.dumps(statement).encode(), "application/vnd.in-toto+json", {})
    envelope.sign(identity("run").signing_key())
    with pytest.raises(DocumentError):
        Provenance.parse(json.dumps(envelope.to_dict()).encode())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"contract": "00" * 32}, "another contract"),
        ({"task": "00" * 16}, "another contract"),
        ({"output": "report"}, "no such output"),
        ({"inputs": {}}, "other data"),
        ({"inputs": {"loans-a": data(1), "loans-b": data(3)}}, "other data"),
        ({"inputs": {"loans-a": data(1), "loans-b": data(2), "loans-c": data(2)}}, "other data"),
        ({"script": "00" * 32}, "another script"),
        ({"started": NOW - timedelta(seconds=1)}, "before the contract held"),
        ({"started": NOW + timedelta(hours=2)}, "before the contract held"),  # and so after its own end
        ({"started": NOW + timedelta(days=30), "finished": NOW + timedelta(days=31)}, "expired"),
    ],
)
def test_it_has_to_fit_the_contract(change: dict[str, Any], words: str) -> None:
    made().check(contract())
    with pytest.raises(TrustError, match=words):
        made(**change).check(contract())


def test_a_level_below_what_was_agreed() -> None:
    strict = contract(policy=Policy(Level.L5))
    with pytest.raises(TrustError, match="made at L4, agreed is L5"):
        made(strict, level=Level.L4).check(strict)
    made(strict, level=Level.L5).check(strict)


def test_where_the_data_was_found_is_of_no_matter() -> None:
    moved = {name: replace(entry, address="s3://elsewhere/x") for name, entry in made().inputs.items()}
    made(inputs=moved).check(contract())
