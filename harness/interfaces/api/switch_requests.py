"""Endpoints for agents' switch requests, and for the grants of literal models."""

from typing import Annotated

from fastapi import APIRouter, Query

from harness.agents import switches
from harness.agents.operations import AGENTS
from harness.agents.switches import SwitchRequestView, view_switch
from harness.frame.pagination import Page
from harness.interfaces.api.frame.endpoint import (
    CallerParam,
    Name,
    PageQuery,
    endpoint,
)
from harness.interfaces.api.frame.operation_endpoint import add_endpoints
from harness.operations.operations import GRANT_LISTS

router = APIRouter()


class SwitchRequestQuery(PageQuery):
    """Filters and pages a list of switch requests. session: only this session's requests.
    pending: only requests that wait for a person.
    """

    session: Name | None = None
    pending: bool = False


@endpoint(router, "GET", "/switch-requests")
def list_switch_requests(
    caller: CallerParam, query: Annotated[SwitchRequestQuery, Query()]
) -> Page[SwitchRequestView]:
    """Lists switch requests, newest first; with `pending`, only waiting requests."""
    requests = caller.ctx.store.lists.switch_requests(
        query.page,
        session=query.session,
        pending_at=caller.ctx.clock.now() if query.pending else None,
    )
    return requests.map(lambda request: view_switch(caller.ctx, request))


@endpoint(router, "GET", "/switch-requests/{request}")
def get_switch_request(caller: CallerParam, request: str) -> SwitchRequestView:
    return view_switch(caller.ctx, switches.load_switch(caller.ctx, request))


add_endpoints(router, AGENTS, GRANT_LISTS)
