"""REPORTDATA: the vectors of docs/report-data-vectors.json, and that each part of the runtime data changes it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from sealfs.attestation.binding import RuntimeData
from sealfs.attestation.canonical import canonical
from sealfs.errors import DocumentError

KEY = {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "eA", "y": "eQ"}


def test_the_vectors_of_the_documentation() -> None:
    docs = Path(__file__).parents[2] / "docs"
    vectors = json.loads((docs / "report-data-vectors.json").read_text())
    for vector in vectors:
        members = vector["runtime-data"]
        data = RuntimeData(members.pop("nonce"), members.pop("tee-pubkey"), members)
        assert canonical(data.to_json()).decode() == vector["canonical"]
        assert data.report_data().hex() == vector["report_data"]
        assert data.report_data()[:48] == hashlib.sha384(vector["canonical"].encode()).digest()
    assert len(vectors) == 4
    assert vectors[0]["report_data"][:96] in (docs / "attestation.md").read_text()


def test_it_is_what_kbs_defines() -> None:
    text = b'{"nonce":"bm9uY2U=","tee-pubkey":{"alg":"ECDH-ES+A256KW","crv":"P-256","kty":"EC","x":"eA","y":"eQ"}}'
    bound = RuntimeData("bm9uY2U=", KEY).report_data()
    assert bound == hashlib.sha384(text).digest() + bytes(16)


def test_each_part_changes_it() -> None:
    extra = {"broker": "sha256:" + "00" * 32}
    every = [
        RuntimeData("bm9uY2U=", KEY),
        RuntimeData("bm9uY2U", KEY),
        RuntimeData("bm9uY2U=", {**KEY, "x": "eQ"}),
        RuntimeData("bm9uY2U=", KEY, extra),
        RuntimeData("bm9uY2U=", KEY, {"broker": "sha256:" + "01" * 32}),
        RuntimeData("bm9uY2U=", KEY, {**extra, "bound": "00" * 32}),
    ]
    assert len({data.report_data() for data in every}) == len(every)


@pytest.mark.parametrize("name", ["nonce", "tee-pubkey"])
def test_the_extra_cannot_replace_what_the_protocol_binds(name: str) -> None:
    with pytest.raises(DocumentError):
        RuntimeData("bm9uY2U=", KEY, {name: "mine"})
