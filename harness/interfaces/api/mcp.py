"""The MCP server, on stdin and stdout or over streamable HTTP with the callers' keys.

A tool's answer is JSON. A Swapproof error becomes the tool's answer; for any other error the
answer has only an id that is also in the log. The management tools read measurements and
propose swaps; no tool approves or promotes.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import anyio.to_thread
import structlog
import uvicorn
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.server.transport_security import TransportSecuritySettings
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
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from harness import __version__
from harness.agents.agents import AgentsClient
from harness.agents.built_in_tools import BuiltInTool
from harness.agents.models import list_available
from harness.agents.records import Sessions
from harness.agents.turn import ToolCaller
from harness.app.agents import TurnService, open_agents
from harness.app.installation import Installation
from harness.canary import callers
from harness.frame.calm_server import CalmServer
from harness.frame.errors import (
    InputError,
    NotAllowed,
    NotFound,
    SwapproofError,
)
from harness.frame.imports import freeze_application
from harness.frame.pagination import MOST_LISTED, PageRequest
from harness.frame.people.access import (
    OPERATOR,
    Actor,
    Role,
    listens_on_loopback,
)
from harness.frame.plain_data import write_json
from harness.frame.signing.keyring import KeyPurpose
from harness.interfaces.api import canary, proposals
from harness.interfaces.api.agents.access import (
    AgentsAccess,
    FailedKeys,
    answer_error,
    answer_unforeseen,
    authenticate_key,
)
from harness.interfaces.api.frame.access import SERVER
from harness.interfaces.api.frame.endpoint import ApiCaller, Body, Name
from harness.interfaces.api.frame.error_status import (
    ErrorGuard,
    describe_places,
    json_answer,
)
from harness.interfaces.api.frame.request_body import check_json
from harness.operations import queries, route_queries
from harness.proposals.candidates import leaderboard
from harness.providers.registry import credentials
from harness.routing.agent import SWITCH_MODEL

Answer = Callable[[ApiCaller, Any], object]  # takes the caller and the arguments
RequestContext = ServerRequestContext[Any, Any]
log = structlog.get_logger("swapproof.mcp")


@dataclass(frozen=True)
class ManagementTool:
    name: str
    arguments: type[Body]
    role: Role
    answer: Answer

    def describe(self) -> Tool:
        return Tool(
            name=self.name,
            description=" ".join((self.answer.__doc__ or "").split()),
            input_schema=self.arguments.model_json_schema(),
            annotations=ToolAnnotations(
                read_only_hint=self.role == Role.VIEWER,
                open_world_hint=False,
            ),
        )


MANAGEMENT_TOOLS: Final[dict[str, ManagementTool]] = {}


def management_tool(
    arguments: type[Body], role: Role = Role.VIEWER
) -> Callable[[Answer], Answer]:
    """Registers a tool under the function's name. Models read the function's docstring."""

    def register(answer: Answer) -> Answer:
        name = answer.__name__
        MANAGEMENT_TOOLS[name] = ManagementTool(name, arguments, role, answer)
        return answer

    return register


class NoArguments(Body): ...


class CompareArguments(Body):
    """The comparison to show. proposal: a proposal's id. route: instead of `proposal`; shows
    the route's newest proposal.
    """

    proposal: Name | None = None
    route: Name | None = None


class RouteArguments(Body):
    route: Name


class CanaryArguments(Body):
    """The canaries to show. route: shows this route's newest canary, live or ended. Without it,
    the tool shows all live canaries.
    """

    route: Name | None = None


class CallerArguments(Body):
    """The caller to look up. user: the id that the client sends, or a client key's name. route:
    only this route's newest canary, live or ended.
    """

    user: Name
    route: Name | None = None


class CredentialsArguments(Body):
    """The only action is `list`: people set keys on the page Providers, by CLI or by API."""

    action: Literal["list"] = "list"


@management_tool(NoArguments)
def list_routes(caller: ApiCaller, _: NoArguments) -> object:
    """Lists the routes, each with its current model, its canary, its open proposal and its last
    verdict.
    """
    return [
        {
            "route": status.route.name,
            "description": status.route.settings.description,
            "incumbent": status.incumbent.name,
            "serves_now": status.serves,
            "state": status.state_text,
            "reason": status.reason,
            "canary": status.candidate.name if status.candidate else None,
            "canary_state": status.rollout.state.value if status.rollout else None,
            "open_proposal": status.open_proposal.id if status.open_proposal else None,
            "phase": status.open_proposal.phase.value if status.open_proposal else None,
            # The last comparison's verdict, and whether it is still valid proof.
            "verdict": status.last_verdict.words if status.last_verdict else None,
            "proof": status.standing.text if status.standing else None,
            "waits_for_a_person": status.needs_decision,
        }
        for status in route_queries.load_page(caller.ctx, PageRequest(MOST_LISTED))
    ]


@management_tool(CompareArguments)
def compare(caller: ApiCaller, arguments: CompareArguments) -> object:
    """Compares a proposal's two models on the route's suites. Give the id of a proposal, or a
    route for its newest proposal. Returns the verdict with its evidence, whether the verdict is
    still valid proof, and the scores, costs and cost ratio of both models.
    """
    if (arguments.proposal is None) == (arguments.route is None):
        raise InputError("give one of `proposal` and `route`")
    proposal = arguments.proposal
    if proposal is None:
        newest = queries.list_proposals(caller.ctx, PageRequest(1), route=arguments.route)
        if not newest:
            raise NotFound(f"route {arguments.route!r} has no proposal yet: propose a swap")
        proposal = newest[0].id
    return proposals.compare_proposal(caller, proposal)


@management_tool(CanaryArguments)
def canary_status(caller: ApiCaller, arguments: CanaryArguments) -> object:
    """Shows a canary's progress: its share of traffic, its evidence so far, and the condition
    for its next step.
    """
    if arguments.route is None:
        return canary.list_canaries(caller)
    return canary.get_canary(caller, arguments.route)


@management_tool(CallerArguments)
def canary_who(caller: ApiCaller, arguments: CallerArguments) -> object:
    """Tells which model a user or a client key gets from live canaries, since when, and why.
    With a route, also of its ended canary. Reads no contents.
    """
    return json_answer(callers.find_arm(caller.ctx, arguments.user, route=arguments.route))


@management_tool(RouteArguments)
def list_candidates(caller: ApiCaller, arguments: RouteArguments) -> object:
    """Lists the models measured on a route's suites, best first, with score, difference to the
    incumbent, price and time; and the models that the route's schedule measures next.
    """
    return leaderboard.load_leaderboard(caller.ctx, arguments.route)


@management_tool(proposals.ProposalBody, Role.PROPOSER)
def preview_swap(caller: ApiCaller, body: proposals.ProposalBody) -> object:
    """Previews a proposal: its measurements, its cost, and the approvals that it needs. Stores
    nothing. `cost_text` compares the candidate's cost with the incumbent's, and tells whether
    that cost would end the canary.
    """
    return proposals.preview_proposal(caller, body)


@management_tool(proposals.ProposalBody, Role.PROPOSER)
def propose_swap(caller: ApiCaller, body: Any) -> object:
    """Proposes another model for a route. Swapproof measures both models, and starts a canary
    if the verdict is `passed`. If the policy requires an approval, a person approves, never an
    agent. Swapproof refuses a candidate whose cost would end its canary, unless an approver
    proposes it and accepts the cost.
    """
    return proposals.create_proposal(caller, body)


@management_tool(CredentialsArguments)
def manage_credentials(caller: ApiCaller, _: CredentialsArguments) -> object:
    """Lists the providers, and whether each has a key. It cannot show or change a key."""
    return json_answer(credentials.list_credentials(caller.ctx))


INSTRUCTIONS: Final = (
    "Swapproof changes the model behind a route only with proof. You may read routes, "
    "comparisons and canaries, and propose a swap; people approve. On behalf of an agent's "
    "session, you may request another model, which a person approves, and run sub-tasks in "
    "parallel."
)
SESSION: Final = "session"
_SESSION_FIELD: Final = {
    "type": "string",
    "description": "Id (se_…) of the agent's session on whose behalf you call this tool",
}


class McpServer:
    def __init__(
        self,
        installation: Installation,
        client: Callable[[RequestContext], AgentsClient],
        session_tools: Sequence[BuiltInTool],
        session: str = "",
    ) -> None:
        """Creates a server.

        Args:
            client: authenticates the caller of each request; raises NotAllowed.
            session_tools: tools that act on behalf of a session.
            session: id of the server's only session; empty if each call names its session.
        """
        self._ctx = installation.context
        self._secret = installation.secret
        self._client = client
        self._session = session
        self._session_tools = {tool.offered.name: tool for tool in session_tools}

    def build(self) -> Server[Any]:
        return Server(
            "swapproof",
            title="Swapproof",
            version=__version__,
            instructions=INSTRUCTIONS,
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
        )

    async def list_tools(
        self, context: RequestContext, _: PaginatedRequestParams | None
    ) -> ListToolsResult:
        """Lists the tools that the caller's key may call."""
        try:
            client = await anyio.to_thread.run_sync(self._client, context)
        except SwapproofError:
            return ListToolsResult(tools=[])
        actor = find_management_actor(client)
        tools = [
            tool.describe()
            for tool in MANAGEMENT_TOOLS.values()
            if actor is not None and actor.role >= tool.role
        ]
        if client.actor is None or client.actor.role >= Role.PROPOSER:
            tools += [
                _describe_session_tool(tool, has_session=bool(self._session))
                for tool in self._session_tools.values()
            ]
        return ListToolsResult(tools=tools)

    async def call_tool(
        self, context: RequestContext, params: CallToolRequestParams
    ) -> CallToolResult:
        try:
            text = await self._answer(context, params)
            is_error = False
        except SwapproofError as error:
            text = str(error)
            is_error = True
        except Exception:
            name = self._ctx.chance.token("e_")
            log.exception("mcp_failed", id=name, tool=params.name[:64])
            text = f"This is our fault, not yours. The MCP server's log has it as {name}."
            is_error = True
        return CallToolResult(content=[TextContent(type="text", text=text)], is_error=is_error)

    async def _answer(self, context: RequestContext, params: CallToolRequestParams) -> str:
        name = params.name
        arguments = params.arguments or {}
        check_json(json.dumps(arguments).encode())
        client = await anyio.to_thread.run_sync(self._client, context)
        if name in self._session_tools:
            return await self._call_session_tool(name, arguments, client)
        if name in MANAGEMENT_TOOLS:
            tool = MANAGEMENT_TOOLS[name]
            return await anyio.to_thread.run_sync(
                self._call_management_tool, tool, arguments, client
            )
        names = ", ".join((*MANAGEMENT_TOOLS, *self._session_tools))
        raise NotFound(f"there is no tool {name[:64]!r}; there are: {names}")

    def _call_management_tool(
        self,
        tool: ManagementTool,
        arguments: Mapping[str, Any],
        client: AgentsClient,
    ) -> str:
        actor = find_management_actor(client)
        if actor is None:
            raise NotAllowed(f"{tool.name} needs a management key; you sent a client key")
        actor.require(tool.role)
        try:
            checked_arguments = tool.arguments.model_validate(arguments)
        except ValidationError as error:
            raise InputError(describe_places(tool.arguments, error, arguments)) from None
        caller = ApiCaller(self._ctx, actor, self._secret)
        return write_json(tool.answer(caller, checked_arguments))

    async def _call_session_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        client: AgentsClient,
    ) -> str:
        session = arguments.get(SESSION) or self._session
        if self._session and session != self._session:
            raise InputError(f"{SESSION}: this server acts only on behalf of {self._session}")
        if not session and name == SWITCH_MODEL and arguments.get("action") == "list":
            words = str(arguments.get("model") or "")
            models = await anyio.to_thread.run_sync(
                list_available, self._ctx, client.routes, words
            )
            return models.model_dump_json(by_alias=True, exclude_unset=True)
        if not isinstance(session, str) or not session:
            raise InputError(
                f"{SESSION}: give the id (se_…) of the session on whose behalf you call this"
            )

        caller = await anyio.to_thread.run_sync(self._find_tool_caller, client, session)
        tool_arguments = {
            field: value for field, value in arguments.items() if field != SESSION
        }
        answer = await self._session_tools[name].answer(tool_arguments, caller)
        return write_json(answer.content)

    def _find_tool_caller(self, client: AgentsClient, session: str) -> ToolCaller:
        client.require_write()
        try:
            with self._ctx.store.read() as tx:
                client.find_agent(tx, Sessions(tx).get(session).agent)
        except NotFound:
            raise NotFound(f"there is no session {session[:80]!r}") from None
        return ToolCaller(session, self._ctx.agents.limits)


