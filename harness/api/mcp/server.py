"""Builds the MCP server: which tools a caller is shown, and a call's answer as JSON. Errors of
ours are the tool's answer, in their own words; an unforeseen one is an id that the log has.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

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
from harness.api.frame.endpoint import ApiCaller
from harness.api.frame.error_status import describe_places
from harness.api.frame.json_answers import JsonAnswer
from harness.api.frame.request_body import check_json
from harness.api.mcp.tools import MANAGEMENT_TOOLS, ManagementTool
from harness.app.installation import Installation
from harness.control.agents.built_in_tools import BuiltInTool
from harness.control.agents.client import AgentsClient
from harness.domain.agents.model_call import ToolCaller
from harness.domain.errors import InputError, NotAllowed, NotFound, SwapgateError
from harness.domain.operations.access import Actor, Role

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
    """Answers the calls of MCP clients."""

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
                return await self._call_in_session(context, params.name, arguments, client)
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
            raise InputError(describe_places(error.errors())) from None
        caller = ApiCaller(self._ctx, actor, self._secret)
        return _result(bytes(JsonAnswer(tool.answer(caller, given)).body).decode())

    async def _call_in_session(
        self,
        context: ServerRequestContext[Any, Any],
        name: str,
        arguments: Mapping[str, Any],
        client: AgentsClient,
    ) -> CallToolResult:
        session = arguments.get(SESSION) or self._session
        if self._session and session != self._session:
            raise InputError(
                f"{SESSION}: this server acts in the name of {self._session} alone"
            )
        if not isinstance(session, str) or not session:
            raise InputError(f"{SESSION}: name the session in whose name this is asked, se_…")

        async def report(ended: int, total: int) -> None:
            # A client that is gone, or is told nothing, gets its sub-tasks' results no sooner.
            with suppress(Exception):
                await context.session.report_progress(ended, total)

        caller = await anyio.to_thread.run_sync(self._caller, client, session)
        given = {field: value for field, value in arguments.items() if field != SESSION}
        answer = await self._in_session[name].answer(given, replace(caller, report=report))
        return _result(bytes(JsonAnswer(answer.content).body).decode())

    def _caller(self, client: AgentsClient, session: str) -> ToolCaller:
        """Raises NotFound for a session that the client does not see, NotAllowed."""
        client.require_write()
        try:
            with self._ctx.store.read() as tx:
                agent = client.find_agent(tx, tx.sessions.get(session).agent)
        except NotFound:
            raise NotFound(f"there is no session {session[:80]!r}") from None
        return ToolCaller(agent.id, session, "", self._ctx.agents.limits)


def management_actor(client: AgentsClient) -> Actor | None:
    """Finds the actor who calls the management tools; None for a data key. Whoever asks without
    a key may look.
    """
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
    schema = dict(tool.offered.parameters)
    if not bound:
        properties = schema.get("properties")
        known = dict(properties) if isinstance(properties, Mapping) else {}
        needed = schema.get("required")
        schema["properties"] = {**known, SESSION: _SESSION_FIELD}
        schema["required"] = [*(needed if isinstance(needed, list) else ()), SESSION]
    return Tool(
        name=tool.offered.name, description=tool.offered.description, input_schema=schema
    )


def _result(text: str, *, is_error: bool = False) -> CallToolResult:
    return CallToolResult(content=[TextContent(type="text", text=text)], is_error=is_error)
