"""The contract as a value: its digest, and what is no contract."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import rfc8785

from contracts.parties import LATER, NOW, contract, data, identity
from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.contracts.contract import Contract
from sealfs.contracts.terms import Input, Output, Party
from sealfs.errors import ContractError, DocumentError

BROKERS_KEY = "sha256:" + "0" * 64


def changed(*path: str, value: Any) -> bytes:
    """The contract's JSON with one member replaced."""
    document = contract().to_json()
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return json.dumps(document).encode()


def test_it_is_read_back_as_it_was_written() -> None:
    agreed = contract()
    assert Contract.parse(agreed.to_bytes()) == agreed
    pretty = json.dumps(agreed.to_json(), indent=4).encode()
    assert Contract.parse(pretty).digest == agreed.digest  # the layout is no part of it


def test_the_digest_is_that_of_the_canonical_json() -> None:
    agreed = contract()
    assert agreed.to_bytes() == rfc8785.dumps(json.loads(agreed.to_bytes()))
    assert agreed.digest == hashlib.sha256(agreed.to_bytes()).hexdigest()


def test_the_digest_of_a_known_contract_never_changes() -> None:
    # what has been signed must stay signed: a new member of contracts needs a new format
    known = (Path(__file__).parent / "known-contract.json").read_bytes()
    assert Contract.parse(known).to_bytes() == known
    assert hashlib.sha256(known).hexdigest() == Contract.parse(known).digest


@pytest.mark.parametrize(
    "change",
    [
        {"runs": 3},
        {"title": "Loans that fail "},
        {"expires": LATER + timedelta(seconds=1)},
        {"stdout": "host"},
        {"network": "open"},
        {"operator": "bank-b"},
        {"id": "f" * 32},
        {"policy": Policy(Level.L5)},
        {"inputs": {**contract().inputs, "loans-b": Input(("bank-b",), "/data", "b_", data(3))}},
        {"outputs": {"model": Output(("bank-a", "bank-b"), "/out", 1 << 20)}},
        {"function": replace(contract().function, arguments=("/data",))},
        {"function": replace(contract().function, environment={})},
        {"function": replace(contract().function, sha256="ac" * 32)},
    ],
)
def test_every_edit_makes_another_digest(change: dict[str, Any]) -> None:
    assert contract(**change).digest != contract().digest


def test_who_has_to_approve() -> None:
    assert contract().approvers == ("bank-a", "bank-b", "model-co")
    assert contract(function=replace(contract().function, public=True)).approvers == ("bank-a", "bank-b")
    alone = contract(
        inputs={"loans-a": contract().inputs["loans-a"]}, function=replace(contract().function, owner="bank-a")
    )
    assert alone.approvers == ("bank-a",)  # and even then there has to be a signature
    shared = contract(outputs={"model": Output(("cloud",), "/out", 1)})
    assert "cloud" in shared.approvers


