"""The parts of a turn: model calls, tools, and the turn's budget. A turn is all messages that
answer one message of a client.

Pure, except for the protocols `ModelCalls` and `ToolRuntime`, by which a turn reaches the
router and the tools. `conversation` uses them.
"""

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

# A tool call that does not run, with the reason for the model.
RefusedCall = tuple[MessageToolCall, str]
LIMIT_REACHED: Final = "turn_limit_reached"
CAP_REACHED: Final = "monthly_cap_reached"
MAX_TOOL_CALLS: Final = 32  # per answer
# OpenAI refuses longer ids of calls, but a model may write ids of any length.
MAX_CALL_ID: Final = 40


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool as a model sees it. runs_at_client: the client runs it and sends the result."""

    name: str
    description: str
    parameters: Mapping[str, object]  # JSON Schema of an object
    runs_at_client: bool = False


@dataclass(frozen=True, slots=True)
class ModelCallRequest:
    """A request to the router for one answer."""

    model: str  # a route, or `@provider/model`
    messages: Sequence[ChatMessage]
    caller: AgentCaller
    timeout_s: float  # for the whole answer
    tools: Sequence[OfferedTool] = ()
    user: str = ""  # the client's id of the session's user


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """A part of a streamed answer, of the text or of the reasoning."""

    text: str = ""
    reasoning: str = ""


OnPiece = Callable[[AnswerPiece], None]


@dataclass(frozen=True, slots=True)
class ModelCallAnswer:
    """A model's whole answer. finish_reason: as in Chat Completions."""

    text: str
    finish_reason: str
    served: ServedBy
    tool_calls: tuple[MessageToolCall, ...] = ()
    usage: MessageUsage = field(default_factory=MessageUsage)
    # The provider's own fields, such as its reasoning, which go back to it with the context.
    extra: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolResult:
    call: str  # the id of the tool call
    content: str
    is_error: bool = False
    usage: MessageUsage = FREE  # of the models that the tool called; the turn pays for it


@dataclass(frozen=True, slots=True)
class ToolCaller:
    """The session for which a tool runs, and the budget that the tool may use."""

    session: str  # id of the session that called the tool
    # The rest of the turn's budget; without a turn, the budget of the call.
    left: TurnBounds = field(default_factory=TurnBounds)
    is_in_turn: bool = False


class ModelCalls(Protocol):
    async def ask(
        self, request: ModelCallRequest, on_piece: OnPiece | None = None
    ) -> ModelCallAnswer:
        """Returns the whole answer.

        Args:
            on_piece: gets each piece as it arrives.

        A cancellation ends the provider's work. Raises CallFailed, and InputError for an
        invalid request.
        """
        ...


class ToolRuntime(Protocol):
    async def list_tools(self, tools: Sequence[AgentTool]) -> Sequence[OfferedTool]: ...

    async def run(self, call: MessageToolCall, caller: ToolCaller) -> ToolResult:
        """Runs a tool. Returns a failure as a result with `is_error`."""
        ...


def no_such_tool(call: MessageToolCall) -> ToolResult:
    """Returns the result of a call of an unavailable tool."""
    reason = f"the tool {call.name!r} is not available now: continue without it"
    return ToolResult(call.id, reason, is_error=True)


@dataclass(slots=True)
class TurnBudget:
    """The bounds of a turn, and how much of them the turn has used. Times are monotonic
    seconds.
    """

    bounds: TurnBounds
    began_s: float
    steps: int = 0
    usage: MessageUsage = FREE  # of answers and tools
    usd: float = 0.0  # the known costs

    def charge(self, usage: MessageUsage) -> None:
        self.usage += usage
        self.usd += usage.cost_usd or 0.0

    def left(self, now_s: float) -> TurnBounds:
        """Returns the rest of the bounds, never negative.

        Args:
            now_s: of the same clock as `began_s`.
        """
        return TurnBounds(
            max_steps=max(0, self.bounds.max_steps - self.steps),
            max_tokens=max(0, self.bounds.max_tokens - self.usage.tokens),
            max_usd=max(0.0, self.bounds.max_usd - self.usd),
            timeout_s=max(0.0, self.bounds.timeout_s - (now_s - self.began_s)),
        )

    def require_left(self, now_s: float) -> None:
        """Checks the bounds. Raises CallFailed if one is used up."""
        bounds = self.bounds
        bounds_left = self.left(now_s)
        for amount_left, reason in (
            (bounds_left.max_steps, f"{bounds.max_steps} steps"),
            (
                bounds_left.max_tokens,
                f"{bounds.max_tokens} tokens ({self.usage.tokens})",
            ),
            (bounds_left.max_usd, f"{bounds.max_usd:g} USD ({self.usd:g})"),
            (bounds_left.timeout_s, f"{bounds.timeout_s:g} s"),
        ):
            if not amount_left:
                raise CallFailed(
                    f"the turn has used up its {reason}",
                    status=422,
                    code=LIMIT_REACHED,
                )


def sort_calls(
    calls: Sequence[MessageToolCall],
    tools: Sequence[OfferedTool],
    max_calls: int = MAX_TOOL_CALLS,
) -> tuple[
    tuple[MessageToolCall, ...],
    tuple[MessageToolCall, ...],
    tuple[RefusedCall, ...],
]:
    """Splits an answer's calls into calls of the server's tools, calls of the client's
    functions, and refused calls. Keeps their order.
    """
    server: list[MessageToolCall] = []
    client: list[MessageToolCall] = []
    refused: list[RefusedCall] = []
    for number, call in enumerate(calls):
        tool = next((tool for tool in tools if tool.name == call.name), None)
        if number >= max_calls:
            reason = f"not run: one answer may call {max_calls} tools; call it again"
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
    """Gives each call a unique id, because a model may omit or repeat ids."""
    used_ids: set[str] = set()
    renamed = []
    for number, call in enumerate(calls, 1):
        id_ = call.id
        for attempt in count(number):
            if 0 < len(id_) <= MAX_CALL_ID and id_ not in used_ids:
                break
            id_ = f"call_{message}_{attempt}"
        used_ids.add(id_)
        renamed.append(replace(call, id=id_))
    return tuple(renamed)
