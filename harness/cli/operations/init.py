"""`swapgate init` makes a folder an installation: configuration file, secrets, database. It
prints the first admin key and client key, once, and keeps what is there.
"""

from typing import TYPE_CHECKING

import click

from harness.cli.frame import output
from harness.cli.frame.session import Session, pass_session

if TYPE_CHECKING:
    from harness.app.set_up import SetUpResult


@click.command()
@pass_session
def init(session: Session) -> None:
    """Set up Swapgate in this folder.

    Writes swapgate.yaml and its schema, makes the folder for state with the secret and the
    database, and prints an admin's key and a client's key, this once. Files that are there
    are kept as they are: run it again whenever something is missing.
    """
    from harness.app.set_up import set_up  # noqa: PLC0415 - `--help` stays quick

    done = set_up(session.config)
    if session.json:
        output.document(done)
        return
    for name in done.created:
        click.echo(f"created {name}")
    for name in done.kept:
        click.echo(f"kept {name}: it was there, and is as it was")
    for name in done.seeded:
        click.echo(f"added {name} from {done.config}")
    _print_keys(done)
    output.note(
        "next: name a provider in swapgate.yaml, then `swapgate route create`, "
        "`swapgate serve all` and `swapgate doctor`"
    )


def _print_keys(done: "SetUpResult") -> None:
    if done.admin_key is None:
        output.note("there are keys already: `swapgate key create` makes more")
        return
    output.facts([("admin key", done.admin_key), ("client key", done.data_key)])
    output.note("the keys are not shown again: keep them now")
