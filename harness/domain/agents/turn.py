"""A turn answers one message of a client: the model is asked, its tools run, it is asked again,
until it answers in text, the client has to run a function, or a bound is reached. `decide` is
the whole engine: a state and an observation in, the next state and action out. Pure.

A bound is looked at before each step: the one that crosses it is the turn's last.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Final, assert_never

from harness.domain.agents.message import MessageToolCall, MessageUsage

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
    runs_at_client: bool


@dataclass(frozen=True, slots=True)
class TurnBounds:
    """What one turn of a session may use up; what is reached first ends it."""

    max_steps: int = 12  # calls of the model
    max_tokens: int = 1_000_000  # of all calls, input and output together
    max_usd: float = 5.0  # of all calls; those without a known price count nothing
    timeout_s: float = 300.0  # its tools included


@dataclass(frozen=True, slots=True)
class TurnProgress:
    bounds: TurnBounds
    began_s: float  # began_s, now_s: of one clock that never jumps
    tools: tuple[OfferedTool, ...] = ()
    has_fallback: bool = False  # the agent has another model for retryable failures
    steps: int = 0
    tokens: int = 0
    usd: float = 0.0
    # The fallback was taken; it answers for the rest of the turn.
    on_fallback: bool = False
    # Calls of the last answer that the client runs, returned once the server's are answered.
    client_calls: tuple[MessageToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class TurnBegun:
    """The client's message is stored."""


@dataclass(frozen=True, slots=True)
class ModelAnswered:
    usage: MessageUsage
    tool_calls: tuple[MessageToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelFailed:
    """No answer came, or not a whole one."""

    code: str
    reason: str
    retryable: bool  # another model may succeed
    has_output: bool = False  # the client has seen a part of the answer


@dataclass(frozen=True, slots=True)
class ToolsAnswered:
    """Every call that was to be run has a result, be it an error."""

    # What the tools used up themselves, such as sub-tasks.
    usage: MessageUsage = field(default_factory=MessageUsage)


Observation = TurnBegun | ModelAnswered | ModelFailed | ToolsAnswered


@dataclass(frozen=True, slots=True)
class AskModel:
    """Ask the session's model, or the fallback, with all messages so far."""

    timeout_s: float
    fallback: bool = False
    reason: str = ""  # why the fallback is asked


@dataclass(frozen=True, slots=True)
class RunTools:
    """Run these calls on the server at the same time."""

    calls: tuple[MessageToolCall, ...]
    refused: tuple[RefusedCall, ...]
    timeout_s: float


@dataclass(frozen=True, slots=True)
class EndTurn:
    """The last answer is the turn's; the client runs its open calls and sends the results."""

    open_calls: tuple[MessageToolCall, ...] = ()


@dataclass(frozen=True, slots=True)
class FailTurn:
    """End: nobody answered, or a bound is reached."""

    code: str
    reason: str
    retryable: bool = False


Action = AskModel | RunTools | EndTurn | FailTurn


def decide(
    state: TurnProgress, observation: Observation, now_s: float
) -> tuple[TurnProgress, Action]:
    match observation:
        case TurnBegun():
            return _ask(state, now_s)
        case ModelAnswered():
            return _act_on_answer(state, observation, now_s)
        case ModelFailed():
            return _act_on_failure(state, observation, now_s)
        case ToolsAnswered(usage):
            state = _charge(state, usage)
            if state.client_calls:
                return state, EndTurn(state.client_calls)
            return _ask(state, now_s)
        case _:
            assert_never(observation)


def _act_on_answer(
    state: TurnProgress, answer: ModelAnswered, now_s: float
) -> tuple[TurnProgress, Action]:
    state = _charge(replace(state, steps=state.steps + 1), answer.usage)
    if not answer.tool_calls:
        return state, EndTurn()
    server, client, refused = sort_calls(answer.tool_calls, state.tools)
    if not server and not refused:
        return state, EndTurn(client)
    # A tool whose result nobody would read is not run: it may have effects.
    exhausted = None if client else find_exhausted_limit(state, now_s)
    if exhausted is not None:
        return state, FailTurn(LIMIT_REACHED, exhausted)
    left_s = remaining_s(state, now_s)
    return replace(state, client_calls=client), RunTools(server, refused, left_s)


def _charge(state: TurnProgress, used: MessageUsage) -> TurnProgress:
    return replace(
        state,
        tokens=state.tokens + used.input_tokens + used.output_tokens,
        usd=state.usd + (used.cost_usd or 0.0),
    )


def _act_on_failure(
    state: TurnProgress, failure: ModelFailed, now_s: float
) -> tuple[TurnProgress, Action]:
    may_fall = failure.retryable and state.has_fallback and not failure.has_output
    left_s = remaining_s(state, now_s)
    if may_fall and not state.on_fallback and left_s > 0:
        action = AskModel(left_s, fallback=True, reason=failure.reason)
        return replace(state, on_fallback=True), action
    return state, FailTurn(failure.code, failure.reason, failure.retryable)


def _ask(state: TurnProgress, now_s: float) -> tuple[TurnProgress, Action]:
    exhausted = find_exhausted_limit(state, now_s)
    if exhausted is not None:
        return state, FailTurn(LIMIT_REACHED, exhausted)
    return state, AskModel(remaining_s(state, now_s), fallback=state.on_fallback)


def remaining_s(state: TurnProgress, now_s: float) -> float:
    return max(0.0, state.bounds.timeout_s - (now_s - state.began_s))


def remaining(state: TurnProgress, now_s: float) -> TurnBounds:
    """What the turn may still use up: the most that its tools may."""
    bounds = state.bounds
    return replace(
        bounds,
        max_steps=max(0, bounds.max_steps - state.steps),
        max_tokens=max(0, bounds.max_tokens - state.tokens),
        max_usd=max(0.0, bounds.max_usd - state.usd),
        timeout_s=remaining_s(state, now_s),
    )


def find_exhausted_limit(state: TurnProgress, now_s: float) -> str | None:
    """The bound that leaves no further step, in words; None while there is none."""
    bounds = state.bounds
    if state.steps >= bounds.max_steps:
        return f"the turn has used up its {bounds.max_steps} steps"
    if state.tokens >= bounds.max_tokens:
        return f"the turn has used up its {bounds.max_tokens} tokens ({state.tokens})"
    if state.usd >= bounds.max_usd:
        return f"the turn has used up its {bounds.max_usd:g} USD ({state.usd:g})"
    if remaining_s(state, now_s) <= 0:
        return f"the turn has used up its {bounds.timeout_s:g} s"
    return None


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


def arguments_fault(call: MessageToolCall) -> str | None:
    """What is wrong with a call's arguments: what is not strict JSON no server reads."""
    try:
        arguments = json.loads(call.arguments or "{}")
        # NaN, and half of a pair of surrogates, are no JSON to whoever they are sent to: a tool
        # server's connection, which all sessions share, would end by them.
        json.dumps(arguments, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return "the arguments are no JSON; call it again with a JSON object"
    if not isinstance(arguments, Mapping):
        return "the arguments are no JSON object; call it again with one"
    return None


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
