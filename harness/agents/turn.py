"""A turn of an agent: the messages that answer one request, and their bounds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final, Protocol

from harness.agents.caller import AgentCaller
from harness.agents.message import (
    FREE,
    ChatMessage,
    MessageToolCall,
    MessageUsage,
    ServedBy,
    arguments_fault,
)
from harness.frame.errors import CallFailed
from harness.routing.agent import AgentTool
from harness.routing.settings import TurnBounds

# A tool call that is not run, with what the model is told instead of a result.
RefusedCall = tuple[MessageToolCall, str]

LIMIT_REACHED: Final = "turn_limit_reached"

CAP_REACHED: Final = "monthly_cap_reached"

# Of one answer; further calls are not run, and the model is told so.
MAX_TOOL_CALLS: Final = 32

# Longer ids of calls are replaced: they are the model's own text, and stand in every request;
# OpenAI takes no longer ones.
MAX_CALL_ID: Final = 40


@dataclass(frozen=True, slots=True)
class OfferedTool:
    name: str
    description: str
    parameters: Mapping[str, object]  # JSON Schema of an object
    runs_at_client: bool = False


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


OnPiece = Callable[[AnswerPiece], None]


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


@dataclass(frozen=True, slots=True)
class ToolCaller:
    session: str  # in whose name the tool runs
    left: TurnBounds = field(default_factory=TurnBounds)  # what the turn may still use up


class ModelCalls(Protocol):
    async def ask(
        self, request: ModelCallRequest, on_piece: OnPiece | None = None
    ) -> ModelCallAnswer:
        """The whole answer. on_piece: gets each piece as it comes. Raises a kind of CallFailed,
        and InputError for what cannot be sent; cancelling it ends the provider's work.
        """
        ...


class ToolRuntime(Protocol):
    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]: ...

    async def run(self, call: MessageToolCall, caller: ToolCaller) -> ToolResult:
        """What goes wrong is a result that says so."""
        ...


def no_such_tool(call: MessageToolCall) -> ToolResult:
    return ToolResult(call.id, f"no server runs the tool {call.name!r} now", is_error=True)


@dataclass(slots=True)
class TurnBudget:
    """What a turn has used up of its bounds. Times are of one clock that never jumps."""

    bounds: TurnBounds
    began_s: float
    steps: int = 0
    usage: MessageUsage = FREE  # of its answers and tools
    usd: float = 0.0  # of those whose price is known

    def charge(self, used: MessageUsage) -> None:
        self.usage += used
        self.usd += used.cost_usd or 0.0

    def left(self, now_s: float) -> TurnBounds:
        return TurnBounds(
            max_steps=max(0, self.bounds.max_steps - self.steps),
            max_tokens=max(0, self.bounds.max_tokens - self.usage.tokens),
            max_usd=max(0.0, self.bounds.max_usd - self.usd),
            timeout_s=max(0.0, self.bounds.timeout_s - (now_s - self.began_s)),
        )

    def require_left(self, now_s: float) -> None:
        """Checks the bounds of a turn. Raises CallFailed where one is used up."""
        bounds, left = self.bounds, self.left(now_s)
        for is_left, reason in (
            (left.max_steps, f"{bounds.max_steps} steps"),
            (left.max_tokens, f"{bounds.max_tokens} tokens ({self.usage.tokens})"),
            (left.max_usd, f"{bounds.max_usd:g} USD ({self.usd:g})"),
            (left.timeout_s, f"{bounds.timeout_s:g} s"),
        ):
            if not is_left:
                raise CallFailed(
                    f"the turn has used up its {reason}", status=422, code=LIMIT_REACHED
                )


def sort_calls(
    calls: Sequence[MessageToolCall],
    tools: Sequence[OfferedTool],
    most: int = MAX_TOOL_CALLS,
) -> tuple[tuple[MessageToolCall, ...], tuple[MessageToolCall, ...], tuple[RefusedCall, ...]]:
    """Splits an answer's calls into those of the server's tools, those of the client's
    functions, and those that nobody runs; each in its order.
    """
    server: list[MessageToolCall] = []
    client: list[MessageToolCall] = []
    refused: list[RefusedCall] = []
    for number, call in enumerate(calls):
        tool = next((tool for tool in tools if tool.name == call.name), None)
        if number >= most:
            reason = f"not run: one answer may call {most} tools; call it again"
            refused.append((call, reason))
        elif tool is None:
            names = ", ".join(tool.name for tool in tools) or "none"
            refused.append((call, f"there is no tool {call.name!r}; there are: {names}"))
        elif tool.runs_at_client:
            client.append(call)
        elif (fault := arguments_fault(call)) is not None:
            refused.append((call, fault))
        else:
            server.append(call)
    return tuple(server), tuple(client), tuple(refused)


def name_calls(calls: Sequence[MessageToolCall], message: str) -> tuple[MessageToolCall, ...]:
    """The calls of one answer, each with an id of its own: a model that gives none, or one
    twice, would leave open which call a result belongs to. message: the answer's id.
    """
    taken: set[str] = set()
    named = []
    for number, call in enumerate(calls, 1):
        id_ = call.id
        for attempt in count(number):
            if 0 < len(id_) <= MAX_CALL_ID and id_ not in taken:
                break
            id_ = f"call_{message}_{attempt}"
        taken.add(id_)
        named.append(replace(call, id=id_))
    return tuple(named)
