"""`swapgate db`: the schema of the configured database."""

import click

from harness.cli import output
from harness.cli.session import Session, pass_session


@click.group()
def db() -> None:
    """The database's schema."""


@db.command()
@pass_session
def upgrade(session: Session) -> None:
    """Bring the schema to the newest revision; a SQLite file is made where there is none."""
    from harness import bootstrap  # noqa: PLC0415 - `--help` stays quick

    bootstrap.upgrade_database(session.settings)
    if session.json:
        output.document({"upgraded": True})
    else:
        click.echo("the database is at the newest revision")


@db.command()
@click.pass_context
def check(ctx: click.Context) -> None:
    """Compare the database with what this version needs; exit code 1 where they differ."""
    from harness import bootstrap  # noqa: PLC0415 - as above

    session = ctx.ensure_object(Session)
    differences = bootstrap.schema_differences(session.settings)
    if session.json:
        output.document({"same": not differences, "differences": differences})
    elif differences:
        for each in differences:
            click.echo(each)
        output.note("the database differs from this version: run `swapgate db upgrade`")
    else:
        click.echo("the database is what this version needs")
    ctx.exit(1 if differences else 0)
