"""Four parties and what they could agree on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from sealfs.attestation.levels import Level
from sealfs.attestation.policy import Policy
from sealfs.contracts.contract import Contract
from sealfs.contracts.task import Task
from sealfs.contracts.terms import Function, Input, Output, Party, SealedData
from sealfs.keys import Identity

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=30)
NAMES = ("bank-a", "bank-b", "model-co", "cloud")


@cache
def identity(name: str) -> Identity:
    """The identity of a party; the same whenever it is asked for."""
    return Identity.generate()


def data(number: int) -> SealedData:
    """Some state of some dataset."""
    return SealedData(f"{number:032x}", number, f"{number:064x}", f"file:///store/{number}")


def contract(**changes: Any) -> Contract:
    """Two banks' data, a model company's script, results for the first bank."""
    parties = {name: Party(identity(name).signer, identity(name).recipient) for name in NAMES}
    agreed = Contract(
        id="0123456789abcdef" * 2,
        title="Loans that fail",
        creator="bank-a",
        operator="cloud",
        parties=parties,
        function=Function(
            "logistic regression",
            "model-co",
            public=False,
            executor="native",
            script="train.py",
            sha256="ab" * 32,
            arguments=("/data", "--save", "/out"),
            environment={"OMP_NUM_THREADS": "1"},
        ),
        inputs={
            "loans-a": Input(("bank-a",), "/data", "a_", data(1)),
            "loans-b": Input(("bank-b",), "/data", "b_", data(2)),
        },
        outputs={"model": Output(("bank-a",), "/out", 1 << 20)},
        policy=Policy(Level.L1, development=True),
        network="services",
        stdout="none",
        not_before=NOW,
        expires=LATER,
        runs=2,
    )
    return replace(agreed, **changes)


def approved(agreed: Contract | None = None, but: tuple[str, ...] = ()) -> Task:
    """A task that everybody has signed, except for some."""
    task = Task(agreed or contract())
    for name in task.contract.approvers:
        if name not in but:
            task = task.approve(identity(name), NOW)
    return task