def find_management_actor(client: AgentsClient) -> Actor | None:
    """Finds the caller of management tools: a viewer without a key, None for a client key."""
    if client.actor is None or not client.is_open:
        return client.actor
    return replace(client.actor, role=Role.VIEWER)


def _describe_session_tool(tool: BuiltInTool, *, has_session: bool) -> Tool:
    """Describes a tool.

    Args:
        has_session: the server acts only for one session, so a call does not name it.
    """
    offered = tool.offered
    schema = dict[str, Any](tool.offered.parameters)
    if not has_session:
        schema["properties"] = {
            **schema.get("properties", {}),
            SESSION: _SESSION_FIELD,
        }
        if offered.name != SWITCH_MODEL:  # its action `list` needs no session
            schema["required"] = [*schema.get("required", ()), SESSION]
    return Tool(
        name=offered.name,
        description=offered.description,
        input_schema=schema,
    )


KEY_VARIABLE: Final = "SWAPPROOF_MANAGEMENT_KEY"
PATH: Final = "/mcp"


def authenticate_process(
    installation: Installation, _: RequestContext | None = None
) -> AgentsClient:
    """Authenticates the key in this process's environment, again for each request. Without a
    key, the caller is this machine's operator as a proposer. Raises NotAllowed.
    """
    if key := os.environ.get(KEY_VARIABLE, ""):
        return authenticate_key(installation, key)
    return AgentsClient.of_person(replace(OPERATOR, role=Role.PROPOSER))


