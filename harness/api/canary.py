"""Canaries: where they stand and why, and a person's hand on them."""

from dataclasses import dataclass, fields

from fastapi import APIRouter

from harness.api.endpoint import Who, endpoint
from harness.api.json_answers import whole
from harness.api.request_fields import HandBody
from harness.control.canary import duration_estimate
from harness.control.canary.duration_estimate import RampPlan
from harness.control.canary.operations import by_hand, moved
from harness.control.proposals import comparison
from harness.control.proposals.comparison import CanaryStatus
from harness.domain.canary.rollout import Rollout, Signal
from harness.domain.errors import NotFound
from harness.domain.pagination import Page

router = APIRouter()


@dataclass(frozen=True)
class MovedCanary(Rollout):
    """A canary that a person moved. warnings: what the data say against it, if anything."""

    warnings: tuple[str, ...] = ()


@endpoint(router, "GET", "/canaries")
def list_canaries(who: Who) -> Page[CanaryStatus]:
    """The live ones."""
    return whole(comparison.canaries(who.ctx))


@endpoint(router, "GET", "/canaries/{route}")
def get_canary(who: Who, route: str) -> CanaryStatus:
    """The route's newest canary, live or not."""
    for found in comparison.canaries(who.ctx, route=route):
        return found
    raise NotFound(f"route {route!r} has had no canary yet: propose a swap first")


@endpoint(router, "GET", "/canaries/{route}/plan")
def plan_canary(who: Who, route: str, policy: str | None = None) -> RampPlan:
    """How long a canary takes at today's traffic, step by step, before there is one."""
    return duration_estimate.of_route(who.ctx, route, policy)


@endpoint(router, "POST", "/canaries/{route}/pause")
def pause_canary(who: Who, route: str, body: HandBody) -> Rollout:
    """Hold the share where it is until a person resumes or aborts; with a reason."""
    return _moved(who, route, Signal.PAUSE, body)


@endpoint(router, "POST", "/canaries/{route}/resume")
def resume_canary(who: Who, route: str, body: HandBody) -> Rollout:
    """Let one that is paused, or held after a fault of a router, go on; with a reason."""
    return _moved(who, route, Signal.RESUME, body)


@endpoint(router, "POST", "/canaries/{route}/abort")
def abort_canary(who: Who, route: str, body: HandBody) -> Rollout:
    """Back to the incumbent; in a bake, to the one before. Needs a reason, no proof."""
    return _moved(who, route, Signal.ABORT, body)


@endpoint(router, "POST", "/canaries/{route}/advance")
def advance_canary(who: Who, route: str, body: HandBody) -> MovedCanary:
    """One step on, with a reason, whatever the evidence still lacks, and with its warnings."""
    return _overruled(who, route, Signal.ADVANCE, body)


@endpoint(router, "POST", "/canaries/{route}/promote")
def promote_canary(who: Who, route: str, body: HandBody) -> MovedCanary:
    """Now, with a reason: needs the passed verdict, and another person than the proposer."""
    return _overruled(who, route, Signal.PROMOTE, body)


@endpoint(router, "POST", "/canaries/{route}/finish")
def finish_canary(who: Who, route: str, body: HandBody) -> Rollout:
    """End the bake, with a reason: the promotion stands."""
    return _moved(who, route, Signal.FINISH, body)


def _moved(who: Who, route: str, signal: Signal, body: HandBody) -> Rollout:
    return by_hand(who.ctx, who.actor, route, signal, body.reason, seen=body.version)


def _overruled(who: Who, route: str, signal: Signal, body: HandBody) -> MovedCanary:
    done = moved(who.ctx, who.actor, route, signal, body.reason, seen=body.version)
    values = {each.name: getattr(done.rollout, each.name) for each in fields(Rollout)}
    return MovedCanary(**values, warnings=done.warnings)
