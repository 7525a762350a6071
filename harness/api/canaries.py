"""Canaries: where they stand and why; pause, resume, abort."""

from fastapi import APIRouter

from harness.api.answers import Page, whole
from harness.api.bodies import ReasonBody
from harness.api.endpoint import Who, endpoint
from harness.control import canary, reports
from harness.control.reports import CanaryStatus
from harness.domain.errors import NotFound
from harness.domain.rollout import Rollout, Signal

router = APIRouter()
NO_REASON = ReasonBody()


@endpoint(router, "GET", "/canaries")
def list_canaries(who: Who) -> Page[CanaryStatus]:
    """The live ones."""
    return whole(reports.canaries(who.ctx))


@endpoint(router, "GET", "/canaries/{route}")
def get_canary(who: Who, route: str) -> CanaryStatus:
    """The route's newest canary, live or not."""
    for found in reports.canaries(who.ctx, route=route):
        return found
    raise NotFound(f"route {route!r} has had no canary yet: propose a swap first")


@endpoint(router, "POST", "/canaries/{route}/pause")
def pause_canary(who: Who, route: str, body: ReasonBody = NO_REASON) -> Rollout:
    """Hold the share where it is until a person resumes or aborts."""
    return canary.by_hand(who.ctx, who.actor, route, Signal.PAUSE, body.reason)


@endpoint(router, "POST", "/canaries/{route}/resume")
def resume_canary(who: Who, route: str, body: ReasonBody = NO_REASON) -> Rollout:
    return canary.by_hand(who.ctx, who.actor, route, Signal.RESUME, body.reason)


@endpoint(router, "POST", "/canaries/{route}/abort")
def abort_canary(who: Who, route: str, body: ReasonBody = NO_REASON) -> Rollout:
    """Back to the incumbent. Needs no proof."""
    return canary.by_hand(who.ctx, who.actor, route, Signal.ABORT, body.reason)
