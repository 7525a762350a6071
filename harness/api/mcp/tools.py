"""The tools of the MCP server that need a management key: they read what is measured, and
propose. None of them approves, promotes or changes anything by itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from harness.api import canary, credentials, proposals
from harness.api.frame.endpoint import ApiCaller
from harness.api.frame.request_fields import Body, Name, ProposalBody
from harness.control.operations import queries
from harness.control.routing.route_status import RouteStatus
from harness.domain.agents.agent import MANAGE_CREDENTIALS
from harness.domain.errors import InputError, NotFound
from harness.domain.operations.access import Role
from harness.domain.pagination import MOST_LISTED, PageRequest


@dataclass(frozen=True)
class ManagementTool:
    """A tool over the management API's own handlers."""

    name: str
    description: str
    arguments: type[Body]
    answer: Callable[[ApiCaller, Any], object]  # of the caller and the arguments
    role: Role = Role.VIEWER


class NoArguments(Body): ...


class CompareArguments(Body):
    """Names a proposal to compare. proposal: its id. route: instead of it, for the route's
    newest proposal.
    """

    proposal: Name | None = None
    route: Name | None = None


class CanaryArguments(Body):
    """Names the canaries to show. route: whose newest canary, live or not; without it, all live
    ones.
    """

    route: Name | None = None


class CredentialsArguments(Body):
    """Holds what a tool may do with credentials: list them. Keys are set by people, on the
    Settings page, by CLI or API.
    """

    action: Literal["list"] = "list"


def _list_routes(who: ApiCaller, _: NoArguments) -> object:
    page = PageRequest(MOST_LISTED)
    return [_overview(status) for status in queries.list_route_status(who.ctx, page)]


def _overview(status: RouteStatus) -> Mapping[str, object]:
    """A route at a glance. verdict: of its last comparison; proof: whether that still holds."""
    canary, proposal, verdict = status.rollout, status.open_proposal, status.last_verdict
    return {
        "route": status.route.name,
        "description": status.route.settings.description,
        "incumbent": status.incumbent.name,
        "state": status.state_text,
        "reason": status.reason,
        "canary": status.candidate.name if status.candidate else None,
        "canary_state": canary.state.value if canary else None,
        "open_proposal": proposal.id if proposal else None,
        "phase": proposal.phase.value if proposal else None,
        "verdict": verdict.words if verdict else None,
        "proof": status.standing.text if status.standing else None,
        "waits_for_a_person": status.needs_decision,
    }


def _compare(who: ApiCaller, given: CompareArguments) -> object:
    if (given.proposal is None) == (given.route is None):
        raise InputError("give one of `proposal` and `route`")
    proposal = given.proposal
    if proposal is None:
        newest = queries.list_proposals(who.ctx, PageRequest(1), route=given.route)
        if not newest:
            raise NotFound(f"route {given.route!r} has had no proposal yet: propose a swap")
        proposal = newest[0].id
    return proposals.compare_proposal(who, proposal)


def _canary_status(who: ApiCaller, given: CanaryArguments) -> object:
    if given.route is None:
        return canary.list_canaries(who)
    return canary.get_canary(who, given.route)


def _list_credentials(who: ApiCaller, _: CredentialsArguments) -> object:
    return credentials.list_credentials(who)


MANAGEMENT_TOOLS: Final = (
    ManagementTool(
        "list_routes",
        "The routes, each with the model that answers it, its canary, its open proposal and "
        "its last verdict.",
        NoArguments,
        _list_routes,
    ),
    ManagementTool(
        "compare",
        "A comparison of two models on a route's suites: the verdict with its evidence, "
        "scores, costs, and whether it is proof still. By proposal, or the newest of a route.",
        CompareArguments,
        _compare,
    ),
    ManagementTool(
        "canary_status",
        "How a route's canary goes: its share, its evidence so far, what it waits for.",
        CanaryArguments,
        _canary_status,
    ),
    ManagementTool(
        "propose_swap",
        "Propose another model for a route. Both are measured, and a canary follows; where the "
        "policy asks for a person, a person approves it, never an agent.",
        ProposalBody,
        proposals.create_proposal,
        Role.PROPOSER,
    ),
    ManagementTool(
        MANAGE_CREDENTIALS,
        "Which providers have a key. Never shows one; people set them.",
        CredentialsArguments,
        _list_credentials,
    ),
)
