"""`sealfs task`: finds the verb below it; its verbs are in the task_*.py beside it."""

from __future__ import annotations

import importlib

import click

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


class TaskGroup(click.Group):
    """Loads a verb's module when the verb is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click: verbs in the order in which they are used."""
        del ctx
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click."""
        del ctx
        if cmd_name not in _VERBS:
            return None
        command = getattr(importlib.import_module(f"sealfs.cli.{_VERBS[cmd_name][0]}"), f"{cmd_name}_command")
        assert isinstance(command, click.Command)  # noqa: S101 - for the type checker
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click; without importing every verb for its first line."""
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, words) for verb, (_, words) in _VERBS.items()])


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
