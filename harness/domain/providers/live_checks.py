"""Live checks judge a provider's answers in `swapgate doctor --live`, one finding a scenario.
Pure.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from harness.domain.json_schema import matches_schema
from harness.domain.providers.live_answer import LiveAnswer
from harness.domain.reliability.failures import FailureClass

ANSWER_LIMIT: Final = 1_024  # tokens of an answer, unless a scenario says another
SHORT_LIMIT: Final = 16
QUESTION: Final = "Reply with the one word: ready"
LONG_QUESTION: Final = "Count from one to two hundred, in words, without a break."
CITY_QUESTION: Final = "Which city is the capital of Norway? Answer as JSON."
CITY_SCHEMA: Final = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
# Below any range; what is too hot for a kind, the router itself makes less so.
WRONG_TEMPERATURE: Final = -1
UNKNOWN_SUFFIX: Final = "-swapgate-no-such-model"
_NAME: Final = re.compile(r"[A-Za-z0-9._:/@-]{1,80}")


class LiveOutcome(StrEnum):
    WORKS = "works"
    DIFFERS = "differs"  # not as expected, but Swapgate can serve with it
    FAILS = "fails"
    NOT_TRIED = "not tried"


class LiveScenario(StrEnum):
    ANSWER = "plain answer"
    LENGTH = "length stop"
    STREAM = "stream"
    STRUCTURED = "structured output"
    PARAMETER = "wrong parameter"
    MODEL = "unknown model"


EXPECTED: Final[Mapping[LiveScenario, str]] = {
    LiveScenario.ANSWER: "text, finish reason stop, usage above 0, the model's name",
    LiveScenario.LENGTH: f"finish reason length, at most {SHORT_LIMIT} tokens",
    LiveScenario.STREAM: "several chunks, finish reason stop, usage at the end, the same model",
    LiveScenario.STRUCTURED: "JSON that fits the schema",
    LiveScenario.PARAMETER: "refused with a 400, which a router returns to the client",
    LiveScenario.MODEL: "refused as an unknown model: a router alerts and asks the next target",
}
_CLASS: Final[Mapping[LiveScenario, FailureClass]] = {
    LiveScenario.PARAMETER: FailureClass.BAD_REQUEST,
    LiveScenario.MODEL: FailureClass.MODEL_UNKNOWN,
}
_ACCEPTED: Final[Mapping[LiveScenario, str]] = {
    LiveScenario.PARAMETER: f"it answers with temperature {WRONG_TEMPERATURE}",
    LiveScenario.MODEL: "it answers a request for a model that does not exist",
}
_REPORT: Final = "report it as an issue of Swapgate, with this line"
_NO_USAGE: Final = "its costs stay unknown, so that budgets and the cost guardrail do not work"
_STEPS: Final[Mapping[str, str]] = {
    FailureClass.OUR_KEY: "set the key: `swapgate provider key set PROVIDER`",
    FailureClass.QUOTA: "check the account: its credit, and what the key may do",
    FailureClass.MODEL_UNKNOWN: "name a model that this account has",
    FailureClass.RATE_LIMITED: "run it again once the limit is over",
    FailureClass.OVERLOADED: "run it again later",
    FailureClass.CONNECT: "check api_base and the network: `swapgate doctor`",
    FailureClass.TIMEOUT: "allow more time with --timeout",
    FailureClass.BAD_REQUEST: "see docs/reference/providers.md for what the kind accepts",
}


@dataclass(frozen=True, slots=True)
class LiveFinding:
    """Holds how a provider did in one scenario."""

    scenario: str
    outcome: LiveOutcome
    expected: str
    found: str
    next_step: str = ""  # empty for none


_Judged = tuple[LiveOutcome, str, str]


def judge_answer(scenario: LiveScenario, answer: LiveAnswer, asked_model: str) -> LiveFinding:
    """Compares an answer with what the scenario expects of it."""
    if scenario in _CLASS:
        judged = _judge_refusal(scenario, answer)
    elif answer.failure:
        judged = _fails(_class_text(answer), _STEPS.get(answer.failure, _REPORT))
    else:
        judged = _JUDGES[scenario](answer, asked_model)
    outcome, found, step = judged
    return LiveFinding(scenario.value, outcome, EXPECTED[scenario], found, step)


def untried(scenario: str, expected: str, why: str) -> LiveFinding:
    """A finding on a scenario that was left out."""
    return LiveFinding(scenario, LiveOutcome.NOT_TRIED, expected, f"not tried: {why}")


def _works(found: str) -> _Judged:
    return LiveOutcome.WORKS, found, ""


def _fails(found: str, step: str = _REPORT) -> _Judged:
    return LiveOutcome.FAILS, found, step


def _differs(found: str, step: str) -> _Judged:
    return LiveOutcome.DIFFERS, found, step


def _class_text(answer: LiveAnswer) -> str:
    status = f"status {answer.status}" if answer.status else "no status"
    return f"{answer.failure.replace('_', ' ')} ({status})"


def _judge_refusal(scenario: LiveScenario, answer: LiveAnswer) -> _Judged:
    wanted = _CLASS[scenario]
    if answer.failure == wanted:
        return _works(_class_text(answer))
    if not answer.failure:
        step = "do not rely on this error from the provider"
        return _differs(_ACCEPTED[scenario], step)
    came = _class_text(answer)
    return _fails(f"{came}; {wanted.value.replace('_', ' ')} was expected")


def _usage_fault(answer: LiveAnswer) -> str:
    tokens = answer.tokens
    if tokens is None:
        return "it reports no usage"
    if tokens.input <= 0 or tokens.output <= 0:
        return f"it reports {tokens.input} tokens in and {tokens.output} out"
    return ""


def _counts(answer: LiveAnswer) -> str:
    tokens = answer.tokens
    return f"{tokens.input:,} tokens in, {tokens.output:,} out" if tokens else ""


def _name_fault(answer: LiveAnswer, model: str) -> str:
    names = [name for name in answer.models if name]
    if not names:
        return "it does not say which model answered"
    others = [name for name in names if not name.startswith(model)]
    if not others:
        return ""
    shown = others[0] if _NAME.fullmatch(others[0]) else "another model, by an unusual name,"
    return f"it says that {shown} answered"


_PIN: Final = (
    "propose the model under that name, so that the proof is about the model that serves"
)


def _judge_plain(answer: LiveAnswer, model: str) -> _Judged:
    if not answer.text.strip():
        return _fails("the answer has no text", "raise the model's limit, or report it")
    if answer.finish != "stop":
        return _fails(f"the finish reason is {_word(answer.finish)}")
    if fault := _usage_fault(answer):
        return _fails(fault, _NO_USAGE)
    if fault := _name_fault(answer, model):
        return _differs(fault, _PIN)
    return _works(_counts(answer))


def _judge_length(answer: LiveAnswer, _model: str) -> _Judged:
    output = answer.tokens.output if answer.tokens else None
    if output is not None and output > SHORT_LIMIT:
        return _fails(
            f"{output:,} tokens, though {SHORT_LIMIT} were allowed: it ignores the limit",
            "set a spending limit at the provider: no budget can stop a single long answer",
        )
    if answer.finish == "length":
        return _works(_counts(answer) or "cut off; it reports no usage")
    if output is not None and output < SHORT_LIMIT:
        return _differs(
            f"it ended by itself after {output} tokens, so no cut-off was observed",
            "nothing to do",
        )
    return _fails(
        f"it was cut off, but its finish reason is {_word(answer.finish)}",
        "cut-off answers look complete: check the end of answers in a suite",
    )


def _judge_stream(answer: LiveAnswer, model: str) -> _Judged:
    plain = _judge_plain(answer, model)
    if plain[0] is LiveOutcome.FAILS:
        return plain
    if len(answer.models) > 1:
        return _fails("its chunks name several models", _PIN)
    if plain[0] is LiveOutcome.DIFFERS:
        return plain
    if not answer.usage_last:
        return _differs("usage comes before the end", "nothing to do")
    if answer.chunks < 2:
        return _differs(
            "the whole text comes in one chunk", "do not expect an early first token"
        )
    return _works(f"{answer.chunks} chunks, {_counts(answer)}")


def _judge_structured(answer: LiveAnswer, _model: str) -> _Judged:
    step = "set json_schema: false for this model in swapgate.yaml"
    try:
        value = json.loads(answer.text)
    except (ValueError, RecursionError):
        return _fails("the answer is no JSON", step)
    if not matches_schema(value, CITY_SCHEMA):
        return _fails("the JSON does not fit the schema", step)
    return _works("JSON that fits")


def _word(finish: str) -> str:
    if finish in ("stop", "length", "tool_calls", "content_filter"):
        return finish
    return "one that the protocol does not have" if finish else "missing"


_JUDGES: Final = {
    LiveScenario.ANSWER: _judge_plain,
    LiveScenario.LENGTH: _judge_length,
    LiveScenario.STREAM: _judge_stream,
    LiveScenario.STRUCTURED: _judge_structured,
}
