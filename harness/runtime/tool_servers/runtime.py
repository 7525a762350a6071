"""`ToolServers` runs the tools of the configured MCP servers for agents, as `SERVER.TOOL`; a
model calls them `SERVER__TOOL`, as providers allow no dot in a function's name, and as no
built-in tool is called.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import structlog
from mcp_types import Tool

from harness.domain.agents.agent import AgentTool
from harness.domain.agents.message import MessageToolCall
from harness.domain.agents.model_call import ToolCaller, ToolResult
from harness.domain.agents.turn import OfferedTool
from harness.domain.errors import ToolServerFailed
from harness.domain.settings import ToolServer
from harness.runtime.tool_servers.connection import ServerConnection
from harness.runtime.tool_servers.transports import open_transport, secret_values

log = structlog.get_logger("swapgate.agents")
MAX_NAME: Final = 64
MAX_DESCRIPTION_CHARS: Final = 4_000
# Shorter ones are no secrets: they would be found in every text.
MIN_SECRET: Final = 6


class ToolServers:
    """Implements ToolRuntime. Belongs to one event loop. Close it by `aclose`.

    environ: where the variables that servers are configured with are read.
    """

    def __init__(
        self,
        servers: Mapping[str, ToolServer],
        environ: Mapping[str, str],
        monotonic: Callable[[], float],
    ) -> None:
        self._servers, self._environ = servers, environ
        self._connections = {
            name: ServerConnection(name, partial(open_transport, server, environ), monotonic)
            for name, server in servers.items()
        }
        self._offered: dict[str, tuple[str, str]] = {}  # server and tool, by function's name

    def has(self, tool: AgentTool) -> bool:
        server, dot, name = tool.name.partition(".")
        return not tool.runs_at_client and server in self._servers and bool(name) == bool(dot)

    def runs(self, name: str) -> bool:
        return name in self._offered

    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]:
        """Lists the wanted tools, without those of a server that is away. All servers are asked
        at the same time.
        """
        wanted = {tool.name for tool in tools if self.has(tool)}
        servers = sorted({name.partition(".")[0] for name in wanted})
        lists = await asyncio.gather(*(self._announced(server) for server in servers))
        return [
            offered
            for server, announced in zip(servers, lists, strict=True)
            for tool in announced
            if wanted & {server, f"{server}.{tool.name}"}
            if (offered := self._offer(server, tool)) is not None
        ]

    async def run(
        self,
        call: MessageToolCall,
        caller: ToolCaller,  # noqa: ARG002 - a server is not told who asks
        timeout_s: float,
    ) -> ToolResult:
        server, tool = self._offered[call.name]
        arguments = json.loads(call.arguments or "{}")
        try:
            text = await self._connections[server].call(tool, arguments, timeout_s)
            return ToolResult(call.id, self._without_secrets(server, text))
        except ToolServerFailed as error:
            reason = self._without_secrets(server, str(error))
            return ToolResult(call.id, reason, is_error=True)

    async def aclose(self) -> None:
        await asyncio.gather(*(one.aclose() for one in self._connections.values()))

    async def _announced(self, server: str) -> Sequence[Tool]:
        try:
            return tuple((await self._connections[server].tools()).values())
        except ToolServerFailed as error:
            reason = self._without_secrets(server, str(error))
            log.warning("tools_left_out", server=server, reason=reason)
            return ()

    def _offer(self, server: str, tool: Tool) -> OfferedTool | None:
        """None where a model cannot call it by a name of its own."""
        name = f"{server}__{tool.name}"
        whose = self._offered.setdefault(name, (server, tool.name))
        if len(name) > MAX_NAME or whose != (server, tool.name):
            log.warning("tool_left_out", server=server, tool=tool.name, reason="its name")
            return None
        announced = json.dumps([tool.description, tool.input_schema], ensure_ascii=False)
        if announced != self._without_secrets(server, announced):
            log.warning("tool_left_out", server=server, reason="it tells what is secret")
            return None
        description = (tool.description or "")[:MAX_DESCRIPTION_CHARS]
        return OfferedTool(name, description, tool.input_schema, runs_at_client=False)

    def _without_secrets(self, server: str, text: str) -> str:
        """A server may repeat what it was given, and its text goes to a model."""
        for value in secret_values(self._servers[server], self._environ):
            if len(value) >= MIN_SECRET:
                text = text.replace(value, "[hidden]")
        return text
