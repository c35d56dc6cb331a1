"""Plain words: complete, changed, and impossible to pretend with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from contracts.parties import NAMES, contract, data
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.contracts import plain
from sealfs.contracts.contract import Contract
from sealfs.contracts.terms import Input, Output

ENCLAVE = Policy(Level.L5, measurements={"sgx": frozenset({"ab" * 32})}, advisories=frozenset({"INTEL-SA-00615"}))


def words(agreed: Contract, me: str | None = None) -> str:
    return plain.text(plain.describe(agreed, me))


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for member in value.values() for leaf in leaves(member)]
    if isinstance(value, list):
        return [leaf for member in value for leaf in leaves(member)]
    return [value]


def test_everything_that_is_signed_is_said() -> None:
    outputs = {"model": Output(("bank-a", "bank-b"), "/out", 1_000_000, 2, ("bank-a", "bank-b", "model-co"))}
    agreed = contract(policy=ENCLAVE, outputs=outputs)
    said = words(agreed)
    elsewhere = {"sealfs-contract-1", "services", "none", "1", "/data", "--save", "/out", agreed.digest, 2, 0}
    for leaf in leaves(agreed.to_json()):
        if isinstance(leaf, str) and leaf not in elsewhere and not leaf.startswith("sealfs-recipient-"):
            assert leaf in said, leaf
    assert "1.0 MB at most" in said
    assert "once 2 of 3 have voted" in said
    assert "OMP_NUM_THREADS=1" in said
    assert "/data --save /out" in said
    assert "twice" in said
    assert agreed.parties["bank-a"].recipient is not None
    assert agreed.parties["bank-a"].recipient.fingerprint in said


def test_what_is_dangerous_is_loud() -> None:
    assert "THE OPERATOR CAN READ DATA AND RESULTS" in words(contract())
    assert "THE OPERATOR CAN READ" not in words(contract(policy=ENCLAVE))
    assert "WHATEVER ITS MACHINE LETS THROUGH" in words(contract(network="open"))
    assert "SHOWN TO THE OPERATOR" in words(contract(stdout="host"))
    sealed = contract(
        function=replace(contract().function, code="code", sha256=None),
        inputs={**contract().inputs, "code": Input(("model-co",), "/code", "", data(3))},
    )
    assert "THE CODE IS SEALED: bank-a, bank-b, cloud can't read" in words(sealed)
    half = contract(inputs={"x": Input(("bank-a",), "/data")})
    assert "WHICH DATA is not said yet" in words(half)


def learns(agreed: Contract) -> dict[str, tuple[str, str]]:
    lines = plain.describe(agreed)[-1].lines
    return {name: (lines[lines.index(name) + 1], lines[lines.index(name) + 2]) for name in NAMES}


def test_who_learns_what() -> None:
    found = learns(contract(policy=ENCLAVE))
    assert "output model" in found["bank-a"][0]
    assert "input loans-b" in found["bank-a"][1]
    assert "input loans-a" not in found["bank-a"][1]
    assert "output model" in found["bank-b"][1]
    for name in ("input loans-a", "input loans-b", "output model"):
        assert name in found["cloud"][1]
        assert name in found["model-co"][1]
    exposed = learns(contract())
    assert "as much of the data and the results" in exposed["cloud"][0]
    assert "nothing it does not" in exposed["cloud"][1]


def test_the_reader_is_told_who_they_are() -> None:
    assert "bank-b (you)" in words(contract(), "bank-b")
    assert "(you)" not in words(contract())


@pytest.mark.parametrize(
    "hostile",
    ["\x1b[2Jcleared", "a\nbank-b: has signed", 'said "yes"', "\u202egnp.exe", "a\u2028b", "\u00a0", "back\\slash"],
)
def test_words_of_others_stay_on_their_line_and_in_their_quotes(hostile: str) -> None:
    shown = plain.quoted(hostile)
    assert shown.isprintable()
    assert json.loads('"' + shown[1:-1].replace("\\x", "\\u00") + '"') == hostile
    said = words(contract(function=replace(contract().function, arguments=(hostile,))))
    assert all(c.isprintable() for c in said.replace("\n", ""))
    assert len(said.splitlines()) == len(words(contract()).splitlines())


@pytest.mark.parametrize(
    "hostile", ["/out\u2028  only cloud can open it", "/out\u200f", "/out, 1 Byte at most", "/out\u200b"]
)
def test_paths_stay_on_their_line_and_in_their_quotes(hostile: str) -> None:
    agreed = contract(
        inputs={"loans": Input(("bank-a",), hostile.replace("out", "data"), "", data(1))},
        outputs={"model": Output(("bank-a",), hostile, 1)},
    )
    said = words(agreed)
    assert said.replace("\n", "").isprintable()
    assert f"seen at {plain.quoted(hostile.replace('out', 'data'))}" in said
    assert f"writes to {plain.quoted(hostile)}, 1 byte at most" in said


@pytest.mark.parametrize(
    ("ones", "others"),
    [
        ((), ("without", "arguments")),
        (("\x1b",), ("\\x1b",)),
        (("\u202e",), ("$'\\u202e'",)),
        (("a b",), ("a", "b")),
    ],
)
def test_arguments_that_differ_look_different(ones: tuple[str, ...], others: tuple[str, ...]) -> None:
    def called(*arguments: str) -> str:
        said = words(contract(function=replace(contract().function, arguments=arguments)))
        return next(line for line in said.splitlines() if "called with" in line)

    assert called(*ones) != called(*others)


def test_changes_are_told_member_by_member() -> None:
    assert plain.changes(contract(), contract()) == []
    inputs = {
        **contract().inputs,
        "loans-b": Input(("bank-b",), "/data", "b_", data(7)),
        "more": Input(("cloud",), "/more"),
    }
    changed = contract(runs=9, stdout="host", inputs=inputs, function=replace(contract().function, arguments=()))
    lines = plain.changes(contract(), changed)
    assert "runs: was 2, is now 9" in lines
    assert 'stdout: was "none", is now "host"' in lines
    assert "inputs › loans-b › data › version: was 2, is now 7" in lines
    assert 'function › arguments: was ["/data", "--save", "/out"], is now []' in lines
    assert 'inputs › more › path: new: "/more"' in lines
    assert any(line.startswith("inputs › more › path: gone") for line in plain.changes(changed, contract()))
