"""Endpoints for canaries: list, show, plan how long one would take, and a person's acts (pause,
resume, abort, advance, promote, finish).

Endpoints for shadows, which mirror a route's requests to a candidate: list, start, stop, and
what the pairs of answers show.
"""

from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from harness.api.frame.endpoint import CallerParam, endpoint
from harness.api.frame.json_answers import json_answer
from harness.api.frame.request_fields import (
    CanaryOperationBody,
    ReasonBody,
    ShadowBody,
    ShadowQuery,
)
from harness.control.canary import duration_estimate
from harness.control.canary import status as canary_status
from harness.control.canary.duration_estimate import RampPlan
from harness.control.canary.operations import operate, operate_with_warnings
from harness.control.canary.status import CanaryStatus
from harness.control.operations import queries
from harness.control.shadow import shadows
from harness.control.shadow.shadows import ShadowRequest, ShadowStatus
from harness.domain.canary.rollout import Rollout, RolloutSignal
from harness.domain.errors import NotFound
from harness.domain.pagination import Page
from harness.domain.shadow.shadow import Shadow, ShadowLimits, ShadowRecord

router = APIRouter()


@dataclass(frozen=True)
class CanaryOperationResult(Rollout):
    """Describes a canary that a person moved. warnings: what the data say against it, if
    anything.
    """

    warnings: tuple[str, ...] = ()


@endpoint(router, "GET", "/canaries")
def list_canaries(who: CallerParam) -> Page[CanaryStatus]:
    """Lists the live canaries."""
    return json_answer(canary_status.list_canaries(who.ctx))


@endpoint(router, "GET", "/canaries/{route}")
def get_canary(who: CallerParam, route: str) -> CanaryStatus:
    """Shows the route's newest canary, live or not."""
    for canary in canary_status.list_canaries(who.ctx, route=route):
        return canary
    raise NotFound(f"route {route!r} has had no canary yet: propose a swap first")


@endpoint(router, "GET", "/canaries/{route}/plan")
def plan_canary(who: CallerParam, route: str, policy: str | None = None) -> RampPlan:
    """How long a canary takes at today's traffic, step by step, before there is one."""
    return duration_estimate.estimate_for_route(who.ctx, route, policy)


@endpoint(router, "POST", "/canaries/{route}/pause")
def pause_canary(who: CallerParam, route: str, body: CanaryOperationBody) -> Rollout:
    """Hold the share where it is until a person resumes or aborts; with a reason."""
    return _operate(who, route, RolloutSignal.PAUSE, body)


@endpoint(router, "POST", "/canaries/{route}/resume")
def resume_canary(who: CallerParam, route: str, body: CanaryOperationBody) -> Rollout:
    """Let one that is paused, or held after a fault of a router, go on; with a reason."""
    return _operate(who, route, RolloutSignal.RESUME, body)


@endpoint(router, "POST", "/canaries/{route}/abort")
def abort_canary(who: CallerParam, route: str, body: CanaryOperationBody) -> Rollout:
    """Ends a canary: all traffic goes back to the incumbent, and in a bake to the incumbent
    before. Needs a reason, no proof.
    """
    return _operate(who, route, RolloutSignal.ABORT, body)


@endpoint(router, "POST", "/canaries/{route}/advance")
def advance_canary(
    who: CallerParam, route: str, body: CanaryOperationBody
) -> CanaryOperationResult:
    """Moves a canary one step on, with a reason, whatever the evidence still lacks, and with
    its warnings.
    """
    return _overrule(who, route, RolloutSignal.ADVANCE, body)


@endpoint(router, "POST", "/canaries/{route}/promote")
def promote_canary(
    who: CallerParam, route: str, body: CanaryOperationBody
) -> CanaryOperationResult:
    """Promotes a canary now. Needs a reason, the passed verdict, and another person than the
    proposer.
    """
    return _overrule(who, route, RolloutSignal.PROMOTE, body)


@endpoint(router, "POST", "/canaries/{route}/finish")
def finish_canary(who: CallerParam, route: str, body: CanaryOperationBody) -> Rollout:
    """End the bake, with a reason: the promotion stands."""
    return _operate(who, route, RolloutSignal.FINISH, body)


def _operate(
    who: CallerParam, route: str, signal: RolloutSignal, body: CanaryOperationBody
) -> Rollout:
    return operate(
        who.ctx, who.actor, route, signal, body.reason, expected_version=body.version
    )


def _overrule(
    who: CallerParam, route: str, signal: RolloutSignal, body: CanaryOperationBody
) -> CanaryOperationResult:
    done = operate_with_warnings(
        who.ctx, who.actor, route, signal, body.reason, expected_version=body.version
    )
    values = {field.name: getattr(done.rollout, field.name) for field in fields(Rollout)}
    return CanaryOperationResult(**values, warnings=done.warnings)


NO_REASON = ReasonBody()


@endpoint(router, "GET", "/shadows")
def list_shadows(
    who: CallerParam, piece: Annotated[ShadowQuery, Query()]
) -> Page[ShadowStatus]:
    """Lists the shadows, newest first, with those that have ended."""
    return queries.list_shadows(who.ctx, piece.page, route=piece.route)


@endpoint(router, "GET", "/shadows/{route}")
def get_shadow(who: CallerParam, route: str) -> ShadowStatus:
    """Shows the route's newest shadow."""
    return shadows.load_status(who.ctx, route)


@endpoint(router, "POST", "/shadows/{route}/start")
def start_shadow(who: CallerParam, route: str, body: ShadowBody) -> Shadow:
    """Starts a shadow: within two seconds every router mirrors requests to the candidate, and
    nobody gets the candidate's answers.
    """
    limits = ShadowLimits(body.share_bps, body.at_once, body.requests_per_day, body.usd_per_day)
    lasts = timedelta(seconds=body.for_s)
    wanted = ShadowRequest(route, body.candidate, limits, body.reason, lasts)
    return shadows.start_shadow(who.ctx, who.actor, wanted)


@endpoint(router, "POST", "/shadows/{route}/stop")
def stop_shadow(who: CallerParam, route: str, body: ReasonBody = NO_REASON) -> ShadowRecord:
    """Stops the route's shadow: routers stop within two seconds."""
    return shadows.stop_shadow(who.ctx, who.actor, route, reason=body.reason)
