"""A `BuiltInTool` is a tool of Swapgate's own, as models call it in a turn, and MCP clients in
the name of a session.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from harness.control.serialize import to_plain
from harness.domain.agents.agent import AgentTool
from harness.domain.agents.message import MessageToolCall, MessageUsage
from harness.domain.agents.model_call import ToolCaller, ToolResult
from harness.domain.agents.turn import OfferedTool
from harness.domain.errors import SwapgateError

log = structlog.get_logger("swapgate.agents")
Arguments = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a built-in tool answers, which becomes JSON."""

    content: object
    # Of models that it asked.
    usage: MessageUsage = field(default_factory=lambda: MessageUsage(cost_usd=0.0))


@dataclass(frozen=True)
class BuiltInTool:
    """Implements ToolRuntime for one name."""

    offered: OfferedTool
    answer: Callable[[Arguments, ToolCaller], Awaitable[ToolAnswer]]

    def has(self, tool: AgentTool) -> bool:
        return tool.name == self.offered.name and not tool.runs_at_client

    def runs(self, name: str) -> bool:
        return name == self.offered.name

    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]:
        return [self.offered] if any(self.has(tool) for tool in tools) else []

    async def run(
        self,
        call: MessageToolCall,
        caller: ToolCaller,
        timeout_s: float,  # noqa: ARG002 - who calls has this limit
    ) -> ToolResult:
        try:
            answer = await self.answer(json.loads(call.arguments or "{}"), caller)
            content = json.dumps(to_plain(answer.content), ensure_ascii=False)
            return ToolResult(call.id, content, usage=answer.usage)
        # It tells the model what to do about an error of ours, and nothing of others.
        except SwapgateError as error:
            return ToolResult(call.id, str(error), is_error=True)
        except Exception:
            log.exception("tool_failed", tool=self.offered.name, session=caller.session)
            return ToolResult(call.id, "the tool failed; go on without it", is_error=True)