def test_it_holds_for_its_time_only() -> None:
    agreed = contract()
    agreed.check_time(NOW)
    agreed.check_time(LATER - timedelta(seconds=1))
    with pytest.raises(ContractError, match="from 2026-11-22T12:00:00Z on"):
        agreed.check_time(NOW - timedelta(seconds=1))
    with pytest.raises(ContractError, match="expired"):
        agreed.check_time(LATER)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"creator": "nobody"}, "no party"),
        ({"operator": "nobody"}, "no party"),
        ({"function": replace(contract().function, owner="nobody")}, "no party"),
        ({"inputs": {}}, "at least one input"),
        ({"outputs": {}}, "at least one input and one output"),
        ({"inputs": {"x": Input((), "/data")}}, "belongs to nobody"),
        ({"inputs": {"x": Input(("bank-a", "bank-a"), "/data")}}, "twice"),
        ({"inputs": {"Ä": Input(("bank-a",), "/data")}}, "is no name"),
        ({"inputs": {"../x": Input(("bank-a",), "/data")}}, "is no name"),
        ({"outputs": {"m": Output((), "/out", 1)}}, "nobody could open"),
        ({"outputs": {"m": Output(("bank-a",), "/out", 1, votes=1)}}, "votes"),
        ({"outputs": {"m": Output(("bank-a",), "/out", 1, votes=0, voters=("bank-b",))}}, "votes"),
        ({"outputs": {"m": Output(("bank-a",), "/out", 1, votes=3, voters=("bank-a", "bank-b"))}}, "votes"),
        ({"outputs": {"m": Output(("bank-a",), "/data", 1)}}, "lie in one another"),
        ({"outputs": {"m": Output(("bank-a",), "/data/out", 1)}}, "lie in one another"),
        ({"outputs": {"m": Output(("bank-a",), "/out", 1), "n": Output(("bank-a",), "/out", 1)}}, "same path"),
        *(
            ({"outputs": {"m": Output(("bank-a",), path, 1)}}, "path|system")
            for path in ("/", "out", "/out/", "/out/../etc", "//out", "/etc/x", "/proc", "/out\n", "/dev/shm", "")
        ),
        ({"not_before": LATER}, "ends before"),
        ({"not_before": datetime(2026, 1, 1)}, "time zone"),
        ({"not_before": NOW.replace(microsecond=1)}, "whole seconds"),
        ({"function": replace(contract().function, sha256=None)}, "has a digest"),
        ({"function": replace(contract().function, code="loans-a")}, "has a digest"),
        ({"function": replace(contract().function, code="nothing", sha256=None)}, "none of the inputs"),
        ({"function": replace(contract().function, code="loans-a", sha256=None)}, "belongs to 'model-co'"),
        ({"function": replace(contract().function, script="train.sh")}, "Python"),
        *(
            ({"function": replace(contract().function, environment={name: "x"})}, "environment")
            for name in ("LD_PRELOAD", "PYTHONPATH", "PYTHONSTARTUP", "SEALFS_DEBUG", "A B", "", "GLIBC_TUNABLES")
        ),
        *(
            ({"function": replace(contract().function, environment={name: value})}, f"variable {name}")
            for name, value in (
                ("BASH_ENV", "/data/a_profile"),
                ("ENV", "/data/a_profile"),
                ("OPENSSL_CONF", "/data/a_openssl.cnf"),
                ("PYTHONWARNINGS", "error::a_module.Category"),
                ("PATH", "/usr/bin:/data/a_bin"),
                ("PATH", "/usr/bin:"),
                ("PATH", "/usr/bin:/var/../data"),
                ("HOME", "/data"),
                ("HOME", "/out/home"),
                ("HOME", "home"),
            )
        ),
    ],
)
def test_what_makes_no_sense_is_no_contract(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        contract(**change)


def test_environment_that_leads_to_no_data() -> None:
    environment = {"PATH": "/opt/tools:/usr/bin", "HOME": "/tmp", "PYTHONWARNINGS": "ignore::UserWarning"}
    agreed = contract(function=replace(contract().function, environment=environment))
    assert Contract.parse(agreed.to_bytes()) == agreed


def test_one_person_cannot_be_two_parties() -> None:
    parties = dict(contract().parties)
    parties["bank-b"] = Party(identity("bank-a").signer, identity("bank-b").recipient)
    with pytest.raises(DocumentError, match="same key"):
        contract(parties=parties)
    parties["bank-b"] = Party(identity("bank-b").signer, identity("bank-a").recipient)
    with pytest.raises(DocumentError, match="same key"):
        contract(parties=parties)


def test_who_gets_results_needs_a_key_to_get_them_by() -> None:
    parties = {**contract().parties, "bank-a": Party(identity("bank-a").signer)}
    with pytest.raises(DocumentError, match="recipient key of 'bank-a'"):
        contract(parties=parties)


def test_a_broker_comes_with_its_identity() -> None:
    signer = identity("bank-b").signer
    for broker in ("https://x", "https://x#sha256:00", f"http://x#{BROKERS_KEY}", f"ftp://x#{BROKERS_KEY}", ""):
        with pytest.raises(DocumentError, match="broker"):
            contract(parties={**contract().parties, "bank-b": Party(signer, None, broker)})
    contract(parties={**contract().parties, "bank-b": Party(signer, None, f"https://x:8600#{BROKERS_KEY}")})


def test_sealed_code_has_a_folder_of_its_own() -> None:
    function = replace(contract().function, sha256=None, code="code")
    inputs = {**contract().inputs, "code": Input(("model-co",), "/code", "", data(3))}
    contract(function=function, inputs=inputs)
    with pytest.raises(DocumentError, match="shares the code's folder"):
        contract(function=function, inputs={**inputs, "loans-b": Input(("bank-b",), "/code", "b_", data(2))})
    with pytest.raises(DocumentError, match="rename its modules"):
        contract(function=function, inputs={**inputs, "code": Input(("model-co",), "/code", "c_", data(3))})
    for script in ("../train.py", "/train.py", "a//b.py", "./train.py"):
        with pytest.raises(DocumentError):
            contract(function=replace(function, script=script), inputs=inputs)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("runs",), 0),
        (("runs",), 1001),
        (("runs",), True),
        (("runs",), 1.0),
        (("format",), "sealfs-contract-2"),
        (("not_before",), "2026-02-30T00:00:00Z"),
        (("not_before",), "2026-11-22T12:00:00+00:00"),
        (("title",), "two\nlines"),
        (("title",), "\u202eevil"),
        (("title",), ""),
        (("stdout",), "tty"),
        (("network",), ""),
        (("outputs", "model", "max_size"), 0),
        (("outputs", "model", "max_size"), 1 << 51),
        (("inputs", "loans-a", "data", "snapshot"), "AB" * 32),
        (("inputs", "loans-a", "data", "version"), 0),
        (("inputs", "loans-a", "prefix"), "../"),
        (("inputs", "loans-a", "unknown"), 1),
        (("function", "arguments"), ["\0"]),
        (("function", "arguments"), ["x"] * 257),
        (("function", "sha256"), "ab"),
        (("parties", "bank-a", "signer"), "sealfs-signer-1:AAAA"),
        (("parties", "bank-a", "recipient"), "sealfs-recipient-1:AAAA"),
        (("policy",), None),
        (("policy", "level"), "L6"),
        (("policy", "unknown"), 1),
        (("unknown",), None),
    ],
)
def test_members_out_of_bounds(path: tuple[str, ...], value: Any) -> None:
    with pytest.raises(DocumentError):
        Contract.parse(changed(*path, value=value))


def test_every_member_has_to_be_there() -> None:
    document = contract().to_json()
    for name in document:
        without = {member: value for member, value in document.items() if member != name}
        with pytest.raises(DocumentError):
            Contract.parse(json.dumps(without).encode())


def test_more_parties_than_a_person_could_read() -> None:
    parties = contract().to_json()["parties"]
    many = {f"p{number}": parties["bank-a"] for number in range(33)}
    with pytest.raises(DocumentError, match="32 is the most"):
        Contract.parse(changed("parties", value=many))


def test_a_time_of_any_zone_is_one_time() -> None:
    assert contract(not_before=NOW.astimezone(UTC)).digest == contract().digest
