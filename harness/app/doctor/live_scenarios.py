"""The scenarios of `swapgate doctor --live`: what each asks and expects, and how its answer is
read and judged. It keeps the form of an answer, and no more of its words than that takes.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from harness.client.response_parsing import parse_chunk, parse_completion
from harness.client.types import Served, Usage
from harness.domain.errors import CallFailed
from harness.domain.json_schema import matches_schema
from harness.domain.plain_data import read_object
from harness.domain.reliability.failures import FailureClass
from harness.domain.sse import EventPayloads, EventTooLarge

ANSWER_LIMIT: Final = 1_024  # tokens of an answer, unless a scenario says another
SHORT_LIMIT: Final = 16
QUESTION: Final = "Reply with the one word: ready"
_LONG_QUESTION: Final = "Count from one to two hundred, in words, without a break."
_CITY_QUESTION: Final = "Which city is the capital of Norway? Answer as JSON."
_CITY_SCHEMA: Final = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
_CITY: Final = {"name": "city", "strict": True, "schema": _CITY_SCHEMA}
# Below any range; what is too hot for a kind, the router itself makes less so.
_WRONG_TEMPERATURE: Final = -1
_NAME: Final = re.compile(r"[A-Za-z0-9._:/@-]{1,80}")
_OURS: Final = "refused by the router"


class LiveOutcome(StrEnum):
    WORKS = "works"
    DIFFERS = "differs"  # not as expected, but Swapgate can serve with it
    FAILS = "fails"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class LiveFinding:
    scenario: str
    outcome: LiveOutcome
    expected: str
    found: str
    next_step: str = ""  # empty for none


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    status: int | None  # the provider's; None where it gave none
    failure: str = ""  # the class that the router holds it for; empty for an answer
    text: str = field(default="", repr=False)
    finish: str = ""
    usage: Usage | None = None
    models: Sequence[str] = field(default=(), repr=False)  # each name that it gives itself
    chunks: int = 0  # with text
    usage_last: bool = False


def read_answer(status: int, headers: Mapping[str, str], body: bytes) -> LiveAnswer:
    """Reads an answer of a router with one target. Raises CallFailed where it cannot."""
    if headers.get("content-type", "").startswith("text/event-stream"):
        return _read_stream(body)
    if status != 200:
        return _read_refusal(status, headers.get("x-swapgate-attempts", ""), body)
    whole = parse_completion(body, Served())
    return LiveAnswer(
        200,
        "",
        whole.text,
        whole.finish_reason,
        whole.usage,
        (whole.model,) * bool(whole.model),
    )


def _read_stream(body: bytes) -> LiveAnswer:
    payloads = EventPayloads()
    try:
        data = [*payloads.read(body), *payloads.rest()]
    except EventTooLarge as why:
        raise CallFailed(f"the stream cannot be read: {why}") from None
    events = [read_object(payload) or {} for payload in data if payload != b"[DONE]"]
    for event in events:
        if error := event.get("error"):
            code = str(error.get("code")) if isinstance(error, dict) else ""
            return LiveAnswer(None, code if code in set(FailureClass) else "malformed")
    chunks = [parse_chunk(event) for event in events]
    return LiveAnswer(
        200,
        text="".join(chunk.text for chunk in chunks),
        finish=next((c.finish_reason for c in reversed(chunks) if c.finish_reason), ""),
        usage=next((chunk.usage for chunk in reversed(chunks) if chunk.usage), None),
        models=tuple(dict.fromkeys(chunk.model for chunk in chunks if chunk.model)),
        chunks=sum(bool(chunk.text) for chunk in chunks),
        usage_last=bool(chunks) and chunks[-1].usage is not None,
    )


def _read_refusal(status: int, attempts: str, body: bytes) -> LiveAnswer:
    error = (read_object(body) or {}).get("error")
    tried = error.get("attempts") if isinstance(error, dict) else None
    last = tried[-1] if isinstance(tried, list) and tried else None
    if isinstance(last, dict) and last.get("failure") in set(FailureClass):
        said = last.get("status")
        return LiveAnswer(said if isinstance(said, int) else None, str(last["failure"]))
    # The provider's own words and status are what a client's mistake is answered with.
    ours = attempts in ("", "0")
    return LiveAnswer(status, _OURS if ours else FailureClass.BAD_REQUEST.value)


_Judged = tuple[LiveOutcome, str, str]
_Judge = Callable[[LiveAnswer, str], _Judged]
_REPORT: Final = "report it as an issue of Swapgate, with this line"
_NO_USAGE: Final = "its costs stay unknown, so that budgets and the cost guardrail do not work"
_PIN: Final = (
    "propose the model under that name, so that the proof is about the model that serves"
)
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


def _works(found: str) -> _Judged:
    return LiveOutcome.WORKS, found, ""


def _fails(found: str, step: str = _REPORT) -> _Judged:
    return LiveOutcome.FAILS, found, step


def _differs(found: str, step: str) -> _Judged:
    return LiveOutcome.DIFFERS, found, step


def _class_text(answer: LiveAnswer) -> str:
    status = f"status {answer.status}" if answer.status else "no status"
    return f"{answer.failure.replace('_', ' ')} ({status})"


def _refused_as(wanted: FailureClass, accepted: str) -> _Judge:
    """accepted: what it means where the provider answers instead."""

    def judge(answer: LiveAnswer, _model: str) -> _Judged:
        if answer.failure == wanted:
            return _works(_class_text(answer))
        if not answer.failure:
            return _differs(accepted, "do not rely on this error from the provider")
        expected = wanted.value.replace("_", " ")
        return _fails(f"{_class_text(answer)}; {expected} was expected")

    return judge


def _usage_fault(answer: LiveAnswer) -> str:
    usage = answer.usage
    if usage is None:
        return "it reports no usage"
    if usage.input_tokens <= 0 or usage.output_tokens <= 0:
        return f"it reports {usage.input_tokens} tokens in and {usage.output_tokens} out"
    return ""


def _counts(answer: LiveAnswer) -> str:
    usage = answer.usage
    return f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out" if usage else ""


def _name_fault(answer: LiveAnswer, model: str) -> str:
    if not answer.models:
        return "it does not say which model answered"
    others = [name for name in answer.models if not name.startswith(model)]
    if not others:
        return ""
    shown = others[0] if _NAME.fullmatch(others[0]) else "another model, by an unusual name,"
    return f"it says that {shown} answered"


def _plain(answer: LiveAnswer, model: str) -> _Judged:
    if not answer.text.strip():
        return _fails("the answer has no text", "raise the model's limit, or report it")
    if answer.finish != "stop":
        return _fails(f"the finish reason is {_word(answer.finish)}")
    if fault := _usage_fault(answer):
        return _fails(fault, _NO_USAGE)
    if fault := _name_fault(answer, model):
        return _differs(fault, _PIN)
    return _works(_counts(answer))


def _length(answer: LiveAnswer, _model: str) -> _Judged:
    output = answer.usage.output_tokens if answer.usage else None
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


def _stream(answer: LiveAnswer, model: str) -> _Judged:
    plain = _plain(answer, model)
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


def _structured(answer: LiveAnswer, _model: str) -> _Judged:
    step = "set json_schema: false for this model in swapgate.yaml"
    try:
        value = json.loads(answer.text)
    except (ValueError, RecursionError):
        return _fails("the answer is no JSON", step)
    if not matches_schema(value, _CITY_SCHEMA):
        return _fails("the JSON does not fit the schema", step)
    return _works("JSON that fits")


def _word(finish: str) -> str:
    if finish in ("stop", "length", "tool_calls", "content_filter"):
        return finish
    return "one that the protocol does not have" if finish else "missing"


@dataclass(frozen=True, slots=True)
class LiveScenario:
    name: str
    expected: str
    judge: _Judge
    question: str = QUESTION
    fields: Mapping[str, object] = field(default_factory=dict)  # of the request, beside it
    limit: int | None = None  # tokens of the answer, where it is not ANSWER_LIMIT
    refused: bool = False  # the provider is expected to refuse it

    def find(self, answer: LiveAnswer, asked_model: str) -> LiveFinding:
        """Compares an answer with what is expected of it."""
        if answer.failure and not self.refused:
            judged = _fails(_class_text(answer), _STEPS.get(answer.failure, _REPORT))
        else:
            judged = self.judge(answer, asked_model)
        outcome, found, step = judged
        return LiveFinding(self.name, outcome, self.expected, found, step)


STRUCTURED: Final = LiveScenario(
    "structured output",
    "JSON that fits the schema",
    _structured,
    _CITY_QUESTION,
    {"response_format": {"type": "json_schema", "json_schema": _CITY}},
)
# Of the model itself, in their order.
SCENARIOS: Final = (
    LiveScenario(
        "plain answer", "text, finish reason stop, usage above 0, the model's name", _plain
    ),
    LiveScenario(
        "length stop",
        f"finish reason length, at most {SHORT_LIMIT} tokens",
        _length,
        _LONG_QUESTION,
        limit=SHORT_LIMIT,
    ),
    LiveScenario(
        "stream",
        "several chunks, finish reason stop, usage at the end, the same model",
        _stream,
        fields={"stream": True, "stream_options": {"include_usage": True}},
    ),
    STRUCTURED,
    LiveScenario(
        "wrong parameter",
        "refused with a 400, which a router returns to the client",
        _refused_as(
            FailureClass.BAD_REQUEST, f"it answers with temperature {_WRONG_TEMPERATURE}"
        ),
        fields={"temperature": _WRONG_TEMPERATURE},
        refused=True,
    ),
)
# Of a model that the provider does not have.
UNKNOWN_MODEL: Final = LiveScenario(
    "unknown model",
    "refused as an unknown model: a router alerts and asks the next target",
    _refused_as(
        FailureClass.MODEL_UNKNOWN, "it answers a request for a model that does not exist"
    ),
    refused=True,
)
UNKNOWN_SUFFIX: Final = "-swapgate-no-such-model"
