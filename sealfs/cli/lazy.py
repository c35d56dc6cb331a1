"""Groups whose verbs are imported when they are used, so that `sealfs --help` and `sealfs umount` start at once.

Threading: none.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import click


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb that need not be imported yet.

    Attributes:
        summary: The line that the group's help has of it.
        module: Where it is, in `sealfs.cli`.
        attribute: What its command is called there.
    """

    summary: str
    module: str
    attribute: str = "command"


class LazyGroup(click.Group):
    """A group of `verbs`.

    Attributes:
        verbs: By name, in the order in which they are used.
    """

    verbs: ClassVar[Mapping[str, Verb]]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See click."""
        del ctx
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See click."""
        del ctx
        verb = self.verbs.get(cmd_name)
        if verb is None:
            return None
        command = getattr(importlib.import_module(f"sealfs.cli.{verb.module}"), verb.attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - for the type checker
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See click; without importing every verb for its first line."""
        del ctx
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.summary) for name, verb in self.verbs.items()])
