"""Protocols of what a session's turn calls: models, through the router, and tools that run on
the server.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from harness.domain.agents.agent import AgentTool
from harness.domain.agents.message import MessageToolCall
from harness.domain.agents.model_call import (
    AnswerPiece,
    ModelCallAnswer,
    ModelCallRequest,
    ToolCaller,
    ToolResult,
)
from harness.domain.agents.turn import OfferedTool


class ModelCalls(Protocol):
    """Asks models. Belongs to one event loop."""

    async def ask(
        self,
        request: ModelCallRequest,
        on_piece: Callable[[AnswerPiece], None] | None = None,
    ) -> ModelCallAnswer:
        """The whole answer. on_piece: gets each piece as it comes. Raises a kind of CallFailed,
        and InputError for what cannot be sent; cancelling it ends the provider's work.
        """
        ...


class ToolRuntime(Protocol):
    """Runs tools on the server. Belongs to one event loop."""

    def has(self, tool: AgentTool) -> bool:
        """Whether an agent may be given it: a built-in tool, or one that a configured server
        may have.
        """
        ...

    def runs(self, name: str) -> bool:
        """Whether a tool that it offered has this name."""
        ...

    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]:
        """Lists those among an agent's tools that it runs, as the model is told of them. What a
        server that is away would offer is left out.
        """
        ...

    async def run(
        self, call: MessageToolCall, caller: ToolCaller, timeout_s: float
    ) -> ToolResult:
        """Runs a tool and returns its result. Raises nothing but its cancellation: what goes
        wrong is a result that says so.
        """
        ...
