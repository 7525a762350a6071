"""Judges the answer to each request of `swapgate doctor --live`. A finding describes an
answer's structure, and never quotes its text.

Pure: `live_checks` sends the requests.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from harness.client.types import CompletionResponse, StreamChunk, Usage
from harness.frame.failures import FailureClass
from harness.frame.matching import matches_schema

ANSWER_LIMIT: Final = 1_024  # tokens of an answer, unless a scenario overrides it
SHORT_LIMIT: Final = 16
QUESTION: Final = "Reply with the one word: ready"
_CITY_SCHEMA: Final = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
# Every provider refuses a negative temperature. The router lowers one that is too high.
_WRONG_TEMPERATURE: Final = -1
_NAME: Final = re.compile(r"[A-Za-z0-9._:/@-]{1,80}")


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
    next_step: str = ""  # empty if there is no next step


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """A provider's answer or failure. chunks: of a stream; empty for an answer in one piece."""

    response: CompletionResponse | None = None  # None if the request failed
    chunks: Sequence[StreamChunk] = ()
    failure: str = ""  # the router's failure class; empty for an answer
    status: int | None = None  # the provider's HTTP status for a failure, if it sent one

    @property
    def usage(self) -> Usage | None:
        return self.response.usage if self.response else None

    @property
    def counts(self) -> str:
        used = self.usage
        return f"{used.input_tokens:,} tokens in, {used.output_tokens:,} out" if used else ""

    @property
    def models(self) -> Sequence[str]:
        names = [chunk.model for chunk in self.chunks] if self.chunks else []
        names = names or ([self.response.model] if self.response else [])
        return list(dict.fromkeys(filter(None, names)))

    @property
    def failure_text(self) -> str:
        status = f"status {self.status}" if self.status else "no status"
        return f"{self.failure.replace('_', ' ')} ({status})"


_Judged = tuple[LiveOutcome, str, str]
_Judge = Callable[[LiveAnswer, CompletionResponse, str], _Judged]
_REPORT: Final = "report it as an issue of Swapgate, with this line"
_NO_USAGE: Final = "its costs are unknown, so budgets and the cost guardrail do not work"
_PIN: Final = "propose the model under that name, so that you evaluate the model that serves"
_UNNAMED: Final = "nothing to do, but you cannot check which model you evaluate"
_SEVERAL: Final = "ask the provider: you cannot know which of them you evaluate"
_STEPS: Final[Mapping[str, str]] = {
    FailureClass.OUR_KEY: "set the key: `swapgate provider key set PROVIDER`",
    FailureClass.QUOTA: "check the account's credit and the key's rights",
    FailureClass.MODEL_UNKNOWN: "use a model that this account has",
    FailureClass.RATE_LIMITED: "run it again after the limit ends",
    FailureClass.OVERLOADED: "run it again later",
    FailureClass.CONNECT: "check api_base and the network: `swapgate doctor`",
    FailureClass.TIMEOUT: "allow more time with --timeout",
    FailureClass.BAD_REQUEST: "see docs/reference/providers.md for what the kind accepts",
}


def _works(found: str) -> _Judged:
    return LiveOutcome.WORKS, found, ""


def _fails(found: str, step: str = _REPORT) -> _Judged:
    return LiveOutcome.FAILS, found, step


def _differs(found: str, step: str = "nothing to do") -> _Judged:
    return LiveOutcome.DIFFERS, found, step


def _plain(answer: LiveAnswer, response: CompletionResponse, model: str) -> _Judged:
    """Judges an ordinary answer: text, finish reason, usage, and the name of the model that
    answered.
    """
    used = response.usage
    if not response.text.strip():
        return _fails("the answer has no text", "raise the model's limit, or report it")
    if response.finish_reason != "stop":
        return _fails(f"the finish reason is {_word(response.finish_reason)}")
    if used is None or min(used.input_tokens, used.output_tokens) <= 0:
        return _fails(f"it reports {answer.counts or 'no usage'}", _NO_USAGE)
    if not answer.models:
        return _differs("it does not name the model that answered", _UNNAMED)
    if others := [name for name in answer.models if not name.startswith(model)]:
        known = _NAME.fullmatch(others[0])
        shown = others[0] if known else "another model with an unusual name"
        return _differs(f"it says that {shown} answered", _PIN)
    return _works(answer.counts)


def _length(answer: LiveAnswer, response: CompletionResponse, _model: str) -> _Judged:
    """Judges an answer that a limit should have cut off. The limit works if the provider counts
    no more than `SHORT_LIMIT` tokens, and says that it cut the answer off.
    """
    output = response.usage.output_tokens if response.usage else None
    if output is not None and output > SHORT_LIMIT:
        return _fails(
            f"{output:,} tokens, although the limit is {SHORT_LIMIT}: the model ignores it",
            "set a spending limit at the provider: no budget can stop a single long answer",
        )
    if response.finish_reason == "length":
        return _works(answer.counts or "cut off; it reports no usage")
    if output is not None and output < SHORT_LIMIT:
        return _differs(f"it ended by itself after {output} tokens, so no cut-off occurred")
    return _fails(
        f"the answer was cut off, but its finish reason is {_word(response.finish_reason)}",
        "clients cannot see a cut-off: let a suite check the end of answers",
    )


