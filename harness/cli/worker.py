"""`swapgate worker`: one eval run in a process of its own. The control process starts it."""

from pathlib import Path

import click


@click.command(hidden=True)
@click.argument("run")
@click.option("--owner", required=True, help="This worker's name on the lease.")
@click.option("--parent", type=int, required=True, help="The pid that it lives with.")
@click.pass_context
def worker(context: click.Context, run: str, owner: str, parent: int) -> None:
    """Ask and score what one eval run still lacks."""
    from harness import bootstrap  # noqa: PLC0415 - `--help` stays quick

    given = context.find_root().params.get("config")
    bootstrap.run_worker(Path(given) if given else None, run, owner=owner, parent=parent)
