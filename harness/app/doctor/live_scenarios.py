"""Judges the answer to each request of `swapproof doctor --live`. A finding describes an
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
# Every provider refuses a negative temperature. The router itself lowers a temperature that is
# too high.
_WRONG_TEMPERATURE: Final = -1
_USUAL_NAME: Final = re.compile(r"[A-Za-z0-9._:/@-]{1,80}")


class LiveOutcome(StrEnum):
    WORKS = "works"
    DIFFERS = "differs"  # not as expected, but Swapproof can serve with it
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
    """A provider's answer or failure. chunks: the pieces of a stream; empty for an answer in
    one piece.
    """

    response: CompletionResponse | None = None  # None if the request failed
    chunks: Sequence[StreamChunk] = ()
    failure: str = ""  # the router's failure class; empty for an answer
    status: int | None = None  # the provider's HTTP status for a failure, if it sent one

    @property
    def usage(self) -> Usage | None:
        return self.response.usage if self.response else None

    @property
    def counts(self) -> str:
        usage = self.usage
        return f"{usage.input_tokens:,} tokens in, {usage.output_tokens:,} out" if usage else ""

    @property
    def models(self) -> Sequence[str]:
        names = [chunk.model for chunk in self.chunks] if self.chunks else []
        names = names or ([self.response.model] if self.response else [])
        return list(dict.fromkeys(filter(None, names)))

    @property
    def failure_text(self) -> str:
        status = f"status {self.status}" if self.status else "no status"
        return f"{self.failure.replace('_', ' ')} ({status})"


_Judgement = tuple[LiveOutcome, str, str]
_Judge = Callable[[LiveAnswer, CompletionResponse, str], _Judgement]
_REPORT_STEP: Final = "report it as an issue of Swapproof, with this line"
_NO_USAGE_STEP: Final = "its costs are unknown, so budgets and the cost guardrail do not work"
_PIN_STEP: Final = (
    "propose the model under that name, so that you evaluate the model that serves"
)
_UNNAMED_STEP: Final = "nothing to do, but you cannot check which model you evaluate"
_SEVERAL_STEP: Final = "ask the provider: you cannot know which of them you evaluate"
_STEPS: Final[Mapping[str, str]] = {
    FailureClass.OUR_KEY: "set the key: `swapproof provider key set PROVIDER`",
    FailureClass.QUOTA: "check the account's credit and the key's rights",
    FailureClass.MODEL_UNKNOWN: "use a model that this account has",
    FailureClass.RATE_LIMITED: "run it again after the limit ends",
    FailureClass.OVERLOADED: "run it again later",
    FailureClass.CONNECT: "check api_base and the network: `swapproof doctor`",
    FailureClass.TIMEOUT: "allow more time with --timeout",
    FailureClass.BAD_REQUEST: "see docs/reference/providers.md for what the kind accepts",
}


def _report_works(finding: str) -> _Judgement:
    return LiveOutcome.WORKS, finding, ""


def _report_fails(finding: str, step: str = _REPORT_STEP) -> _Judgement:
    return LiveOutcome.FAILS, finding, step


def _report_differs(finding: str, step: str = "nothing to do") -> _Judgement:
    return LiveOutcome.DIFFERS, finding, step


def _judge_plain(
    answer: LiveAnswer,
    response: CompletionResponse,
    model: str,
) -> _Judgement:
    """Judges an ordinary answer: text, finish reason, usage, and the name of the model that
    answered.
    """
    usage = response.usage
    if not response.text.strip():
        return _report_fails("the answer has no text", "raise the model's limit, or report it")
    if response.finish_reason != "stop":
        return _report_fails(f"the finish reason is {_describe_finish(response.finish_reason)}")
    if usage is None or min(usage.input_tokens, usage.output_tokens) <= 0:
        return _report_fails(f"it reports {answer.counts or 'no usage'}", _NO_USAGE_STEP)
    if not answer.models:
        return _report_differs("it does not name the model that answered", _UNNAMED_STEP)
    if other_names := [name for name in answer.models if not name.startswith(model)]:
        is_usual = _USUAL_NAME.fullmatch(other_names[0])
        shown_name = other_names[0] if is_usual else "another model with an unusual name"
        return _report_differs(f"it says that {shown_name} answered", _PIN_STEP)
    return _report_works(answer.counts)


def _judge_length(
    answer: LiveAnswer,
    response: CompletionResponse,
    _model: str,
) -> _Judgement:
    """Judges an answer that a limit should have cut off. The limit works if the provider counts
    no more than `SHORT_LIMIT` tokens, and says that it cut the answer off.
    """
    output = response.usage.output_tokens if response.usage else None
    if output is not None and output > SHORT_LIMIT:
        return _report_fails(
            f"{output:,} tokens, although the limit is {SHORT_LIMIT}: the model ignores it",
            "set a spending limit at the provider: no budget can stop a single long answer",
        )
    if response.finish_reason == "length":
        return _report_works(answer.counts or "cut off; it reports no usage")
    if output is not None and output < SHORT_LIMIT:
        return _report_differs(
            f"it ended by itself after {output} tokens, so no cut-off occurred"
        )
    return _report_fails(
        (
            "the answer was cut off, but its finish reason is "
            f"{_describe_finish(response.finish_reason)}"
        ),
        "clients cannot see a cut-off: let a suite check the end of answers",
    )


def _judge_stream(
    answer: LiveAnswer,
    response: CompletionResponse,
    model: str,
) -> _Judgement:
    """Judges a stream as an ordinary answer, then its pieces and the place of the usage."""
    judgement = _judge_plain(answer, response, model)
    if judgement[0] is not LiveOutcome.FAILS and len(answer.models) > 1:
        return _report_fails("its chunks name several models", _SEVERAL_STEP)
    if judgement[0] is not LiveOutcome.WORKS:
        return judgement
    if answer.chunks[-1].usage is None:
        return _report_differs("usage comes before the end")
    text_chunks = sum(bool(chunk.text) for chunk in answer.chunks)
    if text_chunks < 2:
        return _report_differs(
            "the whole text comes in one chunk",
            "do not expect an early first token",
        )
    return _report_works(f"{text_chunks} chunks, {answer.counts}")


def _judge_structured(
    _: LiveAnswer,
    response: CompletionResponse,
    _model: str,
) -> _Judgement:
    step = "set json_schema: false for this model in swapproof.yaml"
    try:
        value = json.loads(response.text)
    except (ValueError, RecursionError):
        return _report_fails("the answer is not JSON", step)
    if not matches_schema(value, _CITY_SCHEMA):
        return _report_fails("the JSON does not match the schema", step)
    return _report_works("JSON that fits")


def _judge_unexpected(finding: str) -> _Judge:
    """Judges an answer to a request that the provider should have refused."""
    return lambda *_: _report_differs(finding, "do not rely on this error from the provider")


def _describe_finish(finish: str) -> str:
    if finish in ("stop", "length", "tool_calls", "content_filter"):
        return finish
    return "unknown in the protocol" if finish else "missing"


@dataclass(frozen=True, slots=True)
class LiveScenario:
    """A request, and the judgement of its answer. judge: gets the answer, the response and the
    model's name.
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
        """Judges an answer.

        Args:
            model: the model that was asked, which the provider should name.
        """
        if answer.response is not None:
            judgement = self.judge(answer, answer.response, model)
        elif self.refused_as is None:
            judgement = _report_fails(
                answer.failure_text, _STEPS.get(answer.failure, _REPORT_STEP)
            )
        elif answer.failure == self.refused_as:
            judgement = _report_works(answer.failure_text)
        else:
            expected = self.refused_as.value.replace("_", " ")
            judgement = _report_fails(f"{answer.failure_text}; {expected} was expected")
        outcome, found, step = judgement
        return LiveFinding(self.name, outcome, self.expected, found, step)

    def skip(self, reason: str = "the plain answer failed") -> LiveFinding:
        return LiveFinding(
            self.name,
            LiveOutcome.NOT_TRIED,
            self.expected,
            f"not tried: {reason}",
        )


