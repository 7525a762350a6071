"""A model call is one question of a session to a model: the request with all that the model is
shown, the pieces of its answer as they come, and the whole answer. Pure.

`ModelCalls` and `ToolRuntime` are the protocols of what a turn calls: models, through the
router, and tools that run on the server.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from harness.domain.agents.agent import AgentTool
from harness.domain.agents.caller import AgentCaller
from harness.domain.agents.message import FREE, MessageToolCall, MessageUsage, ServedBy
from harness.domain.agents.transcript import BYTES_PER_TOKEN, ContextMessage
from harness.domain.agents.turn import OfferedTool, TurnBounds


@dataclass(frozen=True, slots=True)
class ModelCallRequest:
    model: str  # as the router names it: a route, or `@provider/model`
    messages: tuple[ContextMessage, ...]
    caller: AgentCaller
    timeout_s: float  # for the whole answer
    tools: tuple[OfferedTool, ...] = ()
    user: str = ""  # who is behind the session, in the client's words

    @property
    def approx_tokens(self) -> int:
        """Estimates the input from its bytes."""
        texts = [tool.description + json.dumps(tool.parameters) for tool in self.tools]
        images = 0
        for message in self.messages:
            texts += [call.name + call.arguments for call in message.tool_calls]
            if isinstance(message.content, str):
                texts.append(message.content)
            else:
                texts += [str(part.get("text", "")) for part in message.content]
                images += sum("image_url" in part for part in message.content)
        return images * IMAGE_TOKENS + sum(map(approx_tokens, texts))


# For estimates: of one picture, and of an answer without a known part.
IMAGE_TOKENS: Final = 2_000
UNSEEN_TOKENS: Final = 4_096


def approx_tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """A piece of an answer as it comes; at least one of the texts is not empty."""

    text: str = ""
    reasoning: str = ""
    calls: str = ""  # names and arguments of tool calls

    @property
    def is_shown(self) -> bool:
        """Whether clients get it: they get tool calls whole."""
        return bool(self.text or self.reasoning)


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
    # What it used up itself, which counts against the turn.
    usage: MessageUsage = FREE


def no_such_tool(call: MessageToolCall) -> ToolResult:
    return ToolResult(call.id, f"no server runs the tool {call.name!r} now", is_error=True)


@dataclass(frozen=True, slots=True)
class ToolCaller:
    """Names the turn for which a tool of the server's runs, and what it may still use up."""

    agent: str
    session: str
    turn: str  # empty for one that no turn runs for
    left: TurnBounds = field(default_factory=TurnBounds)  # what the turn may still use up


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
