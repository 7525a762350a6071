"""`swapproof drift`."""

from typing import Final

import click

from harness.app.processes import describe_missing_control
from harness.evals import drift_watches
from harness.evals.drift_watches import (
    DRIFTED,
    DriftReport,
    DriftStatus,
    describe_comparison,
)
from harness.frame.formatting import format_excerpt
from harness.gate.drift import DriftCheck, DriftCheckState, DriftEvidence
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import REASON, command, opt
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session

SUITE: Final = opt(
    "Only this suite. [default: all suites with drift runs]",
    metavar="SUITE",
    default="",
)


@click.group()
def drift() -> None:
    """The drift watch: whether models still answer as before."""


@command(drift, example="swapproof drift status support")
def status(
    session: Session,
    route: str | None,
    *,
    suite: str = SUITE,
) -> None:
    """Show every watched incumbent and its result.

    With ROUTE: its runs since the baseline, and the changed items with old and new answers.
    """
    if route:
        _show_route(session, route, suite)
    else:
        _list_watches(session)


def _list_watches(session: Session) -> None:
    statuses = drift_watches.list_drift_status(session.context)
    output.listing(
        statuses,
        lambda row: {
            "ROUTES": ", ".join(row.routes),
            "SUITE": row.suite,
            "MODEL": row.model,
            "STATE": _describe_state(row),
            "COMPARED": describe_comparison(row.comparisons),
            "CHANGE": _describe_change(row.last.evidence if row.last else None),
            "LAST (UTC)": timestamp(row.last.ended_at if row.last else None),
            "NEXT (UTC)": timestamp(row.next_at),
        },
        empty="no model is watched: add a `drift` section to a suite; see "
        "`swapproof docs open explanation/drift`",
    )


def _build_run_cells(check: DriftCheck) -> dict[str, object]:
    return {
        "STARTED (UTC)": timestamp(check.started_at),
        "RUN": check.run,
        "RESULT": _describe_result(check),
        "CHANGE": _describe_change(check.evidence),
        "EVIDENCE": _describe_evidence(check.evidence),
        "SERVED": ", ".join(check.served) or "–",
    }


def _show_route(
    session: Session,
    route: str,
    suite: str,
) -> None:
    drift_reports = drift_watches.list_drift_reports(session.context, route, suite=suite)
    if output.documented(drift_reports):
        return
    if not drift_reports:
        output.note(
            f"no suite watches route {route}: see `swapproof docs open explanation/drift`"
        )
    for report in drift_reports:
        _print_report(report)


def _print_report(report: DriftReport) -> None:
    drift_status = report.status
    baseline = report.status.baseline
    last_check = drift_status.last
    evidence = last_check.evidence if last_check else None
    output.facts(
        [
            ("suite", drift_status.suite),
            ("model", drift_status.model),
            ("state", _describe_state(drift_status)),
            (
                "baseline",
                f"{timestamp(baseline.started_at)}, {baseline.reason}" if baseline else None,
            ),
            ("compared", describe_comparison(drift_status.comparisons)),
            ("change", _describe_change(evidence) if evidence else None),
            ("evidence", _describe_evidence(evidence) if evidence else None),
            (
                "served",
                ", ".join(last_check.served) or "not named by the provider"
                if last_check
                else None,
            ),
            ("served before", _name_former_models(report)),
            ("message", last_check.message or None if last_check else None),
        ]
    )
    if report.changes:
        click.echo()
        output.table_of(
            report.changes,
            lambda change: {
                "ITEM": change.item,
                "BEFORE": f"{change.score_before:g}",
                "NOW": f"{change.score_now:g}",
                "ANSWER BEFORE": format_excerpt(change.answer_before, 60),
                "ANSWER NOW": format_excerpt(change.answer_now, 60),
            },
        )
    if report.checks:
        click.echo()
        output.table_of(report.checks, _build_run_cells)
    click.echo()
    if drift_status.state == DRIFTED:
        output.note(
            f"next: accept the current answers with `swapproof drift accept "
            f"{drift_status.routes[0]} --reason …`, or propose another model"
        )


@command(drift, example="swapproof drift run support")
def run(
    session: Session,
    route: str,
    *,
    suite: str = SUITE,
) -> None:
    """Start a drift run of ROUTE's incumbent at once, in the control process."""
    new_checks = drift_watches.start_checks(session.context, session.actor, route, suite=suite)
    if advice := describe_missing_control(session.settings.control):
        output.note(advice)
    if output.documented(new_checks):
        return
    for check in new_checks:
        click.echo(check.run)
    output.note(f"started; `swapproof drift status {route}` shows the result")


@command(drift, example='swapproof drift accept support --reason "the new answers are fine"')
def accept(
    session: Session,
    route: str,
    *,
    suite: str = SUITE,
    reason: str = REASON,
) -> None:
    """Accept the current answers of ROUTE's model: measure a new baseline, end its alerts."""
    baselines = session.decide(
        drift_watches.accept_baseline,
        route,
        suite=suite,
        reason=reason,
    )
    if output.documented(baselines):
        return
    for baseline in baselines:
        click.echo(baseline.watch)
        output.note(f"suite {baseline.suite}: measuring a new baseline")


def _name_former_models(report: DriftReport) -> str | None:
    """Names the models that answered the changed items before, if the names differ now."""
    names = {change.served_before for change in report.changes if change.served_before}
    last_check = report.status.last
    return ", ".join(sorted(names)) if last_check and names - set(last_check.served) else None


def _describe_state(drift_status: DriftStatus) -> str:
    words = {"baseline": "measuring the baseline", "drifted": "DRIFTED"}
    state = words.get(drift_status.state, drift_status.state)
    last_check = drift_status.last
    if last_check is not None and last_check.state is DriftCheckState.NOT_MEASURED:
        return f"{state}, last not measured"
    return state


def _describe_result(check: DriftCheck) -> str:
    if check.state is DriftCheckState.RUNNING:
        return "running"
    if check.state is DriftCheckState.NOT_MEASURED:
        return f"not measured: {check.message}"
    if check.evidence is None:
        return "baseline"
    return "DRIFT" if check.evidence.drifted else "no drift"


def _describe_change(evidence: DriftEvidence | None) -> str:
    return evidence.change_text if evidence else "–"


def _describe_evidence(evidence: DriftEvidence | None) -> str:
    return evidence.share_text if evidence else "–"
