"""Builds the MCP server: which tools a caller is shown, and a call's answer as JSON. Errors of
ours are the tool's answer, in their own words; an unforeseen one is an id that the log has. The
tools that need a management key read what is measured, and propose; none approves or promotes.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import anyio.to_thread
import structlog
from mcp.server import Server, ServerRequestContext
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import ValidationError

from harness import __version__
from harness.api import canary, proposals
from harness.api.frame.endpoint import ApiCaller, Body, Name
from harness.api.frame.error_status import JsonAnswer, describe_places, json_answer
from harness.api.frame.request_body import check_json
from harness.app.installation import Installation
from harness.control.agents.built_in_tools import BuiltInTool
from harness.control.agents.model_matching import list_available
from harness.control.agents.sessions import AgentsClient
from harness.control.operations import queries
from harness.control.proposals import leaderboard
from harness.control.providers import credentials
from harness.control.routing import queries as route_queries
from harness.control.routing.route_status import RouteStatus
from harness.domain.agents.agent import MANAGE_CREDENTIALS, SWITCH_MODEL
from harness.domain.agents.model_call import ToolCaller
from harness.domain.errors import InputError, NotAllowed, NotFound, SwapgateError
from harness.domain.operations.access import Actor, Role
from harness.domain.pagination import MOST_LISTED, PageRequest


@dataclass(frozen=True)
class ManagementTool:
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


class RouteArguments(Body):
    """Names a route."""

    route: Name


class CanaryArguments(Body):
    """Names the canaries to show. route: whose newest canary, live or not; without it, all live
    ones.
    """

    route: Name | None = None


class CredentialsArguments(Body):
    """Holds what a tool may do with credentials: list them. Keys are set by people, on the
    page Providers, by CLI or API.
    """

    action: Literal["list"] = "list"


def _list_routes(who: ApiCaller, _: NoArguments) -> object:
    page = PageRequest(MOST_LISTED)
    return [_overview(status) for status in route_queries.load_page(who.ctx, page)]


def _overview(status: RouteStatus) -> Mapping[str, object]:
    """A route at a glance. verdict: of its last comparison; proof: whether that still holds."""
    canary, proposal, verdict = status.rollout, status.open_proposal, status.last_verdict
    return {
        "route": status.route.name,
        "description": status.route.settings.description,
        "incumbent": status.incumbent.name,
        "serves_now": status.serves,
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


def _list_candidates(who: ApiCaller, given: RouteArguments) -> object:
    return leaderboard.load_leaderboard(who.ctx, given.route)


def _list_credentials(who: ApiCaller, _: CredentialsArguments) -> object:
    return json_answer(credentials.list_credentials(who.ctx))


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
        "scores, costs and their ratio, and whether it is proof still. By proposal, or the "
        "newest of a route.",
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
        "list_candidates",
        "The models that a route's suites measured, best first, with score, difference, price "
        "and time, and those that its schedule measures next.",
        RouteArguments,
        _list_candidates,
    ),
    ManagementTool(
        "preview_swap",
        "What a proposal would measure and cost, and what would need a person; stores nothing. "
        "`cost_text` says how many times the incumbent's cost the candidate costs, or that its "
        "price is unknown, and whether its canary ends for that.",
        proposals.ProposalBody,
        proposals.preview_proposal,
        Role.PROPOSER,
    ),
    ManagementTool(
        "propose_swap",
        "Propose another model for a route. Both are measured, and a canary follows; where the "
        "policy asks for a person, a person approves it, never an agent. Refused where the "
        "candidate's cost would end its canary: an approver may propose it and accept that.",
        proposals.ProposalBody,
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


log = structlog.get_logger("swapgate.mcp")
INSTRUCTIONS: Final = (
    "Swapgate changes the model behind a route only with proof. You may look at routes, "
    "comparisons and canaries, and propose a swap; people approve. In the name of a session "
    "of an agent you may ask for another model, which a person approves, and have sub-tasks "
    "done at the same time."
)
SESSION: Final = "session"
_SESSION_FIELD: Final = {
    "type": "string",
    "description": "Id of the agent's session in whose name this is asked, se_…",
}


class McpServer:
    def __init__(
        self,
        installation: Installation,
        client: Callable[[ServerRequestContext[Any, Any]], AgentsClient],
        session_tools: Sequence[BuiltInTool],
        session: str = "",
    ) -> None:
        """client: who asks, in each request anew; raises NotAllowed. session_tools: that are
        called in the name of a session. session: of whoever started this server; empty where
        each call names it.
        """
        self._ctx, self._secret = installation.context, installation.secret
        self._client, self._session = client, session
        self._management = {tool.name: tool for tool in MANAGEMENT_TOOLS}
        self._in_session = {tool.offered.name: tool for tool in session_tools}

    def build(self) -> Server[Any]:
        return Server(
            "swapgate",
            title="Swapgate",
            version=__version__,
            instructions=INSTRUCTIONS,
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
        )

    async def list_tools(
        self,
        context: ServerRequestContext[Any, Any],
        _: PaginatedRequestParams | None,
    ) -> ListToolsResult:
        """Lists the tools that the caller's key may use."""
        try:
            client = await anyio.to_thread.run_sync(self._client, context)
        except SwapgateError:
            return ListToolsResult(tools=[])
        actor = management_actor(client)
        tools = [
            _describe_management(tool)
            for tool in MANAGEMENT_TOOLS
            if actor is not None and actor.role >= tool.role
        ]
        if client.actor is None or client.actor.role >= Role.PROPOSER:
            tools += [
                _describe_in_session(tool, bound=bool(self._session))
                for tool in self._in_session.values()
            ]
        return ListToolsResult(tools=tools)

    async def call_tool(
        self, context: ServerRequestContext[Any, Any], params: CallToolRequestParams
    ) -> CallToolResult:
        arguments = params.arguments or {}
        try:
            check_json(json.dumps(arguments).encode())
            client = await anyio.to_thread.run_sync(self._client, context)
            if params.name in self._in_session:
                return await self._call_in_session(params.name, arguments, client)
            tool = self._management.get(params.name)
            if tool is None:
                names = ", ".join((*self._management, *self._in_session))
                text = f"there is no tool {params.name[:64]!r}; there are: {names}"
                return _result(text, is_error=True)
            return await anyio.to_thread.run_sync(self._manage, tool, arguments, client)
        except SwapgateError as error:
            return _result(str(error), is_error=True)
        except Exception:
            name = self._ctx.chance.token("e_")
            log.exception("mcp_failed", id=name, tool=params.name[:64])
            text = f"This is our fault, not yours. The MCP server's log has it as {name}."
            return _result(text, is_error=True)

    def _manage(
        self, tool: ManagementTool, arguments: Mapping[str, Any], client: AgentsClient
    ) -> CallToolResult:
        actor = management_actor(client)
        if actor is None:
            raise NotAllowed(f"{tool.name} needs a management key, and this is a data key")
        actor.require(tool.role)
        try:
            given = tool.arguments.model_validate(arguments)
        except ValidationError as error:
            raise InputError(describe_places(tool.arguments, error)) from None
        caller = ApiCaller(self._ctx, actor, self._secret)
        return _result(bytes(JsonAnswer(tool.answer(caller, given)).body).decode())

    async def _call_in_session(
        self,
        name: str,
        arguments: Mapping[str, Any],
        client: AgentsClient,
    ) -> CallToolResult:
        session = arguments.get(SESSION) or self._session
        if self._session and session != self._session:
            raise InputError(
                f"{SESSION}: this server acts in the name of {self._session} alone"
            )
        if not session and name == SWITCH_MODEL and arguments.get("action") == "list":
            words = str(arguments.get("model") or "")
            listed = anyio.to_thread.run_sync(list_available, self._ctx, client.routes, words)
            return _result((await listed).model_dump_json(by_alias=True, exclude_unset=True))
        if not isinstance(session, str) or not session:
            raise InputError(f"{SESSION}: name the session in whose name this is asked, se_…")

        caller = await anyio.to_thread.run_sync(self._caller, client, session)
        given = {field: value for field, value in arguments.items() if field != SESSION}
        answer = await self._in_session[name].answer(given, caller)
        return _result(bytes(JsonAnswer(answer.content).body).decode())

    def _caller(self, client: AgentsClient, session: str) -> ToolCaller:
        """Raises NotFound for a session that the client does not see, NotAllowed."""
        client.require_write()
        try:
            with self._ctx.store.read() as tx:
                client.find_agent(tx, tx.sessions.get(session).agent)
        except NotFound:
            raise NotFound(f"there is no session {session[:80]!r}") from None
        return ToolCaller(session, self._ctx.agents.limits)


def management_actor(client: AgentsClient) -> Actor | None:
    """Finds who calls management tools; None for a data key. Without a key one may look."""
    if client.actor is None or not client.is_open:
        return client.actor
    return replace(client.actor, role=Role.VIEWER)


def _describe_management(tool: ManagementTool) -> Tool:
    return Tool(
        name=tool.name,
        description=tool.description,
        input_schema=tool.arguments.model_json_schema(),
        annotations=ToolAnnotations(
            read_only_hint=tool.role == Role.VIEWER, open_world_hint=False
        ),
    )


def _describe_in_session(tool: BuiltInTool, *, bound: bool) -> Tool:
    """bound: the session is known, and need not be named."""
    offered, schema = tool.offered, dict[str, Any](tool.offered.parameters)
    if not bound:
        schema["properties"] = {**schema.get("properties", {}), SESSION: _SESSION_FIELD}
        if offered.name != SWITCH_MODEL:  # its list needs none
            schema["required"] = [*schema.get("required", ()), SESSION]
    return Tool(name=offered.name, description=offered.description, input_schema=schema)


def _result(text: str, *, is_error: bool = False) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=is_error)
