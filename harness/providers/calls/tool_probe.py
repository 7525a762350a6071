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
_IN_NUMBER: Final = re.compile(r"(?<=\d)[ ,.'’\u00a0\u202f](?=\d{3})")


class ToolOutcome(StrEnum):
    """Whether a capability works. NOT_SEEN: the loop gave no chance to see it."""

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
    error: str = ""  # why the loop ended early, without secrets; empty if it did not

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
    failed: bool  # the target is declared to have the capability, and lacks it
    found: str
    next_step: str = ""  # empty without a step


@dataclass(frozen=True, slots=True)
class _Declared:
    """The capabilities that a person declared for a target, and their words."""

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
    unheard = _UNHEARD if not result.whole.turns else ""
    yield _judged(declared, "tools", "tools", _calls(result.whole), unheard)
    yield _parallel(declared, result.whole)
    yield _judged(declared, "results", "tools", _results(result.whole), _RESULTS)
    yield _judged(declared, "forced choice", "tools", _forced(result.forced), _FORCED)
    yield _judged(declared, "strict schema", "tools", _strict(result), _STRICT)
    yield _judged(declared, "streamed", "stream", _streamed(result), _STREAMED)


_Judged = tuple[ToolOutcome, str]
_UNHEARD: Final = "fix the cause of the error; `swapgate doctor` checks key, address and model"
_RESULTS: Final = "check whether its chat template keeps tool results, or propose another model"
_FORCED: Final = "do not send tool_choice to this target's routes, or propose another model"
_STRICT: Final = "check arguments in the tools, or propose a model that keeps to schemas"
_STREAMED: Final = "send requests with tools without `stream`, or propose another model"


def _judged(
    declared: _Declared,
    subject: str,
    capability: str,
    judged: _Judged,
    step: str = "",
) -> ToolFinding:
    """Compares an outcome with the declared capability, and proposes the next step.

    capability: its name in `Capabilities`. step: for a declared capability that fails; empty
    for declaring that it is missing.
    """
    outcome, found = judged
    has = declared.has(capability)
    works = outcome is ToolOutcome.WORKS
    next_step = ""
    failed = False
    if outcome is ToolOutcome.NOT_SEEN or (works and has):
        text = found
    elif works:
        text = f"{found}; {declared.describe(capability)} is declared"
        next_step = declared.setting(capability, to=True)
    elif not has:
        text = f"as declared: {found}"
    else:
        text = f"{declared.describe(capability)}; {found}"
        failed = True
        next_step = step or declared.setting(capability, to=False)
    return ToolFinding(subject, outcome, failed, text, next_step)


def _calls(loop: ToolLoopTrace) -> _Judged:
    """Judges whether the model calls offered tools with JSON objects."""
    if not loop.calls:
        why = loop.error or "it answers with text, but a tool call is required"
        return ToolOutcome.DOES_NOT, why
    for call in loop.calls:
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
    return (
        ToolOutcome.WORKS,
        f"{_count(len(loop.calls), 'call')} in {_count(sum(map(bool, loop.turns)), 'turn')}",
    )


def _parallel(declared: _Declared, loop: ToolLoopTrace) -> ToolFinding:
    """Judges whether the model calls several tools in one turn."""
    if not loop.calls:
        judged = ToolOutcome.NOT_SEEN, "it called no tool"
    elif (most := max(len(turn) for turn in loop.turns)) > 1:
        judged = ToolOutcome.WORKS, f"{most} calls in one turn"
    else:
        judged = ToolOutcome.ONE_AT_A_TIME, "one call at a time"
    return _judged(declared, "parallel calls", "parallel_tools", judged)


def _results(loop: ToolLoopTrace) -> _Judged:
    """Judges whether the last answer has the numbers that the tools returned."""
    if loop.calls and loop.error:
        return ToolOutcome.DOES_NOT, loop.error
    called = {call.name for call in loop.calls}
    if called.isdisjoint(TOOL_SCHEMAS):
        return ToolOutcome.NOT_SEEN, "it called none of the tools"
    text = _IN_NUMBER.sub("", loop.text)
    lost = sorted(name for name, number in TOOL_ANSWERS.items() if str(number) not in text)
    if not loop.text.strip():
        return (
            ToolOutcome.DOES_NOT,
            "its answer after the tools' results is empty",
        )
    if uncalled := [name for name in lost if name not in called]:
        return (
            ToolOutcome.DOES_NOT,
            f"it answers without calling {', '.join(uncalled)}",
        )
    if lost:
        return (
            ToolOutcome.DOES_NOT,
            f"its answer omits the result of {', '.join(lost)}",
        )
    return ToolOutcome.WORKS, "its answer has the results of both tools"


def _forced(loop: ToolLoopTrace | None) -> _Judged:
    """Judges whether the model obeys a forced tool choice."""
    if loop is None:
        return (
            ToolOutcome.NOT_SEEN,
            "not tried, because the first loop got no answer",
        )
    if loop.error:
        return ToolOutcome.DOES_NOT, loop.error
    called = {call.name for call in loop.calls}
    if called == {PRICE_TOOL}:
        return ToolOutcome.WORKS, f"it calls {PRICE_TOOL}, as required"
    instead = "another tool" if called else "no tool"
    unknown = called and called.isdisjoint(TOOL_SCHEMAS)
    outcome = ToolOutcome.OTHERS if unknown else ToolOutcome.DOES_NOT
    return outcome, f"it calls {instead}, although {PRICE_TOOL} is forced"


def _strict(result: ToolProbeResult) -> _Judged:
    """Judges whether arguments fit the tools' schemas, in all loops."""
    loops = [
        loop for loop in (result.whole, result.forced, result.streamed) if loop is not None
    ]
    known = [call for loop in loops for call in loop.calls if call.name in TOOL_SCHEMAS]
    if not known:
        return ToolOutcome.NOT_SEEN, "it called no tool"
    for name in known:
        if not matches_schema(read_object(name.arguments or "{}"), TOOL_SCHEMAS[name.name]):
            return (
                ToolOutcome.DOES_NOT,
                f"its arguments of {name.name} do not fit the schema",
            )
    return (
        ToolOutcome.WORKS,
        f"the arguments of {_count(len(known), 'call')} fit the schemas",
    )


def _streamed(result: ToolProbeResult) -> _Judged:
    """Judges whether the pieces of streamed calls form JSON objects."""
    loop = result.streamed
    if loop is None:
        return (
            ToolOutcome.NOT_SEEN,
            "not tried, because the first loop got no answer",
        )
    if loop.error:
        outcome = ToolOutcome.DOES_NOT if loop.turns else ToolOutcome.NO_ANSWER
        return outcome, loop.error
    if not loop.calls and not result.whole.calls:
        return (
            ToolOutcome.NOT_SEEN,
            "it called no tool, with a stream or without",
        )
    outcome, found = _calls(loop)
    if outcome is not ToolOutcome.WORKS:
        return outcome, f"in a stream {found}"
    return (
        outcome,
        f"the pieces of {_count(len(loop.calls), 'call')} form JSON",
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
