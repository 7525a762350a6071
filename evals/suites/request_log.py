"""A request from another tool's log, without a label.

The readers `otel_spans` and `litellm_logs` build these; `harness.app.capture_import` redacts
and writes them.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from harness.frame.errors import InputError

OK: Final = "ok"
FAILED: Final = "failed"
NO_ANSWER: Final = "no_answer"
# The time of a request whose log has no date. No log of a language model is that old.
NO_DATE: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request and its answer, as the other tool stored them."""

    place: str  # file:line
    id: str  # the tool's id of the request
    at: datetime  # NO_DATE if the log has none
    endpoint: str  # of its body: chat, messages or responses
    model: str  # the model that answered; empty if unknown
    source: str  # the service that sent it; empty if unknown
    body: Mapping[str, Any]
    # In the form of the endpoint or of a chat completion; empty without an answer.
    answer: Mapping[str, Any]
    outcome: str = OK  # or why the request has no answer
    # The user's and the conversation's names in the log; empty if it has none.
    caller: str = ""
    conversation: str = ""
    trace: str = ""  # the log's id of the trace: one run of an application or an agent
    # Facts that not every log has. None or empty: the log does not say.
    provider: str = ""  # in the tool's spelling
    # The name of the model that the provider served, if `model` is the name of a group.
    served_model: str = ""
    input_tokens: int | None = None  # with those from a cache
    output_tokens: int | None = None
    cost_usd: float | None = None
    duration_s: float | None = None
    error: str = ""  # the tool's kind of the failure, such as `429` or `RateLimitError`
    data_class: str = ""


@dataclass(frozen=True)
class RequestLog:
    """The requests of a file, and the parts of the file that the reader did not use."""

    requests: Sequence[LoggedRequest]
    keys: Mapping[str, tuple[bool, str]]  # key → (taken, the reason or the number of uses)
    lost: Counter[str] = field(default_factory=Counter)  # reason → number of entries
    # Requests whose content the log does not have. Each also counts in `lost`.
    without_content: Sequence[LoggedRequest] = ()


def parse_time(value: object, place: str, name: str) -> datetime:
    """Reads a time; without a zone it is UTC. Returns NO_DATE for none or an empty text.

    Raises InputError that names the field.
    """
    if value in (None, ""):
        return NO_DATE
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        raise InputError(
            f"{place}: field {name!r}: {str(value)[:40]!r} is not a time, such as "
            "2026-11-20T14:00:00Z"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


_STATUS: Final = re.compile(r"\b[45]\d\d\b")
_CLASS: Final = re.compile(r"\b[A-Za-z_]*(?:Error|Exception|Timeout|Cancelled|Canceled)\b")


def name_error(text: str) -> str:
    """Returns the HTTP status or the class that a failure's text names; otherwise `failed`.

    A whole text may contain a user's words, and differs from failure to failure.
    """
    match = _STATUS.search(text) or _CLASS.search(text)
    return match[0] if match else FAILED


def seconds_between(start: datetime, end: datetime) -> float | None:
    """Returns a duration in seconds; None without one of the dates, or if they are reversed."""
    if NO_DATE in (start, end) or end < start:
        return None
    return (end - start).total_seconds()


def count_tokens(value: object) -> int | None:
    """Reads a number of tokens; None if it is unknown.

    0 is unknown too, because each prompt and each answer has a token.
    """
    number = read_number(value)
    return int(number) if number else None


def read_number(value: object) -> float | None:
    """Reads a number from 0, also from a cell's text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if 0.0 <= number < math.inf else None
