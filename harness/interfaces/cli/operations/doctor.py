"""`swapproof doctor`."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import click

from harness.frame.formatting import format_quantity, format_usd
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import FiniteRange, command, opt
from harness.interfaces.cli.frame.session import Session

MARKS = {
    "ok": "ok",
    "warn": "warn",
    "fail": "FAIL",
}


@command(example="swapproof doctor")
def doctor(
    session: Session,
    *,
    tools: str | None = opt(
        "Instead, run a tool loop on a target, and compare it with the declared abilities. "
        "TARGET: an id, PROVIDER/MODEL, or a route, for all of its targets.",
        metavar="TARGET",
    ),
    live: str | None = opt(
        "Instead, call one model of a provider, or all its registered models, with the "
        "provider's key. This costs money, and needs --max-usd.",
        metavar="PROVIDER[/MODEL]",
    ),
    max_usd: float | None = opt(
        "With --live: maximum cost of the run in US dollars.",
        type=FiniteRange(min=0, min_open=True),
    ),
    timeout_s: float = opt(
        "Seconds for one target; with --live, for each answer.",
        "--timeout",
        type=FiniteRange(min=0, min_open=True),
        default=120.0,
    ),
) -> int:
    """Check the installation, and show what to fix.

    Exit code 1 if a check fails; a warning is not a failure.
    """
    if live is not None and tools is not None:
        raise click.UsageError("--live and --tools exclude each other: give one of them")
    if live is None and max_usd is not None:
        raise click.UsageError("--max-usd needs --live")
    if live is not None:
        if max_usd is None:
            raise click.UsageError("--live costs money: limit it with --max-usd")
        return 0 if _check_live(session, live, max_usd, timeout_s) else 1
    if tools is not None:
        return 0 if _check_tools(session, tools, timeout_s) else 1
    from harness.app.doctor import checks  # noqa: PLC0415 - `--help` stays quick

    findings = list(checks.run_checks(lambda: session.settings, lambda: session.context))
    failed = any(check.status == "fail" for check in findings)
    if not output.documented({"ok": not failed, "checks": findings}):
        output.findings(
            findings,
            lambda check: {
                "CHECK": check.subject,
                "": MARKS[check.status],
                "FOUND": check.found,
            },
            lambda check: check.next_step,
        )
    return 1 if failed else 0


def _check_tools(
    session: Session,
    name: str,
    timeout_s: float,
) -> bool:
    """Returns whether all declared abilities work. Raises NotFound, ConfigError."""
    from harness.app.doctor import tool_checks  # noqa: PLC0415 - the router is slow to import

    _ = session.context_with_providers  # stores the file's providers
    targets = tool_checks.find_targets(session.installation, name)
    with _hide_router_logs():
        reports = [
            tool_checks.probe_tools(session.installation, target, provider, timeout_s)
            for target, provider in targets
        ]
    ok = all(finding.ok for finding in reports)
    if not output.documented({"ok": ok, "targets": reports}):
        output.findings(
            [(report.target, finding) for report in reports for finding in report.findings],
            lambda pair: {
                "TARGET": pair[0],
                "CHECK": pair[1].subject,
                "": _format_outcome(pair[1].outcome, pair[1].failed),
                "FOUND": pair[1].found,
            },
            lambda pair: pair[1].next_step,
        )
    return ok


def _check_live(
    session: Session,
    name: str,
    max_usd: float,
    timeout_s: float,
) -> bool:
    """Returns whether every check ran and passed. Raises NotFound, InputError, ConfigError."""
    from harness.app.doctor import live_checks  # noqa: PLC0415 - the router is slow to import

    _ = session.context_with_providers  # stores the file's providers
    meter = live_checks.LiveMeter(max_usd)
    models = live_checks.find_models(session.installation, name)
    with _hide_router_logs():
        reports = [
            live_checks.probe_model(session.installation, provider, model, meter, timeout_s)
            for provider, model in models
        ]
    ok = all(report.ok for report in reports)
    document = {
        "ok": ok,
        "calls": meter.calls,
        "at_most_usd": meter.spent_usd,
        "targets": reports,
    }
    if output.documented(document):
        return ok
    output.findings(
        [(report.target, finding) for report in reports for finding in report.findings],
        lambda pair: {
            "TARGET": pair[0],
            "SCENARIO": pair[1].scenario,
            "": _format_outcome(pair[1].outcome, pair[1].outcome == "fails"),
            "EXPECTED": pair[1].expected,
            "FOUND": pair[1].found,
        },
        lambda pair: pair[1].next_step,
    )
    click.echo(
        f"{format_quantity(meter.calls, 'call')}: at most {format_usd(meter.spent_usd)} "
        f"of {format_usd(max_usd)}.",
        err=True,
    )
    return ok


@contextmanager
def _hide_router_logs() -> Iterator[None]:
    """Hides the router's warnings, because the checks send requests that must be refused."""
    logger = logging.getLogger("swapproof")
    former_level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(former_level)


def _format_outcome(outcome: str, failed: bool) -> str:  # noqa: FBT001 - two fields of a finding
    return f"FAIL: {outcome}" if failed else outcome
