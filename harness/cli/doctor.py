"""`swapgate doctor`: everything that an installation needs, looked at once."""

import click

from harness.cli import output
from harness.cli.session import Session

MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}


@click.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Check everything, and say what to mend.

    Exit code 1 when a check fails; a warning is no failure.
    """
    from harness.cli import checks  # noqa: PLC0415 - `--help` stays quick

    session = ctx.ensure_object(Session)
    found = list(checks.all_checks(session))
    failed = any(check.status == "fail" for check in found)
    if session.json:
        output.document({"ok": not failed, "checks": found})
    else:
        output.table(
            ["CHECK", "", "FOUND", "NEXT STEP"],
            [[c.subject, MARKS[c.status], c.found, c.next_step or " "] for c in found],
            empty="",
        )
    ctx.exit(1 if failed else 0)