def _stream(answer: LiveAnswer, response: CompletionResponse, model: str) -> _Judged:
    """Judges a stream as an ordinary answer, and then its pieces and the place of the usage."""
    plain = _plain(answer, response, model)
    if plain[0] is not LiveOutcome.FAILS and len(answer.models) > 1:
        return _fails("its chunks name several models", _SEVERAL)
    if plain[0] is not LiveOutcome.WORKS:
        return plain
    if answer.chunks[-1].usage is None:
        return _differs("usage comes before the end")
    pieces = sum(bool(chunk.text) for chunk in answer.chunks)
    if pieces < 2:
        return _differs(
            "the whole text comes in one chunk", "do not expect an early first token"
        )
    return _works(f"{pieces} chunks, {answer.counts}")


def _structured(_: LiveAnswer, response: CompletionResponse, _model: str) -> _Judged:
    step = "set json_schema: false for this model in swapgate.yaml"
    try:
        value = json.loads(response.text)
    except (ValueError, RecursionError):
        return _fails("the answer is not JSON", step)
    if not matches_schema(value, _CITY_SCHEMA):
        return _fails("the JSON does not match the schema", step)
    return _works("JSON that fits")


def _accepted(what: str) -> _Judge:
    """Judges an answer to a request that the provider should have refused."""
    return lambda *_: _differs(what, "do not rely on this error from the provider")


def _word(finish: str) -> str:
    if finish in ("stop", "length", "tool_calls", "content_filter"):
        return finish
    return "unknown in the protocol" if finish else "missing"


@dataclass(frozen=True, slots=True)
class LiveScenario:
    """A request, and how its answer is judged. judge: gets the answer, the response and the
    model.
    """

    name: str
    expected: str
    judge: _Judge
    question: str = QUESTION
    fields: Mapping[str, object] = field(default_factory=dict)  # additional request fields
    streamed: bool = False
    limit: int | None = None  # the answer's maximum tokens, if it is not ANSWER_LIMIT
    refused_as: FailureClass | None = None  # the expected failure class

    def find(self, answer: LiveAnswer, model: str) -> LiveFinding:
        """Judges an answer. model: the model that was asked, which the provider should name."""
        if answer.response is not None:
            judged = self.judge(answer, answer.response, model)
        elif self.refused_as is None:
            judged = _fails(answer.failure_text, _STEPS.get(answer.failure, _REPORT))
        elif answer.failure == self.refused_as:
            judged = _works(answer.failure_text)
        else:
            expected = self.refused_as.value.replace("_", " ")
            judged = _fails(f"{answer.failure_text}; {expected} was expected")
        outcome, found, step = judged
        return LiveFinding(self.name, outcome, self.expected, found, step)

    def untried(self, why: str = "the plain answer failed") -> LiveFinding:
        return LiveFinding(self.name, LiveOutcome.NOT_TRIED, self.expected, f"not tried: {why}")


STRUCTURED: Final = LiveScenario(
    "structured output",
    "JSON that fits the schema",
    _structured,
    "Which city is the capital of Norway? Answer as JSON.",
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "city", "strict": True, "schema": _CITY_SCHEMA},
        }
    },
)
# The scenarios that test the model, in the order in which doctor runs them.
SCENARIOS: Final = (
    LiveScenario(
        "plain answer", "text, finish reason stop, usage above 0, the model's name", _plain
    ),
    LiveScenario(
        "length stop",
        f"finish reason length, at most {SHORT_LIMIT} tokens",
        _length,
        "Count from one to two hundred, in words, without a break.",
        limit=SHORT_LIMIT,
    ),
    LiveScenario(
        "stream",
        "several chunks, finish reason stop, usage at the end, the same model",
        _stream,
        streamed=True,
    ),
    STRUCTURED,
    LiveScenario(
        "wrong parameter",
        "refused with a 400, which a router returns to the client",
        _accepted(f"it answers with temperature {_WRONG_TEMPERATURE}"),
        fields={"temperature": _WRONG_TEMPERATURE},
        refused_as=FailureClass.BAD_REQUEST,
    ),
)
UNKNOWN_MODEL: Final = LiveScenario(
    "unknown model",
    "refused as an unknown model: a router alerts and uses the next target",
    _accepted("it answers a request for a model that does not exist"),
    refused_as=FailureClass.MODEL_UNKNOWN,
)
