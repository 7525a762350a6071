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
    PageParam,
    Text,
    endpoint,
)
from harness.interfaces.api.frame.operation_endpoint import add_endpoints
from harness.operations.operations import BREAK_GLASS_LISTS
from harness.proposals.operations import BREAK_GLASSES
from harness.providers.force import (
    KillSwitch,
    SwitchRecord,
    SwitchSource,
    parse_force,
)
from harness.routing.control import freezes
from harness.routing.control.operations import SWITCHES

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


@endpoint(switches_router, "GET", "/switches")
def list_switches(caller: CallerParam, query: PageParam) -> Page[SwitchRecord]:
    """Lists all switches, newest first."""
    return caller.ctx.store.lists.switches(query.page)


@endpoint(switches_router, "POST", "/switches", status=201)
def throw_switch(caller: CallerParam, body: SwitchBody) -> KillSwitch:
    """Throws a switch within two seconds. Needs an approver."""
    duration = None if body.for_s is None else timedelta(seconds=body.for_s)
    request = freezes.SwitchRequest(
        parse_force(body.force),
        body.reason,
        body.route,
        duration,
        body.starts_at,
    )
    return freezes.set_switch(caller.ctx, caller.actor, request, source=SwitchSource.REST)


break_glasses_router = APIRouter()


add_endpoints(switches_router, SWITCHES)
add_endpoints(break_glasses_router, BREAK_GLASSES, BREAK_GLASS_LISTS)
