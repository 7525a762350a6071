"""`swapgate drift`."""

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


@command(drift)
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
            "STATE": _state(row),
            "COMPARED": describe_comparison(row.comparisons),
            "CHANGE": _change(row.last.evidence if row.last else None),
            "LAST (UTC)": timestamp(row.last.ended_at if row.last else None),
            "NEXT (UTC)": timestamp(row.next_at),
        },
        empty="no model is watched: add a `drift` section to a suite; see "
        "`swapgate docs open explanation/drift`",
    )


def _run_cells(check: DriftCheck) -> dict[str, object]:
    return {
        "STARTED (UTC)": timestamp(check.started_at),
        "RUN": check.run,
        "RESULT": _result(check),
        "CHANGE": _change(check.evidence),
        "EVIDENCE": _evidence(check.evidence),
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
            f"no suite watches route {route}: see `swapgate docs open explanation/drift`"
        )
    for report in drift_reports:
        _show(report)


def _show(shown: DriftReport) -> None:
    status_ = shown.status
    baseline = shown.status.baseline
    last = status_.last
    evidence = last.evidence if last else None
    output.facts(
        [
            ("suite", status_.suite),
            ("model", status_.model),
            ("state", _state(status_)),
            (
                "baseline",
                f"{timestamp(baseline.started_at)}, {baseline.reason}" if baseline else None,
            ),
            ("compared", describe_comparison(status_.comparisons)),
            ("change", _change(evidence) if evidence else None),
            ("evidence", _evidence(evidence) if evidence else None),
            (
                "served",
                ", ".join(last.served) or "not named by the provider" if last else None,
            ),
            ("served before", _served_before(shown)),
            ("message", last.message or None if last else None),
        ]
    )
    if shown.changes:
        click.echo()
        output.table_of(
            shown.changes,
            lambda change: {
                "ITEM": change.item,
                "BEFORE": f"{change.score_before:g}",
                "NOW": f"{change.score_now:g}",
                "ANSWER BEFORE": format_excerpt(change.answer_before, 60),
                "ANSWER NOW": format_excerpt(change.answer_now, 60),
            },
        )
    if shown.checks:
        click.echo()
        output.table_of(shown.checks, _run_cells)
    click.echo()
    if status_.state == DRIFTED:
        output.note(
            f"next: accept the current answers with `swapgate drift accept "
            f"{status_.routes[0]} --reason …`, or propose another model"
        )


@command(drift)
def run(
    session: Session,
    route: str,
    *,
    suite: str = SUITE,
) -> None:
    """Start a drift run of ROUTE's incumbent at once, in the control process."""
    started = drift_watches.start_checks(session.context, session.actor, route, suite=suite)
    if advice := describe_missing_control(session.settings.control):
        output.note(advice)
    if output.documented(started):
        return
    for check in started:
        click.echo(check.run)
    output.note(f"started; `swapgate drift status {route}` shows the result")


@command(drift)
def accept(
    session: Session,
    route: str,
    *,
    suite: str = SUITE,
    reason: str = REASON,
) -> None:
    """Accept the current answers of ROUTE's model: measure a new baseline, end its alerts."""
    opened = session.decide(
        drift_watches.accept_baseline,
        route,
        suite=suite,
        reason=reason,
    )
    if output.documented(opened):
        return
    for baseline in opened:
        click.echo(baseline.watch)
        output.note(f"suite {baseline.suite}: measuring a new baseline")


def _served_before(shown: DriftReport) -> str | None:
    """Names the models that answered the changed items before, if the names differ now."""
    names = {change.served_before for change in shown.changes if change.served_before}
    last = shown.status.last
    return ", ".join(sorted(names)) if last and names - set(last.served) else None


def _state(status_: DriftStatus) -> str:
    words = {"baseline": "measuring the baseline", "drifted": "DRIFTED"}
    state = words.get(status_.state, status_.state)
    last = status_.last
    if last is not None and last.state is DriftCheckState.NOT_MEASURED:
        return f"{state}, last not measured"
    return state


def _result(check: DriftCheck) -> str:
    if check.state is DriftCheckState.RUNNING:
        return "running"
    if check.state is DriftCheckState.NOT_MEASURED:
        return f"not measured: {check.message}"
    if check.evidence is None:
        return "baseline"
    return "DRIFT" if check.evidence.drifted else "no drift"


def _change(evidence: DriftEvidence | None) -> str:
    return evidence.change_text if evidence else "–"


def _evidence(evidence: DriftEvidence | None) -> str:
    return evidence.share_text if evidence else "–"
