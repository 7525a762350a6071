"""`swapgate demo`: the main job on this machine, in about two minutes."""

import click


@click.command()
@click.option("--once", is_flag=True, help="End by itself instead of running until Ctrl-C.")
@click.option("--swap", is_flag=True, help="Exchange the skills of the two candidates.")
@click.pass_context
def demo(context: click.Context, *, once: bool, swap: bool) -> None:
    """Four stories with simulated providers: promoted, stopped, rolled back, provider lost."""
    from harness.app.demo.director import run_demo  # noqa: PLC0415 - `--help` stays quick

    context.exit(run_demo(once=once, swap=swap))
