"""`TurnService` joins what the agents process runs turns with: models behind the router, tools
of the server and the turn runner; and keeps them for as long as the process serves.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from harness.app.agents.model_calls import RouterModelCalls
from harness.app.installation import Installation, open_installation
from harness.control.agents.built_in_tools import build_credentials_tool, build_switch_tool
from harness.control.agents.spawn import Spawner
from harness.control.agents.turn_runner import TurnRunner
from harness.domain.agents.agent import AgentTool
from harness.domain.agents.message import MessageToolCall
from harness.domain.agents.model_call import ToolCaller, ToolResult, ToolRuntime
from harness.domain.agents.turn import OfferedTool
from harness.domain.agents.turn_lease import TurnOwner
from harness.domain.settings import http_url
from harness.runtime import telemetry


class ServerTools:
    """The tools that run on the server, as one runtime; of two that offer a name, the first has
    it.
    """

    def __init__(self, runtimes: Sequence[ToolRuntime]) -> None:
        self._runtimes = list(runtimes)

    def add(self, runtime: ToolRuntime) -> None:
        self._runtimes.append(runtime)

    def has(self, tool: AgentTool) -> bool:
        return any(runtime.has(tool) for runtime in self._runtimes)

    def runs(self, name: str) -> bool:
        return any(runtime.runs(name) for runtime in self._runtimes)

    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]:
        offered: dict[str, OfferedTool] = {}
        for runtime in self._runtimes:
            for tool in await runtime.list_tools(tools):
                offered.setdefault(tool.name, tool)
        return tuple(offered.values())

    async def run(
        self, call: MessageToolCall, caller: ToolCaller, timeout_s: float
    ) -> ToolResult:
        for runtime in self._runtimes:
            if runtime.runs(call.name):
                return await runtime.run(call, caller, timeout_s)
        return ToolResult(call.id, f"no server runs the tool {call.name!r} now", is_error=True)


def open_agents(config: Path | None) -> Installation:
    telemetry.configure()
    return open_installation(config)


class TurnService:
    """Builds and holds what turns need: the tools, the calls of models and the runner. One
    event loop has one.
    """

    def __init__(self, installation: Installation, *, place: str = "") -> None:
        """place: what no other live process of this machine has; empty for the port."""
        settings, ctx = installation.settings, installation.context
        self.drain_s = settings.router.drain_s
        self.tools = ServerTools([build_switch_tool(ctx), build_credentials_tool(ctx)])
        router_url = settings.agents.router_url or http_url(
            settings.router.host, settings.router.port
        )
        self._calls = RouterModelCalls(router_url, installation.secret, installation.clock)
        # Of two processes with one name, only the later can be alive: it has the port.
        name = f"{socket.gethostname()}:{place or settings.agents.port}"
        owner = TurnOwner(name, ctx.chance.token(""))
        standing = installation.standing_switches
        self.turns = TurnRunner(ctx, self._calls, self.tools, owner, standing)
        spawn = Spawner(ctx, self.turns).tool()
        self.tools.add(spawn)
        # That act in the name of a session, for clients that may wait for a person.
        self.session_tools = (build_switch_tool(ctx, waits=True), spawn)
        if settings.agents.tool_servers:
            from harness.runtime.tool_servers import ToolServers  # noqa: PLC0415 - mcp takes its time

            self.tools.add(
                ToolServers(
                    settings.agents.tool_servers, os.environ, installation.clock.monotonic
                )
            )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the leases of turns; at its end all turns have ended."""
        self._loop = asyncio.get_running_loop()
        leases = asyncio.create_task(self.turns.keep_leases())
        try:
            yield
        finally:
            await self.turns.close(0.0)
            leases.cancel()
            await asyncio.wait({leases})
            await self._calls.aclose()

    def end_turns(self) -> None:
        """Begins no more, and lets those that run end for a while. From a signal's handler."""

        def begin() -> None:
            self._closing = self._loop.create_task(self.turns.close(self.drain_s))

        self._loop.call_soon_threadsafe(begin)
