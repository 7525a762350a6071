"""`swapgate completion`: the script that a shell reads to complete our commands."""

import click
from click.shell_completion import get_completion_class

VARIABLE = "_SWAPGATE_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a shell's completion.

    Once, for bash: swapgate completion bash > ~/.swapgate-complete, and
    `. ~/.swapgate-complete` in ~/.bashrc.
    """
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - click brings these three
    click.echo(found(ctx.find_root().command, {}, "swapgate", VARIABLE).source())
