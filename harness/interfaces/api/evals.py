"""Endpoints for suites, eval runs, verdicts and the drift watch."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query

from harness.evals import drift_watches
from harness.frame.idempotency import NoteCreated
from harness.frame.pagination import Page
from harness.gate.run import EvalRun, RunBudget, RunState, Sample
from harness.interfaces.api.frame.endpoint import (
    Body,
    CallerParam,
    Count,
    Name,
    PageParam,
    PageQuery,
    SpenderParam,
    Text,
    endpoint,
    operation,
)
from harness.interfaces.api.frame.operation_endpoint import add_endpoints
from harness.operations import queries
from harness.proposals import eval_queue
from harness.proposals.operations import EVAL_RUNS

router = APIRouter()


class EvalBody(Body):
    """An eval run to start. target: an id or `provider/model`. items: null for the whole suite.
    max_tokens, max_cost_usd: limits of the run; null for no limit.
    """

    suite: Name
    target: Name
    items: Count | None = None
    max_tokens: Count | None = None
    max_cost_usd: float | None = None


class EvalQuery(PageQuery):
    state: RunState | None = None


class DriftRunBody(Body):
    """Drift watches to run. suite: null for all suites that watch the route."""

    suite: Name | None = None


class DriftAcceptBody(DriftRunBody):
    reason: Text


@dataclass(frozen=True)
class EvalProgress:
    """A run with its progress. cost_usd: cost of the answers with a known price."""

    run: EvalRun
    samples: int
    cost_usd: float


@endpoint(router, "GET", "/evals")
def list_evals(caller: CallerParam, query: Annotated[EvalQuery, Query()]) -> Page[EvalRun]:
    """Lists the eval runs, newest first."""
    states = (query.state,) if query.state else ()
    return caller.ctx.store.lists.runs(query.page, states=states)


@endpoint(router, "POST", "/evals", status=201)
def start_eval(caller: SpenderParam, body: EvalBody) -> EvalRun:
    """Queues a run outside any proposal. Its result decides nothing."""

    def start(note: NoteCreated) -> EvalRun:
        return eval_queue.start_run(
            caller.ctx,
            caller.actor,
            body.suite,
            body.target,
            items=body.items,
            budget=RunBudget(body.max_tokens, body.max_cost_usd),
            note_made=note,
        )

    return caller.once(body, start, lambda ctx, run: queries.load_run_progress(ctx, run)[0])


@endpoint(router, "GET", "/evals/{run}")
def get_eval(caller: CallerParam, run: str) -> EvalProgress:
    return EvalProgress(*queries.load_run_progress(caller.ctx, run))


@endpoint(router, "GET", "/evals/{run}/samples")
def eval_samples(
    caller: CallerParam,
    run: str,
    query: PageParam,
) -> Page[Sample]:
    """Lists a run's samples, in the order in which the run asks the items. Samples that are
    hidden until people have labelled have the rule `hidden`, and the reason as their answer.
    """
    return queries.list_samples(caller.ctx, run, query.page)


add_endpoints(router, EVAL_RUNS)
operation(router, "GET /suites", "list_suites", queries.list_suites)
operation(router, "GET /verdicts/{verdict}", "get_verdict", queries.load_verdict)
operation(router, "GET /drift", "list_watched", drift_watches.list_drift_status)
operation(
    router,
    "GET /routes/{route}/drift",
    "route_drift",
    drift_watches.list_drift_reports,
)
operation(
    router,
    "POST /routes/{route}/drift/run",
    "run_drift",
    drift_watches.start_checks,
    DriftRunBody,
    status=201,
)
operation(
    router,
    "POST /routes/{route}/drift/accept",
    "accept_drift",
    drift_watches.accept_baseline,
    DriftAcceptBody,
)
