"""`swapgate person` says who is who: principals, whom an admin declared to be one person
(`link`, `separate`), who is signed in to the dashboard (`sessions`), and ends such a sign-in.
"""

import click

from harness.cli.frame import output
from harness.cli.frame.command import REASON, arg, command
from harness.cli.frame.output import timestamp
from harness.cli.frame.session import Session
from harness.control.operations import dashboard_sessions, people


@click.group()
def person() -> None:
    """People: who of the principals is one person, and who is signed in."""


@command(person, "list")
def list_people(session: Session) -> None:
    """List the principals: who acts with a key, by single sign-on, or on this machine.

    With a key below the admin role, it lists those that are whoever holds the key.
    """
    found = people.list_people(session.context, session.actor)
    output.listing(
        found,
        lambda view: {
            "NAME": view.name,
            "KIND": view.kind.value,
            "SIGNS IN AT": view.issuer or "",
            "IS": view.person,
            "DECLARED BY": view.declared_by,
            "REASON": view.reason,
            "SINCE": timestamp(view.created_at),
        },
        empty="nobody yet",
    )


@command(person)
def link(
    session: Session, name: str, person_name: str = arg("PERSON"), *, reason: str = REASON
) -> None:
    """Declare that NAME is the same person as PERSON.

    Neither approves what the other proposed from then on. Who comes by single sign-on can be
    named after the first sign-in.
    """
    made = session.decide(people.link, name, person_name, reason)
    output.answer(made, f"{name} and {person_name} are one person")


@command(person)
def separate(session: Session, name: str, *, reason: str = REASON) -> None:
    """Declare that NAME is nobody else here.

    Somebody of single sign-on needs this, or a `link`, to approve what was proposed with a key,
    and the other way. Whoever declares it is not one of the two.
    """
    made = session.decide(people.separate, name, reason)
    output.answer(made, f"{name} is nobody else here")


@command(person)
def sessions(session: Session) -> None:
    """List who is signed in to the dashboard, the last one first.

    With a key below the admin role, it lists the holder's own sessions.
    """
    found = dashboard_sessions.list_open(session.context, session.actor)
    output.listing(
        found,
        lambda view: {
            "SESSION": view.id,
            "NAME": view.name,
            "BY": view.by,
            "SINCE": timestamp(view.opened_at),
            "UNTIL": timestamp(view.expires_at),
        },
        empty="nobody is signed in",
    )


@command(person, "sign-out")
def sign_out(
    session: Session, session_id: str = arg("SESSION"), *, reason: str = REASON
) -> None:
    """End somebody's session in the dashboard, at once."""
    ended = session.decide(dashboard_sessions.end_another, session_id, reason)
    output.answer(ended, f"{ended.name} is signed out of {ended.id}")
