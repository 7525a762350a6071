"""`swapgate doctor` checks everything that an installation needs and says what to fix; with
`--tools` it runs a tool loop on a target instead.
"""

import click

from harness.cli.frame import output
from harness.cli.frame.finite_range import FiniteRange
from harness.cli.frame.session import Session

MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}


@click.command()
@click.option(
    "--tools",
    "tools",
    metavar="TARGET",
    help=(
        "Run a tool loop on a target instead, and compare what it does with what is declared. "
        "TARGET: an id, PROVIDER/MODEL, which need not be registered, or a route, for all of "
        "its targets."
    ),
)
@click.option(
    "--timeout",
    "timeout_s",
    type=FiniteRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="Seconds for the tool loop on one target.",
)
@click.pass_context
def doctor(ctx: click.Context, tools: str | None, timeout_s: float) -> None:
    """Check the installation, and say what to fix.

    Exit code 1 when a check fails; a warning is no failure.
    """
    session = ctx.ensure_object(Session)
    if tools is not None:
        ctx.exit(0 if _tools(session, tools, timeout_s) else 1)
    from harness.app.doctor import checks  # noqa: PLC0415 - `--help` stays quick

    findings = list(checks.all_checks(lambda: session.settings, lambda: session.context))
    failed = any(check.status == "fail" for check in findings)
    if session.json:
        output.document({"ok": not failed, "checks": findings})
    else:
        output.table(
            ["CHECK", "", "FOUND", "NEXT STEP"],
            [[c.subject, MARKS[c.status], c.found, c.next_step or " "] for c in findings],
            empty="",
        )
    ctx.exit(1 if failed else 0)


def _tools(session: Session, name: str, timeout_s: float) -> bool:
    """Whether all that is declared works. Raises NotFound, ConfigError."""
    from harness.app.doctor import tool_checks  # noqa: PLC0415 - the router takes its time

    _ = session.context_with_providers  # the file's, too
    found = [
        tool_checks.report(session.installation, target, provider, timeout_s)
        for target, provider in tool_checks.meant(session.installation, name)
    ]
    ok = all(finding.ok for finding in found)
    if session.json:
        output.document({"ok": ok, "targets": found})
    else:
        output.table(
            ["TARGET", "CHECK", "", "FOUND", "NEXT STEP"],
            [
                [
                    finding.target,
                    f.subject,
                    _mark(f.outcome, f.failed),
                    f.found,
                    f.next_step or " ",
                ]
                for finding in found
                for f in finding.findings
            ],
            empty="",
        )
    return ok


def _mark(outcome: str, failed: bool) -> str:  # noqa: FBT001 - a finding's two
    return f"FAIL: {outcome}" if failed else outcome
