"""Hidden commands: the worker processes of eval runs and of the router."""

import sys
from pathlib import Path

import click


@click.command(hidden=True)
@click.argument("run")
@click.option("--owner", required=True, help="This worker's name on the lease.")
@click.option(
    "--parent",
    type=int,
    required=True,
    help="Process id of the parent; the worker ends with it.",
)
@click.pass_context
def worker(context: click.Context, run: str, owner: str, parent: int) -> None:
    """Ask and score what one eval run still lacks."""
    from harness.app.eval_workers import run_worker  # noqa: PLC0415 - `--help` stays quick

    given = context.find_root().params.get("config")
    run_worker(Path(given) if given else None, run, owner=owner, parent=parent)


@click.command(hidden=True)
@click.option("--slot", type=int, required=True, help="Number of this worker.")
@click.option(
    "--channel", type=int, required=True, help="File descriptor of the channel to the parent."
)
@click.option(
    "--listen",
    "listeners",
    type=int,
    multiple=True,
    help="File descriptor of a listening socket.",
)
def router_worker(slot: int, channel: int, listeners: tuple[int, ...]) -> None:  # noqa: ARG001 - the slot tells workers apart in `ps`
    """Serve requests for `swapgate serve router`, which sends the settings on stdin."""
    from harness.app.router_process import run_router_worker  # noqa: PLC0415 - as above

    run_router_worker(sys.stdin.buffer.read(), channel=channel, listeners=listeners)
