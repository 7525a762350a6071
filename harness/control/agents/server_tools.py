"""`ServerTools` joins the tools that run on the server: built-in ones and those of configured
tool servers, each a ToolRuntime. With none, agents have functions of their clients alone.
"""

from collections.abc import Sequence

from harness.domain.agents.agent import AgentTool
from harness.domain.agents.message import MessageToolCall
from harness.domain.agents.model_call import ToolCaller, ToolResult
from harness.domain.agents.turn import OfferedTool
from harness.ports.agent_calls import ToolRuntime


class ServerTools:
    """Several runtimes as one; of two that offer a name, the first has it."""

    def __init__(self, runtimes: Sequence[ToolRuntime] = ()) -> None:
        self._runtimes = list(runtimes)

    def add(self, *runtimes: ToolRuntime) -> None:
        """Behind those that are here: spawning sub-tasks takes turns, which take tools."""
        self._runtimes += runtimes

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
