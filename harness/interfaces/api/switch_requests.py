"""Endpoints for agents' switch requests, and for the grants of literal models."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from harness.agents import agents, switches
from harness.agents.switches import SwitchRequestView, view_switch
from harness.frame.pagination import Page
from harness.interfaces.api.frame.endpoint import (
    Body,
    CallerParam,
    Name,
    PageQuery,
    ReasonBody,
    Text,
    endpoint,
    operation,
)
from harness.routing.agent import AgentGrant

router = APIRouter()


class SwitchDecisionBody(Body):
    """A decision about a switch request. fingerprint: the fingerprint of the request that the
    person saw; Swapgate refuses the decision if the request has changed.
    """

    reason: Text = ""
    fingerprint: Annotated[str, Field(max_length=200)] = ""


class SwitchRequestQuery(PageQuery):
    """Filters and pages a list of switch requests. session: only this session's requests.
    pending: only requests that wait for a person.
    """

    session: Name | None = None
    pending: bool = False


class GrantQuery(PageQuery):
    """Filters and pages a list of grants. agent: only this agent's grants."""

    agent: Name | None = None


@endpoint(router, "GET", "/switch-requests")
def list_switch_requests(
    who: CallerParam, piece: Annotated[SwitchRequestQuery, Query()]
) -> Page[SwitchRequestView]:
    """Lists switch requests, newest first; with `pending`, only waiting requests."""
    found = who.ctx.store.lists.switch_requests(
        piece.page,
        session=piece.session,
        pending_at=who.ctx.clock.now() if piece.pending else None,
    )
    return found.map(lambda request: view_switch(who.ctx, request))


@endpoint(router, "GET", "/switch-requests/{request}")
def get_switch_request(who: CallerParam, request: str) -> SwitchRequestView:
    return view_switch(who.ctx, switches.load_switch(who.ctx, request))


for decide in (switches.approve_switch, switches.reject_switch):
    verb = decide.__name__.removesuffix("_switch")
    call = f"POST /switch-requests/{{request}}/{verb}"
    name = f"{verb}_switch_request"
    operation(router, call, name, decide, SwitchDecisionBody)


@endpoint(router, "GET", "/agent-grants")
def list_agent_grants(
    who: CallerParam, piece: Annotated[GrantQuery, Query()]
) -> Page[AgentGrant]:
    """Lists all grants of literal models, newest first."""
    return who.ctx.store.lists.agent_grants(piece.page, agent=piece.agent)


operation(
    router,
    "POST /agent-grants/{grant}/revoke",
    "revoke_agent_grant",
    agents.revoke_grant,
    ReasonBody,
)
