"""Endpoints for canaries and shadows."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from harness.app.shadow_judge import choose_judge
from harness.canary import duration_estimate, shadows
from harness.canary import status as canary_status
from harness.canary.caller_operations import CANARY_CALLERS
from harness.canary.canary_state import OPERATIONS, OVERRULES
from harness.canary.duration_estimate import RampPlan
from harness.canary.operations import operate
from harness.canary.shadow_operations import SHADOWS
from harness.canary.status import CanaryStatus
from harness.frame.errors import NotFound
from harness.frame.pagination import Page
from harness.gate.online.rollout import Rollout, RolloutSignal
from harness.interfaces.api.frame.endpoint import (
    Body,
    CallerParam,
    Name,
    RouteQuery,
    Text,
    endpoint,
    operation,
)
from harness.interfaces.api.frame.error_status import extend, json_answer
from harness.interfaces.api.frame.operation_endpoint import add_endpoints
from harness.operations import queries
from harness.routing.shadow import Shadow, ShadowLimits

router = APIRouter()


class CanaryOperationBody(Body):
    """An operation on a canary. version: the rollout's version that the person saw; Swapproof
    refuses the operation if the rollout has another version now.
    """

    reason: Text
    version: int | None = None


class ShadowBody(Body):
    """A shadow to start. candidate: id or `provider/model`. share_bps: 1 % is 100. at_once:
    largest number of parallel requests. Days are in UTC. usd_per_day: null for no budget.
    judge: the model that compares the answers; empty for a shadow without a verdict. criteria:
    the judge's rubric; null for the usual one. judge_anyway: why the judge may be of a compared
    model's maker.
    """

    candidate: Name
    reason: Text
    share_bps: Annotated[int, Field(ge=1, le=10_000)] = 100
    at_once: Annotated[int, Field(ge=1, le=64)] = 4
    requests_per_day: Annotated[int, Field(ge=1, le=10_000_000)] = 1000
    usd_per_day: Annotated[float, Field(gt=0, lt=1e9)] | None = 1.0
    for_s: Annotated[float, Field(gt=0, le=7_776_000)] = 604_800.0
    judge: str = ""
    criteria: Text | None = None
    judge_anyway: str = ""


@dataclass(frozen=True)
class CanaryOperationResult(Rollout):
    """A canary after an operation. warnings: reasons in the data against the operation."""

    warnings: tuple[str, ...] = ()


@endpoint(router, "GET", "/canaries")
def list_canaries(caller: CallerParam) -> Page[CanaryStatus]:
    """Lists the live canaries."""
    return json_answer(canary_status.list_canaries(caller.ctx))


@endpoint(router, "GET", "/canaries/{route}")
def get_canary(caller: CallerParam, route: str) -> CanaryStatus:
    """Shows the route's newest canary, live or not."""
    for canary in canary_status.list_canaries(caller.ctx, route=route):
        return canary
    raise NotFound(f"route {route!r} has had no canary yet: propose a swap first")


@endpoint(router, "GET", "/canaries/{route}/plan")
def plan_canary(
    caller: CallerParam,
    route: str,
    policy: str | None = None,
    callers_per_day: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
    requests_per_day: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
) -> RampPlan:
    """Estimates how long each step of a canary would take at the last hour's pace, or at the
    traffic that you expect.
    """
    expected = duration_estimate.expect_traffic(callers_per_day, requests_per_day)
    return duration_estimate.estimate_for_route(caller.ctx, route, policy, expected)


def _add_operation(signal: RolloutSignal, text: str) -> None:
    def act(
        caller: CallerParam,
        route: str,
        body: CanaryOperationBody,
    ) -> Rollout:
        result = operate(
            caller.ctx,
            caller.actor,
            route,
            signal,
            body.reason,
            expected_version=body.version,
        )
        if signal not in OVERRULES:
            return result.rollout
        return extend(CanaryOperationResult, result.rollout, warnings=result.warnings)

    act.__name__ = f"{signal.value}_canary"
    act.__doc__ = text
    if signal in OVERRULES:
        act.__annotations__["return"] = CanaryOperationResult
    endpoint(router, "POST", f"/canaries/{{route}}/{signal.value}")(act)


for _signal, _text in OPERATIONS.items():
    _add_operation(_signal, _text)


@endpoint(router, "POST", "/shadows/{route}/start")
def start_shadow(
    caller: CallerParam,
    route: str,
    body: ShadowBody,
) -> Shadow:
    """Starts a shadow: within two seconds every router mirrors requests to the candidate. No
    caller gets the candidate's answers.
    """
    limits = ShadowLimits(body.share_bps, body.at_once, body.requests_per_day, body.usd_per_day)
    duration = timedelta(seconds=body.for_s)
    return shadows.start_shadow(
        caller.ctx,
        caller.actor,
        route,
        body.candidate,
        limits,
        reason=body.reason,
        lasts=duration,
        judge=choose_judge(body.judge, body.criteria, body.judge_anyway)
        if body.judge
        else None,
    )


operation(router, "GET /shadows", "list_shadows", queries.list_shadows, RouteQuery)
add_endpoints(router, SHADOWS, CANARY_CALLERS)
