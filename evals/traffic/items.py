"""Writes drawn records as the items of a suite. Pure.

An item's target is the answer that the user got, in the form in which a run stores answers
(`evals.runner.questions.answer_text`). The item asks with the request's own settings.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from evals.runner.questions import answer_text
from evals.scorers import AnswerToolCall
from evals.suites.conversation import FIELDS, check_fields, check_messages, find_input_text
from evals.suites.items import TURN
from evals.traffic.draw import DrawnRecord
from evals.traffic.recorded_runs import has_answer
from harness.frame.errors import InputError
from harness.gate.suite_plan import RUN_CLUSTER
from harness.routing.capture import SETTINGS, CapturedRequest, message_text
from harness.routing.request_settings import UNSET

CLUSTER: Final = "caller"  # the metadata field of the unit
_DATED: Final = re.compile(
    r"\b(?:19|20)\d\d-[01]\d-[0-3]\d\b|\b[0-3]?\d[./][01]?\d[./](?:19|20)\d\d\b|\btoday is\b|"
    r"\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]* \d{1,2}(?:st|nd|rd|th)?,? "
    r"(?:19|20)\d\d\b",
    re.IGNORECASE,
)

# A transcript has this text instead of a part (`router.protocols.transcript`).
_LEFT_OUT: Final = re.compile(r"\[\w+ left out\]")


def has_left_out_part(record: CapturedRequest) -> bool:
    """Tells whether a record lost a picture, audio or a file, which its answer depends on."""
    return any(
        _LEFT_OUT.search(message_text(message.get("content")))
        for message in record.content.get("messages", ())
    )


def is_dated(record: CapturedRequest) -> bool:
    """Tells whether a prompt contains a date, or a tool's result that may have expired."""
    return any(
        message.get("role") == "tool" or _DATED.search(message_text(message.get("content")))
        for message in record.content.get("messages", ())
    )


@dataclass(frozen=True, slots=True)
class LoggedCall:
    """The parts of a logged request that a capture does not keep. settings: see
    `read_settings`. tokens: of request and answer; None if the log does not say.
    """

    settings: Mapping[str, object] = field(default_factory=lambda: UNSET)
    tokens: tuple[int, int] | None = None


def build_item(
    drawn: DrawnRecord,
    call: LoggedCall,
    *,
    answers_of: str,
    ask_again: bool = False,
) -> dict[str, Any]:
    """Builds a line of the suite's data file.

    Args:
        answers_of: the incumbent's name.
        ask_again: leaves the logged answer out, so that both models answer now.

    Raises InputError for a request that Swapproof cannot ask as a chat.
    """
    record = drawn.record
    has_target = has_answer(record) and not ask_again
    place = f"record {record.request or record.id}"
    messages = check_messages(record.content.get("messages"), place)
    fields = {name: record.content[name] for name in FIELDS if record.content.get(name)}
    check_fields(fields, place)
    question = find_input_text(messages)
    if not question.strip():
        raise InputError(f"{place}: the messages have no text")
    return {
        "id": record.id,
        "input": question,
        "target": logged_answer(record.content.get("answer")) if has_target else "",
        "metadata": {
            "messages": list(messages),
            **fields,
            CLUSTER: drawn.unit,
            **_describe_turn(drawn),
            "requests": drawn.requests,
            "dated": "yes" if is_dated(record) else "no",
            "production": {
                "model": record.target,
                "answers_of": answers_of,
                "answered": has_target,
                **({"tokens": list(call.tokens)} if call.tokens and has_target else {}),
                SETTINGS: dict(call.settings),
            },
            "provenance": {
                "route": record.route,
                "at": record.at.isoformat(),
                "data_class": record.data_class,
                "outcome": record.outcome,
            },
        },
    }


def _describe_turn(drawn: DrawnRecord) -> Mapping[str, object]:
    """Returns the fields of a turn: its run, which is its cluster, and its place in the run."""
    turn = drawn.turn
    if turn is None:
        return {}
    place = {"number": turn.number, "of": turn.of, "coverage": turn.coverage.value}
    return {RUN_CLUSTER: turn.run, TURN: place}


def logged_answer(answer: object) -> str:
    """Returns a logged answer as a run would store it: its text, or JSON with its tool calls.

    A refusal in a member of its own is the answer's text.
    """
    if not isinstance(answer, Mapping):
        return message_text(answer)
    text = message_text(answer.get("content")) or str(answer.get("refusal") or "")
    calls = [
        AnswerToolCall(str(function.get("name")), str(function.get("arguments") or ""))
        for call in answer.get("tool_calls") or ()
        if isinstance(function := call.get("function"), Mapping)
    ]
    return answer_text(text, calls)
