"""`sealfs task`: three parties agree by files that go from hand to hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import InProcess

DRAFT = """
title = "Loans that fail"
creator = "bank-a"
operator = "cloud"
days = 30
runs = 2

[parties.bank-a]
keys = "bank-a.pub"
[parties.bank-b]
keys = "bank-b.pub"
[parties.cloud]
keys = "cloud.pub"

[function]
name = "logistic regression"
owner = "bank-a"
script = "train.py"
arguments = ["/data", "--save", "/out"]
environment = { OMP_NUM_THREADS = "1" }

[inputs.loans-a]
owners = ["bank-a"]
path = "/data"
prefix = "a_"
data = "STORE"

[inputs.loans-b]
owners = ["bank-b"]
path = "/data"
prefix = "b_"
BDATA

[outputs.model]
recipients = ["bank-a", "bank-b"]
path = "/out"
max_size = 100_000_000

[policy]
level = "L1"
development = true
"""


class Parties(dict[str, InProcess]):
    """Users by name, and the folder in which they exchange files."""

    folder: Path
    task: Path


@pytest.fixture
def parties(tmp_path: Path, somebody: Callable[[str], InProcess], source: Path) -> Parties:
    found = Parties({name: somebody(name) for name in ("bank-a", "bank-b", "cloud")})
    found.folder = tmp_path
    found.task = tmp_path / "loans.task"
    for name, user in found.items():
        public = user.identity_path.with_name("identity.pub").read_text()
        (tmp_path / f"{name}.pub").write_text(public)
    (tmp_path / "train.py").write_text("print('training')\n")
    for name in ("bank-a", "bank-b"):
        found[name]("push", source, tmp_path / f"store-{name}")
    return found


def draft(parties: Parties, complete: bool = True, **replacements: str) -> Path:
    path = parties.folder / "agreement.toml"
    text = DRAFT.replace("STORE", str(parties.folder / "store-bank-a"))
    text = text.replace("BDATA", f'data = "{parties.folder / "store-bank-b"}"' if complete else "")
    for old, new in replacements.items():
        text = text.replace(old, new)
    path.write_text(text)
    return path


def approve(parties: Parties, *names: str) -> None:
    for name in names:
        parties[name]("task", "show", parties.task)
        parties[name]("task", "approve", parties.task)


def test_from_a_draft_to_everybodys_signature(parties: Parties) -> None:
    a, b = parties["bank-a"], parties["bank-b"]
    assert "waits for the approval of bank-a, bank-b" in a("task", "new", draft(parties), parties.task).text
    shown = b("task", "show", parties.task).text
    assert "bank-b (you)" in shown
    assert "THE OPERATOR CAN READ" in shown
    approve(parties, "bank-b")
    approve(parties, "bank-a")
    status = a("task", "status", parties.task, "--json").json
    assert status["state"] == "Approved"
    assert set(status["approved"]) == {"bank-a", "bank-b"}
    assert status["missing"] == []
    audit = b("task", "audit", parties.task, "--json").json
    assert {(said["party"], said["action"]) for said in audit["statements"]} == {
        ("bank-a", "approve"),
        ("bank-b", "approve"),
    }
    assert "bank-a  approve" in b("task", "audit", parties.task).text


def test_the_draft_is_looked_up_once_and_fixed(parties: Parties, source: Path) -> None:
    a = parties["bank-a"]
    a("task", "new", draft(parties), parties.task)
    before = a("task", "show", parties.task, "--json").json["contract"]
    (source / "new").write_text("more data")
    a("push", source, parties.folder / "store-bank-a")
    again = a("task", "show", parties.task, "--json").json["contract"]
    assert before == again
    assert again["inputs"]["loans-a"]["data"]["version"] == 1
    stat = a("stat", f"{parties.folder / 'store-bank-a'}@1", "--json").json
    assert again["inputs"]["loans-a"]["data"]["dataset"] == stat["dataset"]


def test_nobody_signs_what_they_have_not_looked_at(parties: Parties) -> None:
    a, b = parties["bank-a"], parties["bank-b"]
    a("task", "new", draft(parties), parties.task)
    assert "never looked at" in b("task", "approve", parties.task, code=15).complaint
    b("task", "show", parties.task)
    a("task", "new", "--replace", draft(parties, **{"runs = 2": "runs = 900"}), parties.task)
    assert (
        "not looked at this contract since it was changed" in b("task", "approve", parties.task, code=15).complaint
    )
    shown = b("task", "show", parties.task)
    assert "CHANGED since you looked" in shown.stderr
    assert "runs: was 2, is now 900" in shown.text
    b("task", "approve", parties.task)


def test_scripts_say_what_they_mean_to_sign(parties: Parties) -> None:
    a, b = parties["bank-a"], parties["bank-b"]
    digest = a("task", "new", draft(parties), parties.task, "--json").json["digest"]
    assert (
        "not the contract that you mean"
        in b("task", "approve", parties.task, "--digest", "0" * 64, code=15).complaint
    )
    b("task", "approve", parties.task, "--digest", digest[:8], code=2)
    b("task", "approve", parties.task, "--digest", digest[:16])


def test_an_edit_clears_all_approvals(parties: Parties) -> None:
    a = parties["bank-a"]
    first = a("task", "new", draft(parties), parties.task, "--json").json
    approve(parties, "bank-a", "bank-b")
    edit = a("task", "new", "--replace", draft(parties, **{'"1"': '"2"'}), parties.task, "--json")
    assert edit.json["task"] == first["task"]
    assert edit.json["digest"] != first["digest"]
    assert edit.json["state"] == "DataAssigned"
    assert 'OMP_NUM_THREADS: was "1", is now "2"' in edit.stderr
    assert a("task", "status", parties.task, "--json").json["missing"] == ["bank-a", "bank-b"]


def test_an_owner_assigns_their_data(parties: Parties) -> None:
    a, b = parties["bank-a"], parties["bank-b"]
    assert "Created" in a("task", "new", draft(parties, complete=False), parties.task).text
    a("task", "show", parties.task)
    assert "not every input" in a("task", "approve", parties.task, code=15).complaint
    b("task", "assign", parties.task, "nothing", parties.folder / "store-bank-b", code=2)
    assert "DataAssigned" in b("task", "assign", parties.task, "loans-b", parties.folder / "store-bank-b").text
    approve(parties, "bank-a", "bank-b")


def test_copies_come_together(parties: Parties) -> None:
    a, b = parties["bank-a"], parties["bank-b"]
    a("task", "new", draft(parties), parties.task)
    theirs = parties.folder / "copy.task"
    theirs.write_bytes(parties.task.read_bytes())
    approve(parties, "bank-a")
    b("task", "show", theirs)
    b("task", "approve", theirs)
    assert "Approved" in a("task", "merge", parties.task, theirs).text
    other = parties.folder / "other.task"
    a("task", "new", parties.task, other)
    assert "another contract" in a("task", "merge", parties.task, other, code=15).complaint


def test_the_same_again_is_another_task(parties: Parties) -> None:
    a = parties["bank-a"]
    first = a("task", "new", draft(parties), parties.task, "--json").json
    approve(parties, "bank-a", "bank-b")
    again = a("task", "new", parties.task, parties.folder / "again.task", "--json").json
    assert again["task"] != first["task"]
    assert again["state"] == "DataAssigned"
    a("task", "new", draft(parties), parties.task, code=2)


def test_withdrawing_and_canceling(parties: Parties) -> None:
    a, b = parties["bank-a"], parties["bank-b"]
    a("task", "new", draft(parties), parties.task)
    approve(parties, "bank-a", "bank-b")
    assert "no say" in b("task", "cancel", parties.task, code=15).complaint
    assert "no say" in parties["cloud"]("task", "withdraw", parties.task, code=15).complaint
    assert "withdrawn by bank-b" in b("task", "withdraw", parties.task, "-m", "the board said no").text
    assert "final" in b("task", "approve", parties.task, code=15).complaint
    assert "canceled by bank-a" in a("task", "cancel", parties.task).text
    audit = a("task", "audit", parties.task).text
    assert '"the board said no"' in audit
    assert [said["action"] for said in a("task", "audit", parties.task, "--json").json["statements"]].count(
        "approve"
    ) == 2


def test_a_forged_file_is_refused_by_every_verb(parties: Parties) -> None:
    a = parties["bank-a"]
    a("task", "new", draft(parties), parties.task)
    approve(parties, "bank-a", "bank-b")
    document = json.loads(parties.task.read_bytes())
    document["contract"]["runs"] = 1000
    parties.task.write_text(json.dumps(document))
    for verb in (["show"], ["status"], ["audit"], ["approve"], ["withdraw"], ["cancel"]):
        assert "another contract" in a("task", *verb, parties.task, code=15).complaint


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("days = 30", "", "how long it holds"),
        ("days = 30", "days = 0", "days"),
        ("days = 30", 'expires = "tomorrow"', "no time"),
        ("bank-b.pub", "nobody.pub", "cannot read"),
        ("train.py", "missing.py", "cannot read"),
        ('creator = "bank-a"', 'creator = "bank-x"', "no party"),
        ("runs = 2", "runs = 2\nsurprise = 1", "unknown member"),
        ("[policy]", "[policy", "no TOML"),
        ("development = true", "", "level L1 protects nothing"),
    ],
)
def test_drafts_that_make_no_sense(parties: Parties, old: str, new: str, words: str) -> None:
    outcome = parties["bank-a"]("task", "new", draft(parties, **{old: new}), parties.task, code=None)
    assert outcome.code in {2, 9}
    assert words in outcome.complaint
    assert not parties.task.exists()