def find_request_client(context: RequestContext) -> AgentsClient:
    """Returns the client that `AgentsAccess` admitted."""
    assert isinstance(context.request, Request)  # noqa: S101 - the transport is HTTP
    client: AgentsClient = context.request.scope["state"]["client"]
    return client


def build_http_app(
    installation: Installation,
    server: Server[Any],
    host: str,
) -> ASGIApp:
    """Builds the stateless ASGI app, which authenticates each request by its own key."""
    is_open = installation.settings.agents.open_on_loopback and listens_on_loopback(host)
    app: ASGIApp = server.streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        # `AgentsAccess` checks the Host and Origin of requests without a key.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        custom_starlette_routes=[Route("/healthz", lambda _: JSONResponse({"status": "ok"}))],
    )
    failed = FailedKeys(installation)
    app = AgentsAccess(
        app,
        installation=installation,
        is_open=is_open,
        failed=failed,
    )
    chance = installation.context.chance
    return ErrorGuard(
        app,
        chance=chance,
        answer=answer_error,
        unforeseen=answer_unforeseen,
    )


def run_mcp(
    config: Path | None,
    address: tuple[str, int] | None,
    session: str,
) -> None:
    """Blocks until SIGTERM, Ctrl-C, or the end of stdin.

    Args:
        address: host and port for HTTP; None for stdin and stdout.
        session: id of the session on whose behalf clients call tools.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    installation = open_agents(config, signs_as=KeyPurpose.CONTROL)
    try:
        if address is None:
            # Checks the key now: later, a client with a wrong key would only see no tools.
            authenticate_process(installation)
        asyncio.run(_serve(installation, address, session))
    finally:
        installation.close()


async def _serve(
    installation: Installation,
    address: tuple[str, int] | None,
    session: str,
) -> None:
    turns = TurnService(installation, place=f"mcp:{os.getpid()}")
    client = find_request_client if address else partial(authenticate_process, installation)
    server = McpServer(installation, client, turns.session_tools, session).build()
    async with turns.running():
        if address is None:
            async with stdio_server() as (read_stream, write_stream):
                await server.run(
                    read_stream, write_stream, server.create_initialization_options()
                )
            return
        host, port = address
        app = build_http_app(installation, server, host)
        freeze_application()
        await CalmServer(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                **SERVER,
            )
        ).serve()
