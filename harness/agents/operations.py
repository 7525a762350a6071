"""The simple operations on agents: decisions about switch requests, and grants.

By hand stay the switch requests, which show prices and quality of both models.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from harness.agents import agents, switches
from harness.agents.context import AgentsContext
from harness.frame.formatting import Range
from harness.frame.operation import (
    FinishedOperation,
    Listing,
    Operation,
    OperationGroup,
    Parameter,
)
from harness.frame.pagination import FIRST_PAGE, Page, PageRequest
from harness.frame.people.access import Role
from harness.routing.agent import AgentGrant

# The decision of a person who saw another request than the present one is refused.
_DECISION: Final[dict[str, Any]] = {
    "role": Role.APPROVER,
    "body": "SwitchDecisionBody",
    "body_text": "A decision about a switch request.",
    "parameters": {
        "fingerprint": Parameter(
            meaning="The fingerprint of the request that the person saw; Swapgate refuses the "
            "decision if the request has changed.",
            length=Range(0, 200),
            for_programs=True,
        )
    },
}


def list_agent_grants(
    ctx: AgentsContext,
    page_request: PageRequest = FIRST_PAGE,
    *,
    agent: str | None = None,
) -> Page[AgentGrant]:
    """Lists all grants of literal models, newest first. agent: None for all agents."""
    return ctx.store.lists.agent_grants(page_request, agent=agent)


def _list_grant_cells(
    listed: FinishedOperation[Page[AgentGrant]],
) -> Iterable[dict[str, object]]:
    return (_grant_cells(grant, listed.began_at) for grant in listed.result)


def _grant_cells(grant: AgentGrant, now: datetime) -> dict[str, object]:
    in_force = "in force" if now < grant.expires_at else "expired"
    return {
        "ID": grant.id,
        "AGENT": grant.agent,
        "SESSION": grant.session or "all",
        "MODEL": grant.target_name,
        "KIND": grant.kind.value,
        "BY": grant.granted_by,
        "UNTIL": grant.expires_at,
        "STATE": in_force if grant.revoked_at is None else "revoked",
    }


AGENTS: Final = OperationGroup(
    command="agent",
    words="Agents: their switch requests and grants.",
    operations=(
        Operation(
            use_case=switches.approve_switch,
            words="Switch a session to the requested model, from its next message on.",
            command="approve ID",
            endpoint="POST /switch-requests/{request}/approve",
            name="approve_switch_request",
            done=lambda approved: f"{approved.result.id} is approved",
            **_DECISION,
        ),
        Operation(
            use_case=switches.reject_switch,
            words="Leave a session on its model; its agent gets the reason.",
            command="reject ID",
            endpoint="POST /switch-requests/{request}/reject",
            name="reject_switch_request",
            done=lambda rejected: f"{rejected.result.id} is rejected",
            **_DECISION,
        ),
        Operation(
            use_case=list_agent_grants,
            role=Role.VIEWER,
            words="List the consents to agents' models with a name PROVIDER:MODEL.",
            command="grants",
            endpoint="GET /agent-grants",
            body="GrantQuery",
            body_text="Filters and pages a list of grants.",
            parameters={"agent": Parameter(meaning="Only this agent's.", metavar="ID")},
            listing=Listing(_list_grant_cells, empty="there are no grants"),
        ),
        Operation(
            use_case=agents.revoke_grant,
            role=Role.APPROVER,
            words="Revoke a grant: routers refuse the model within seconds.",
            command="revoke ID",
            endpoint="POST /agent-grants/{grant}/revoke",
            name="revoke_agent_grant",
            done=lambda revoked: (
                f"{revoked.result.id} is revoked: {revoked.result.target_name}"
            ),
        ),
    ),
)
