"""Endpoints for shadows, which mirror a route's requests to a candidate: list, start, stop, and
what the pairs of answers show.
"""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from harness.api.frame.endpoint import CallerParam, endpoint
from harness.api.frame.request_fields import ReasonBody, ShadowBody, ShadowQuery
from harness.control.operations import queries
from harness.control.shadow import shadows
from harness.control.shadow.shadows import ShadowRequest, ShadowStatus
from harness.domain.pagination import Page
from harness.domain.shadow.shadow import Shadow, ShadowLimits
from harness.ports import ShadowRecord

router = APIRouter()
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
