"""Endpoints for switches and break-glass."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter
from pydantic import AwareDatetime, Field

from harness.frame.pagination import Page
from harness.interfaces.api.frame.endpoint import (
    Body,
    CallerParam,
    Name,
    OverruleBody,
    PathPart,
    Text,
    endpoint,
    operation,
)
from harness.proposals import break_glass as broken
from harness.providers.force import (
    KillSwitch,
    SwitchRecord,
    SwitchSource,
    parse_force,
)
from harness.routing.control import freezes
from harness.routing.evidence import BreakGlass

switches_router = APIRouter()


class SwitchBody(Body):
    """A switch to throw. force: `provider:NAME` or `target:ID` to use only this provider or
    target; `avoid:provider:NAME` or `avoid:target:ID` to avoid it; `freeze` to freeze routes.
    route: null for all routes. for_s: null until a person lifts the switch. starts_at: only of
    a freeze; null for now.
    """

    force: Name
    reason: Text
    route: Name | None = None
    for_s: Annotated[float, Field(gt=0, le=31_536_000)] | None = None
    starts_at: AwareDatetime | None = None


class BreakGlassBody(Body):
    """A request that a target serve a route without proof. target: id or `provider/model`.
    through_freeze: also while the route is frozen.
    """

    route: Name
    target: Name
    reason: Text
    for_s: Annotated[float, Field(gt=0, le=604_800)]
    through_freeze: bool = False


@endpoint(switches_router, "GET", "/switches")
def list_switches(who: CallerParam, piece: PathPart) -> Page[SwitchRecord]:
    """Lists all switches, newest first."""
    return who.ctx.store.lists.switches(piece.page)


@endpoint(switches_router, "POST", "/switches", status=201)
def throw_switch(who: CallerParam, body: SwitchBody) -> KillSwitch:
    """Throws a switch within two seconds. Needs an approver."""
    lasts = None if body.for_s is None else timedelta(seconds=body.for_s)
    request = freezes.SwitchRequest(
        parse_force(body.force),
        body.reason,
        body.route,
        lasts,
        body.starts_at,
    )
    return freezes.throw_switch(who.ctx, who.actor, request, source=SwitchSource.REST)


break_glasses_router = APIRouter()


@endpoint(break_glasses_router, "GET", "/break-glass")
def list_break_glasses(who: CallerParam, piece: PathPart) -> Page[BreakGlass]:
    """Lists the uses of break-glass, with the people who allowed them, newest first."""
    return who.ctx.store.lists.break_glasses(piece.page)


@endpoint(break_glasses_router, "POST", "/break-glass", status=201)
def propose_break_glass(who: CallerParam, body: BreakGlassBody) -> BreakGlass:
    """Requests that a target serve without proof. A second person must confirm it within an
    hour.
    """
    request = broken.BreakGlassRequest(
        body.route,
        body.target,
        body.reason,
        timedelta(seconds=body.for_s),
        body.through_freeze,
    )
    return broken.propose_break_glass(who.ctx, who.actor, request)


operation(
    switches_router,
    "POST /switches/{switch}/lift",
    "lift_switch",
    freezes.lift_switch,
    OverruleBody,
)
GLASS = "/break-glass/{glass}"
operation(
    break_glasses_router,
    f"POST {GLASS}/confirm",
    "confirm_break_glass",
    broken.confirm_break_glass,
)
operation(
    break_glasses_router,
    f"POST {GLASS}/end",
    "end_break_glass",
    broken.end_break_glass,
    OverruleBody,
)