STRUCTURED: Final = LiveScenario(
    "structured output",
    "JSON that fits the schema",
    _judge_structured,
    "Which city is the capital of Norway? Answer as JSON.",
    {
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "city",
                "strict": True,
                "schema": _CITY_SCHEMA,
            },
        }
    },
)
# The scenarios that test the model, in the order in which doctor runs them.
SCENARIOS: Final = (
    LiveScenario(
        "plain answer",
        "text, finish reason stop, usage above 0, the model's name",
        _judge_plain,
    ),
    LiveScenario(
        "length stop",
        f"finish reason length, at most {SHORT_LIMIT} tokens",
        _judge_length,
        "Count from one to two hundred, in words, without a break.",
        limit=SHORT_LIMIT,
    ),
    LiveScenario(
        "stream",
        "several chunks, finish reason stop, usage at the end, the same model",
        _judge_stream,
        streamed=True,
    ),
    STRUCTURED,
    LiveScenario(
        "wrong parameter",
        "refused with a 400, which a router returns to the client",
        _judge_unexpected(f"it answers with temperature {_WRONG_TEMPERATURE}"),
        fields={"temperature": _WRONG_TEMPERATURE},
        refused_as=FailureClass.BAD_REQUEST,
    ),
)
UNKNOWN_MODEL: Final = LiveScenario(
    "unknown model",
    "refused as an unknown model: a router alerts and uses the next target",
    _judge_unexpected("it answers a request for a model that does not exist"),
    refused_as=FailureClass.MODEL_UNKNOWN,
)
