"""A model call is one question of a session to a model. `ModelCalls` and `ToolRuntime` are the
protocols of what a turn calls: models, through the router, and tools that run on the server.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from harness.domain.agents.agent import AgentTool
from harness.domain.agents.caller import AgentCaller
from harness.domain.agents.message import (
    FREE,
    ChatMessage,
    MessageToolCall,
    MessageUsage,
    ServedBy,
)
from harness.domain.agents.turn import OfferedTool, TurnBounds


@dataclass(frozen=True, slots=True)
class ModelCallRequest:
    model: str  # as the router names it: a route, or `@provider/model`
    messages: Sequence[ChatMessage]
    caller: AgentCaller
    timeout_s: float  # for the whole answer
    tools: Sequence[OfferedTool] = ()
    user: str = ""  # who is behind the session, in the client's words


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    text: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class ModelCallAnswer:
    text: str
    finish_reason: str
    served: ServedBy
    tool_calls: tuple[MessageToolCall, ...] = ()
    usage: MessageUsage = field(default_factory=MessageUsage)
    # What of the provider's goes back to it with the conversation, such as its reasoning.
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolResult:
    call: str  # the id of the tool call
    content: str
    is_error: bool = False  # the model is told so
    usage: MessageUsage = FREE  # of models that the tool asked: it counts against the turn


def no_such_tool(call: MessageToolCall) -> ToolResult:
    return ToolResult(call.id, f"no server runs the tool {call.name!r} now", is_error=True)


@dataclass(frozen=True, slots=True)
class ToolCaller:
    session: str  # in whose name the tool runs
    left: TurnBounds = field(default_factory=TurnBounds)  # what the turn may still use up


class ModelCalls(Protocol):
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
    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]: ...

    async def run(
        self, call: MessageToolCall, caller: ToolCaller, timeout_s: float
    ) -> ToolResult:
        """What goes wrong is a result that says so."""
        ...
