"""Endpoints for the drift watch: what is watched, its runs, what changed on a route, ask again,
accept a new baseline.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query

from harness.api.frame.endpoint import CallerParam, endpoint
from harness.api.frame.json_answers import json_answer
from harness.api.frame.request_fields import DriftAcceptBody, DriftQuery, DriftRunBody
from harness.control.drift import reports
from harness.control.drift.reports import DriftReport, DriftStatus
from harness.control.operations import queries
from harness.domain.drift.watch import DriftCheck, DriftWatch
from harness.domain.pagination import Page

router = APIRouter()
ALL_SUITES = DriftRunBody()


@dataclass(frozen=True)
class DriftRun:
    """A run of the drift watch. check: with each item's score."""

    watch: DriftWatch
    check: DriftCheck


@endpoint(router, "GET", "/drift")
def list_watched(who: CallerParam) -> Page[DriftStatus]:
    """Lists every incumbent that a suite watches."""
    return json_answer(reports.list_drift_status(who.ctx))


@endpoint(router, "GET", "/drift/runs")
def list_drift_runs(who: CallerParam, piece: Annotated[DriftQuery, Query()]) -> Page[DriftRun]:
    """Lists the runs that watched for drift, newest first."""
    drift_runs = queries.list_drift_runs(who.ctx, piece.page, route=piece.route or "")
    return drift_runs.map(lambda run: DriftRun(*run))


@endpoint(router, "GET", "/routes/{route}/drift")
def route_drift(who: CallerParam, route: str) -> Page[DriftReport]:
    """What changed since the baseline, suite by suite: figures, items, old and new answers."""
    return json_answer(reports.list_drift_reports(who.ctx, route))


@endpoint(router, "POST", "/routes/{route}/drift/run", status=201)
def run_drift(
    who: CallerParam, route: str, body: DriftRunBody = ALL_SUITES
) -> Page[DriftCheck]:
    """Ask the incumbent again at once."""
    return json_answer(reports.start_checks(who.ctx, who.actor, route, suite=body.suite or ""))


@endpoint(router, "POST", "/routes/{route}/drift/accept")
def accept_drift(who: CallerParam, route: str, body: DriftAcceptBody) -> Page[DriftWatch]:
    """Measure a new baseline of how it answers now. Needs an approver and a reason."""
    return json_answer(
        reports.accept_baseline(
            who.ctx, who.actor, route, suite=body.suite or "", reason=body.reason
        )
    )
