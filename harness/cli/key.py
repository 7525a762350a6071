"""`swapgate key`: data keys for clients, management keys with a role for people."""

import click

from harness.cli import output, wording
from harness.cli.session import Session, pass_session
from harness.control import keys
from harness.control.present import plain
from harness.domain.access import ApiKey, Role

ROLES = [role.name.lower() for role in Role]


@click.group()
def key() -> None:
    """Keys for clients and for people."""


@key.command()
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(ROLES),
    help="A management key with this role; without it a data key for the router.",
)
@click.option(
    "--route",
    "routes",
    multiple=True,
    metavar="ROUTE",
    help="A route that the data key opens; may be repeated. [default: all]",
)
@pass_session
def create(session: Session, name: str, role: str | None, routes: tuple[str, ...]) -> None:
    """Create a key and print it, this once."""
    if role and routes:
        raise click.UsageError("a management key has a role, not routes: leave --route out")
    made, text = keys.create(
        session.context,
        session.actor,
        name,
        secret=session.installation.secret,
        role=Role[role.upper()] if role else None,
        routes=routes,
    )
    if session.json:
        output.document({"key": plain(made), "text": text})
        return
    click.echo(text)
    output.note(f"{made.id}, {_kind(made)} key of {name!r}. It is not shown again: keep it now")


@key.command("list")
@pass_session
def list_keys(session: Session) -> None:
    """List the keys; a key's text is never shown again."""
    found = keys.all_keys(session.context)
    if session.json:
        output.document(found)
        return
    output.table(
        ["ID", "NAME", "KIND", "ENDS IN", "ROUTES", "CREATED", "REVOKED"],
        [
            [
                each.id,
                each.name,
                _kind(each),
                each.hint,
                ", ".join(sorted(each.routes)) or "all",
                wording.at(each.created_at),
                wording.at(each.revoked_at),
            ]
            for each in found
        ],
        empty="no keys yet: `swapgate key create NAME` makes one",
    )


@key.command()
@click.argument("key_id", metavar="ID")
@pass_session
def revoke(session: Session, key_id: str) -> None:
    """Revoke a key; routers stop taking it within two seconds."""
    keys.revoke(session.context, session.actor, key_id)
    if session.json:
        output.document({"revoked": key_id})
    else:
        click.echo(f"revoked {key_id}")


def _kind(key: ApiKey) -> str:
    return key.role.name.lower() if key.role else "data"
