"""`swapgate user` deletes what a user of the clients said and got."""

import click

from harness.cli.frame import output
from harness.cli.frame.session import Session, pass_session
from harness.control.privacy import user_deletion


@click.group()
def user() -> None:
    """Users of the clients: delete what one said and got."""


@user.command()
@click.argument("user_id", metavar="USER")
@click.option("--reason", required=True, help="Reason, recorded in the audit log.")
@pass_session
def delete(session: Session, user_id: str, reason: str) -> None:
    """Delete USER's sessions, captured requests and marks, for good.

    USER is the id as clients sent it. The audit log keeps the reason and the counts, and not
    the id. What a deletion cannot reach is named.
    """
    done = user_deletion.delete_user(
        session.context,
        session.deciding_actor,
        user_id,
        reason,
        secret=session.installation.secret,
    )
    if session.json:
        output.document(done)
        return
    click.echo(
        f"deleted {done.sessions} sessions and {done.captures} captured requests; blanked "
        f"{done.failovers} fail-overs"
    )
    output.note("not reached: " + "; ".join(done.not_reached))
