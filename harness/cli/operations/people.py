"""`swapgate person` says who is who: principals, whom an admin declared to be one person
(`link`, `separate`), who is signed in to the dashboard (`sessions`), and ends such a sign-in.
"""

import click

from harness.cli.frame import output
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session, pass_session
from harness.control.operations import dashboard_sessions, people

REASON = click.option("--reason", required=True, help="Reason, recorded in the audit log.")


@click.group()
def person() -> None:
    """People: who of the principals is one person, and who is signed in."""


@person.command("list")
@pass_session
def list_people(session: Session) -> None:
    """List the principals: who acts with a key, by single sign-on, or on this machine.

    With a key below the admin role, it lists those that are whoever holds the key.
    """
    found = people.list_people(session.context, session.actor)
    if session.json:
        output.document(found)
        return
    output.table(
        ["NAME", "KIND", "SIGNS IN AT", "IS", "DECLARED BY", "REASON", "SINCE"],
        [
            [
                view.name,
                view.kind.value,
                view.issuer or "",
                view.person,
                view.declared_by,
                view.reason,
                timestamp(view.created_at),
            ]
            for view in found
        ],
        empty="nobody yet",
    )


@person.command()
@click.argument("name")
@click.argument("person_name", metavar="PERSON")
@REASON
@pass_session
def link(session: Session, name: str, person_name: str, reason: str) -> None:
    """Declare that NAME is the same person as PERSON.

    Neither approves what the other proposed from then on. Who comes by single sign-on can be
    named after the first sign-in.
    """
    made = people.link(session.context, session.deciding_actor, name, person_name, reason)
    if session.json:
        output.document(made)
    else:
        click.echo(f"{name} and {person_name} are one person")


@person.command()
@click.argument("name")
@REASON
@pass_session
def separate(session: Session, name: str, reason: str) -> None:
    """Declare that NAME is nobody else here.

    Somebody of single sign-on needs this, or a `link`, to approve what was proposed with a key,
    and the other way. Whoever declares it is not one of the two.
    """
    made = people.separate(session.context, session.deciding_actor, name, reason)
    if session.json:
        output.document(made)
    else:
        click.echo(f"{name} is nobody else here")


@person.command()
@pass_session
def sessions(session: Session) -> None:
    """List who is signed in to the dashboard, the last one first.

    With a key below the admin role, it lists the holder's own sessions.
    """
    found = dashboard_sessions.list_open(session.context, session.actor)
    if session.json:
        output.document(found)
        return
    output.table(
        ["SESSION", "NAME", "BY", "SINCE", "UNTIL"],
        [
            [
                view.id,
                view.name,
                view.by,
                timestamp(view.opened_at),
                timestamp(view.expires_at),
            ]
            for view in found
        ],
        empty="nobody is signed in",
    )


@person.command("sign-out")
@click.argument("session_id", metavar="SESSION")
@REASON
@pass_session
def sign_out(session: Session, session_id: str, reason: str) -> None:
    """End somebody's session in the dashboard, at once."""
    ended = dashboard_sessions.end_another(
        session.context, session.deciding_actor, session_id, reason
    )
    if session.json:
        output.document(ended)
    else:
        click.echo(f"{ended.name} is signed out of {ended.id}")
