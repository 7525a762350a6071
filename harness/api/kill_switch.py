"""Endpoints for the kill switch."""

from datetime import timedelta

from fastapi import APIRouter

from harness.api.endpoint import BodyFactory, CallerParam, PathPart, endpoint
from harness.api.request_fields import OverruleBody, SwitchBody
from harness.control.operations import queries
from harness.control.routing import kill_switch
from harness.domain.pagination import Page
from harness.domain.routing.kill_switch import KillSwitch, SwitchSource, parse_force
from harness.ports import SwitchRecord

router = APIRouter()


@endpoint(router, "GET", "/switches")
def list_switches(who: CallerParam, piece: PathPart) -> Page[SwitchRecord]:
    """Newest first; lifted and expired ones too."""
    return queries.list_switches(who.ctx, piece.page)


@endpoint(router, "POST", "/switches", status=201)
def throw_switch(who: BodyFactory, body: SwitchBody) -> KillSwitch:
    """In force on every router within two seconds. Needs an approver, and no proof."""
    lasts = None if body.for_s is None else timedelta(seconds=body.for_s)
    wanted = kill_switch.SwitchRequest(parse_force(body.force), body.reason, body.route, lasts)
    return kill_switch.throw_switch(who.ctx, who.actor, wanted, source=SwitchSource.REST)


@endpoint(router, "POST", "/switches/{switch}/lift")
def lift_switch(who: CallerParam, switch: str, body: OverruleBody) -> SwitchRecord:
    """Back to the plans within two seconds. Lifting it again changes nothing."""
    return kill_switch.lift_switch(who.ctx, who.actor, switch, reason=body.reason)
