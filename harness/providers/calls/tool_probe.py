"""Compares a model's calls in a short tool loop with its declared capabilities. Pure.

The question needs two tools whose answers no model can guess. `harness.app.doctor.tool_checks`
runs the loop, and this module judges the traces. It changes no declaration: a finding only
proposes the setting. How well a model uses tools is a question for a suite
(`evals.scorers.tool_calls`).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from harness.frame.matching import matches_schema
from harness.frame.plain_data import read_object
from harness.providers.target import Provider, Target

STOCK_TOOL: Final = "stock_of"
PRICE_TOOL: Final = "price_of"
TOOL_QUESTION: Final = (
    "How many lamps are in stock, and what does one lamp cost in EUR? Ask both tools at once, "
    "in the same turn. Then answer in one sentence with both numbers."
)
FORCED_QUESTION: Final = "Say good morning."
_ITEM: Final = {"type": "string", "enum": ["lamp", "chair"]}
_CURRENCY: Final = {"type": "string", "enum": ["EUR", "USD"]}


def _schema(**fields: object) -> Mapping[str, object]:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


TOOL_SCHEMAS: Final[Mapping[str, Mapping[str, object]]] = {
    STOCK_TOOL: _schema(item=_ITEM),
    PRICE_TOOL: _schema(item=_ITEM, currency=_CURRENCY),
}
# Numbers that a model cannot guess.
TOOL_ANSWERS: Final[Mapping[str, int]] = {STOCK_TOOL: 4817, PRICE_TOOL: 2963}
_THOUSANDS_SEPARATOR: Final = re.compile(r"(?<=\d)[ ,.'’\u00a0\u202f](?=\d{3})")


class ToolOutcome(StrEnum):
    """Whether a capability works. NOT_SEEN: the loop did not use it."""

    WORKS = "works"
    ONE_AT_A_TIME = "one at a time"
    OTHERS = "calls others"  # it calls tools that the request does not offer
    DOES_NOT = "does not"
    NO_ANSWER = "no answer"  # or an answer that the router cannot parse
    NOT_SEEN = "not seen"


@dataclass(frozen=True, slots=True)
class ProbeToolCall:
    name: str
    arguments: str  # the model's text


@dataclass(frozen=True, slots=True)
class ToolLoopTrace:
    """The calls and the text of one tool loop."""

    turns: Sequence[Sequence[ProbeToolCall]] = ()  # the calls of each of the model's answers
    text: str = ""  # text of its last answer
    error: str = ""  # the reason for an early end, without secrets; empty after a whole loop

    @property
    def calls(self) -> list[ProbeToolCall]:
        return [call for turn in self.turns for call in turn]


@dataclass(frozen=True, slots=True)
class ToolProbeResult:
    """The traces of all loops of one probe."""

    whole: ToolLoopTrace  # the loop without streams
    # One answer with `price_of` as the tool choice; None if not tried.
    forced: ToolLoopTrace | None = None
    streamed: ToolLoopTrace | None = None  # the loop with streams; None if not tried


@dataclass(frozen=True, slots=True)
class ToolFinding:
    """The result for one capability."""

    subject: str
    outcome: ToolOutcome
    failed: bool  # the target lacks a declared capability
    found: str
    next_step: str = ""  # empty without a step


@dataclass(frozen=True, slots=True)
class _Declared:
    """The declared capabilities of a target, and their descriptions for people."""

    provider: Provider
    target: Target

    def has(self, capability: str) -> bool:
        return bool(getattr(self.provider.abilities(self.target.model), capability))

    def describe(self, capability: str) -> str:
        if self.target.model in self.provider.models:
            return f"declared {capability}" if self.has(capability) else f"no {capability}"
        return f"assumed to have {capability}, which is not declared"

    def setting(self, capability: str, *, to: bool) -> str:
        place = f"providers.{self.provider.name}.models.{self.target.model}.{capability}"
        return f"set {place}: {'true' if to else 'false'}"


def tool_findings(
    provider: Provider,
    target: Target,
    result: ToolProbeResult,
) -> Iterator[ToolFinding]:
    """Yields a finding for each capability, in the order in which they depend on one
    another.
    """
    declared = _Declared(provider, target)
    first_step = _NO_TURN_STEP if not result.whole.turns else ""
    yield _build_finding(declared, "tools", "tools", _judge_calls(result.whole), first_step)
    yield _find_parallel_calls(declared, result.whole)
    yield _build_finding(
        declared, "results", "tools", _judge_results(result.whole), _RESULTS_STEP
    )
    yield _build_finding(
        declared, "forced choice", "tools", _judge_forced_choice(result.forced), _FORCED_STEP
    )
    yield _build_finding(
        declared, "strict schema", "tools", _judge_schema(result), _STRICT_STEP
    )
    yield _build_finding(declared, "streamed", "stream", _judge_stream(result), _STREAMED_STEP)


_Judgement = tuple[ToolOutcome, str]
_NO_TURN_STEP: Final = (
    "fix the cause of the error; `swapproof doctor` checks key, address and model"
)
_RESULTS_STEP: Final = (
    "check whether its chat template keeps tool results, or propose another model"
)
_FORCED_STEP: Final = (
    "do not send tool_choice to this target's routes, or propose another model"
)
_STRICT_STEP: Final = "check arguments in the tools, or propose a model that keeps to schemas"
_STREAMED_STEP: Final = "send requests with tools without `stream`, or propose another model"


def _build_finding(
    declared: _Declared,
    subject: str,
    capability: str,
    judgement: _Judgement,
    step: str = "",
) -> ToolFinding:
    """Compares an outcome with the declared capability, and proposes the next step.

    Args:
        capability: its name in `Capabilities`.
        step: for a declared capability that fails. If it is empty, the finding proposes to
            declare that the capability is missing.
    """
    outcome, observation = judgement
    is_declared = declared.has(capability)
    is_working = outcome is ToolOutcome.WORKS
    next_step = ""
    failed = False
    if outcome is ToolOutcome.NOT_SEEN or (is_working and is_declared):
        text = observation
    elif is_working:
        text = f"{observation}; {declared.describe(capability)} is declared"
        next_step = declared.setting(capability, to=True)
    elif not is_declared:
        text = f"as declared: {observation}"
    else:
        text = f"{declared.describe(capability)}; {observation}"
        failed = True
        next_step = step or declared.setting(capability, to=False)
    return ToolFinding(subject, outcome, failed, text, next_step)


def _judge_calls(trace: ToolLoopTrace) -> _Judgement:
    """Judges whether the model calls offered tools with JSON objects."""
    if not trace.calls:
        reason = trace.error or "it answers with text, but a tool call is required"
        return ToolOutcome.DOES_NOT, reason
    for call in trace.calls:
        if call.name not in TOOL_SCHEMAS:
            return (
                ToolOutcome.OTHERS,
                f"it calls an unknown tool: {call.name[:40]!r}",
            )
        if read_object(call.arguments or "{}") is None:
            return (
                ToolOutcome.DOES_NOT,
                f"its arguments of {call.name} are not a JSON object",
            )
    turns_with_calls = sum(map(bool, trace.turns))
    observation = (
        f"{_count_of(len(trace.calls), 'call')} in {_count_of(turns_with_calls, 'turn')}"
    )
    return ToolOutcome.WORKS, observation


def _find_parallel_calls(declared: _Declared, trace: ToolLoopTrace) -> ToolFinding:
    """Judges whether the model calls several tools in one turn."""
    if not trace.calls:
        judgement = ToolOutcome.NOT_SEEN, "it called no tool"
    elif (most_calls := max(len(turn) for turn in trace.turns)) > 1:
        judgement = ToolOutcome.WORKS, f"{most_calls} calls in one turn"
    else:
        judgement = ToolOutcome.ONE_AT_A_TIME, "one call at a time"
    return _build_finding(declared, "parallel calls", "parallel_tools", judgement)


def _judge_results(trace: ToolLoopTrace) -> _Judgement:
    """Judges whether the last answer has the numbers that the tools returned."""
    if trace.calls and trace.error:
        return ToolOutcome.DOES_NOT, trace.error
    called = {call.name for call in trace.calls}
    if called.isdisjoint(TOOL_SCHEMAS):
        return ToolOutcome.NOT_SEEN, "it called none of the tools"
    text = _THOUSANDS_SEPARATOR.sub("", trace.text)
    missing = sorted(name for name, number in TOOL_ANSWERS.items() if str(number) not in text)
    if not trace.text.strip():
        return (
            ToolOutcome.DOES_NOT,
            "its answer after the tools' results is empty",
        )
    if not_called := [name for name in missing if name not in called]:
        return (
            ToolOutcome.DOES_NOT,
            f"it answers without calling {', '.join(not_called)}",
        )
    if missing:
        return (
            ToolOutcome.DOES_NOT,
            f"its answer omits the result of {', '.join(missing)}",
        )
    return ToolOutcome.WORKS, "its answer has the results of both tools"


def _judge_forced_choice(trace: ToolLoopTrace | None) -> _Judgement:
    """Judges whether the model obeys a forced tool choice."""
    if trace is None:
        return (
            ToolOutcome.NOT_SEEN,
            "not tried, because the first loop got no answer",
        )
    if trace.error:
        return ToolOutcome.DOES_NOT, trace.error
    called = {call.name for call in trace.calls}
    if called == {PRICE_TOOL}:
        return ToolOutcome.WORKS, f"it calls {PRICE_TOOL}, as required"
    actual = "another tool" if called else "no tool"
    calls_unknown_tool = called and called.isdisjoint(TOOL_SCHEMAS)
    outcome = ToolOutcome.OTHERS if calls_unknown_tool else ToolOutcome.DOES_NOT
    return outcome, f"it calls {actual}, although {PRICE_TOOL} is forced"


def _judge_schema(result: ToolProbeResult) -> _Judgement:
    """Judges whether arguments fit the tools' schemas, in all loops."""
    traces = [
        loop for loop in (result.whole, result.forced, result.streamed) if loop is not None
    ]
    offered_calls = [
        item for loop in traces for item in loop.calls if item.name in TOOL_SCHEMAS
    ]
    if not offered_calls:
        return ToolOutcome.NOT_SEEN, "it called no tool"
    for call in offered_calls:
        if not matches_schema(read_object(call.arguments or "{}"), TOOL_SCHEMAS[call.name]):
            return (
                ToolOutcome.DOES_NOT,
                f"its arguments of {call.name} do not fit the schema",
            )
    return (
        ToolOutcome.WORKS,
        f"the arguments of {_count_of(len(offered_calls), 'item')} fit the schemas",
    )


def _judge_stream(result: ToolProbeResult) -> _Judgement:
    """Judges whether the pieces of streamed calls form JSON objects."""
    trace = result.streamed
    if trace is None:
        return (
            ToolOutcome.NOT_SEEN,
            "not tried, because the first loop got no answer",
        )
    if trace.error:
        outcome = ToolOutcome.DOES_NOT if trace.turns else ToolOutcome.NO_ANSWER
        return outcome, trace.error
    if not trace.calls and not result.whole.calls:
        return (
            ToolOutcome.NOT_SEEN,
            "it called no tool, with a stream or without",
        )
    outcome, observation = _judge_calls(trace)
    if outcome is not ToolOutcome.WORKS:
        return outcome, f"in a stream {observation}"
    return (
        outcome,
        f"the pieces of {_count_of(len(trace.calls), 'call')} form JSON",
    )


def _count_of(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
