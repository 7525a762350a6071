"""A request from another tool's log, without a label.

The readers `otel_spans` and `litellm_logs` build these; `harness.app.capture_import` redacts
and writes them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

OK: Final = "ok"
FAILED: Final = "failed"
NO_ANSWER: Final = "no_answer"


@dataclass(frozen=True, slots=True)
class LoggedRequest:
    """One request and its answer, as the other tool stored them."""

    place: str  # file:line
    id: str  # the tool's id of the request
    at: datetime
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
    # Facts that not every log has. None or empty: the log does not say.
    provider: str = ""  # in the tool's spelling
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
