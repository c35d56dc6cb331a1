"""`sealfs task`: finds the verb below it; its verbs are in the task_*.py beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import click

from sealfs.cli.lazy import LazyGroup, Verb

_VERBS = {
    "new": ("task_agree", "Write a contract from a draft."),
    "share": ("task_shares", "Cut a dataset's key into shares for several owners."),
    "entrust": ("task_shares", "Put your share of a dataset's key at your broker."),
    "assign": ("task_agree", "Say which data an input is."),
    "show": ("task_look", "Print a contract in plain words, and what changed since you last looked."),
    "approve": ("task_agree", "Sign a contract."),
    "withdraw": ("task_agree", "Take your approval back."),
    "cancel": ("task_agree", "End a task for everybody."),
    "merge": ("task_agree", "Put copies of a task together."),
    "sync": ("task_run", "Exchange what is signed with the parties' brokers."),
    "run": ("task_run", "Run what is agreed: evidence, keys, script, sealed results."),
    "status": ("task_look", "Say how far a task has come, and whose approval is missing."),
    "results": ("task_run", "List, verify and open the results."),
    "vote": ("task_run", "Agree to the release of a result."),
    "audit": ("task_look", "List who said what and when, each with its signature checked."),
}


class TaskGroup(LazyGroup):
    """The verbs of tasks."""

    verbs: ClassVar[Mapping[str, Verb]] = {
        name: Verb(summary, module, f"{name}_command") for name, (module, summary) in _VERBS.items()
    }


_EPILOG = """\b
From a draft to a result:
  sealfs task new agreement.toml loans.task      the creator writes it down
  sealfs task show loans.task                    everybody reads it
  sealfs task approve loans.task                 and signs, each on a copy of their own
  sealfs task sync loans.task                    the signatures meet at the parties' brokers (or: task merge)
  sealfs task run loans.task --results URI       the operator runs it
  sealfs task results loans.task --verify --pull DIR
"""


@click.group(cls=TaskGroup, epilog=_EPILOG)
def command() -> None:
    """Agree with others on one use of everybody's data, and on nothing else.

    A task is a file: a contract, and what its parties have signed about it. It holds no secret, travels by any way,
    and is verified whole each time it is read. Whoever changes a letter of the contract has made another one, which
    nobody has signed.
    """
