"""Endpoints for suites, eval runs (list, start, cancel, progress, samples) and verdicts.

Endpoints for the drift watch: what is watched, its runs, what changed on a route, ask again,
accept a new baseline.
"""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query

from harness.api.frame.endpoint import BodyFactory, CallerParam, PathPart, endpoint
from harness.api.frame.json_answers import json_answer
from harness.api.frame.request_fields import (
    DriftAcceptBody,
    DriftRunBody,
    EvalBody,
    EvalQuery,
    OverruleBody,
    RouteQuery,
)
from harness.control.drift import reports
from harness.control.drift.reports import DriftReport, DriftStatus
from harness.control.evals import worker_supervision
from harness.control.operations import queries
from harness.control.operations.queries import SuiteSummary
from harness.domain.drift import DriftCheck, DriftWatch
from harness.domain.evals.run import EvalRun, RunBudget, Sample
from harness.domain.evals.verdict import Verdict
from harness.domain.pagination import Page

router = APIRouter()


@dataclass(frozen=True)
class EvalProgress:
    """A run and how far it is. cost_usd: of the answers whose price is known."""

    run: EvalRun
    samples: int
    cost_usd: float


@endpoint(router, "GET", "/suites")
def list_suites(who: CallerParam) -> Page[SuiteSummary]:
    return json_answer(queries.list_suites(who.ctx))


@endpoint(router, "GET", "/evals")
def list_evals(who: CallerParam, piece: Annotated[EvalQuery, Query()]) -> Page[EvalRun]:
    """Lists the eval runs, newest first."""
    states = (piece.state,) if piece.state else ()
    return who.ctx.store.lists.runs(piece.page, states=states)


@endpoint(router, "POST", "/evals", status=201)
def start_eval(who: BodyFactory, body: EvalBody) -> EvalRun:
    """Queue a run outside any proposal. It never decides anything."""
    return worker_supervision.start_run(
        who.ctx,
        who.actor,
        body.suite,
        body.target,
        items=body.items,
        budget=RunBudget(body.max_tokens, body.max_cost_usd),
    )


@endpoint(router, "POST", "/evals/{run}/cancel")
def cancel_eval(who: CallerParam, run: str, body: OverruleBody) -> EvalRun:
    """End a run for good, with a reason. A proposal that waits for it is cancelled with it."""
    return worker_supervision.cancel_run(who.ctx, who.actor, run, body.reason)


@endpoint(router, "GET", "/evals/{run}")
def get_eval(who: CallerParam, run: str) -> EvalProgress:
    return EvalProgress(*queries.load_run_progress(who.ctx, run))


@endpoint(router, "GET", "/evals/{run}/samples")
def eval_samples(who: CallerParam, run: str, piece: PathPart) -> Page[Sample]:
    """Lists a run's samples in the order in which they are asked."""
    return who.ctx.store.lists.samples(piece.page, run=run)


@endpoint(router, "GET", "/verdicts/{verdict}")
def get_verdict(who: CallerParam, verdict: str) -> Verdict:
    return queries.load_verdict(who.ctx, verdict)


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
def list_drift_runs(who: CallerParam, piece: Annotated[RouteQuery, Query()]) -> Page[DriftRun]:
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
