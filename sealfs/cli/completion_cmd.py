"""`sealfs completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from sealfs.errors import UsageError


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for SHELL.

    For bash: sealfs completion bash > ~/.local/share/bash-completion/completions/sealfs
    """
    from sealfs.cli.main import cli  # noqa: PLC0415 - main imports this module

    found = get_completion_class(shell)
    if found is None:
        raise UsageError(f"no completion for {shell}")
    click.echo(found(cli, {}, "sealfs", "_SEALFS_COMPLETE").source())
