"""The attacks in docs/contracts.md name tests, which have to be there."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).parents[2]
CONTRACTS = ("approval", "release", "release_evidence", "release_hostile", "run", "runner")
SHORT = {name: f"tests/contracts/test_{name}.py" for name in CONTRACTS}
SHORT["gramine"] = "tests/system/test_gramine_task.py"


def test_each_attack_names_tests_that_are_there() -> None:
    text = (TOP / "docs" / "contracts.md").read_text()
    table = text.split("## Attacks")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 17  # the issue's, and more
    for row in rows:
        named = re.findall(r"`([^`]+)`", row.split("|")[2])
        assert named, row
        for name in named:
            place, _, test = name.partition("::")
            path = TOP / SHORT.get(place, place)
            assert path.exists(), name
            assert (f"\ndef {test}(" in path.read_text()) if test else place not in SHORT, name
