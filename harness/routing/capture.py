"""A capture is a redacted request of a route: one of a sample for suites, or of a shadow's
pairs. Pure.

The router redacts the content before it stores a capture (`router.observers.capture`).
`harness.operations.captures` reads, exports and deletes captures.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self

from harness.frame.canonical_text import single_spaced
from harness.frame.formatting import format_bytes
from harness.frame.people.access import key_hash
from harness.frame.plain_data import canonical_json, hash_content
from harness.frame.redaction import RedactionRule
from harness.routing.route_settings import MAX_COPY_BYTES
from harness.routing.shadow_pair import CANDIDATE, CandidateAnswer
from harness.routing.table import hash_bucket

_SALT: Final = "capture"
ANSWER_UNREADABLE: Final = "answer_unreadable"  # an outcome
# The member of a capture's content that says why no copy of the request may be asked.
PROVIDER_STATE: Final = "provider_state"
# The member of a capture's content, and of a drawn item, with the request's own settings.
SETTINGS: Final = "settings"


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    """The redaction rules of the installation."""

    rules: tuple[RedactionRule, ...] = ()  # the user's rules; they run before the built-in ones
    off: tuple[str, ...] = ()  # names of built-in rules that do not run


class CaptureResult(StrEnum):
    """The result of a capture. FULL: the route has reached its number of captures a day. LATE:
    a shadow pair is gone, or its answer is overdue.
    """

    STORED = "stored"
    REPEATED = "repeated"
    FULL = "full"
    LATE = "late"


@dataclass(frozen=True, slots=True)
class CapturedRequest:
    """A redacted request with its answer, as it is stored."""

    # A keyed hash of route and content. Equal content is stored once, and `seen` counts it. A
    # shadow pair's is a keyed hash of the request's id: equal questions of two callers are two.
    id: str
    at: datetime
    expires_at: datetime
    route: str
    request: str
    endpoint: str
    stream: bool
    arm: str
    target: str
    revision: int
    data_class: str
    user_hash: str  # HMACs of the users that the request names, separated by spaces
    share_bps: int  # the route's capture share at that time
    rules: str  # the redactor's digest
    redactions: Mapping[str, int]  # the number of redactions by rule
    # The request's fields, such as `messages` and `tools`, the field `answer`, and a shadow
    # pair's field `candidate`. Empty until the candidate's answer is stored.
    content: Mapping[str, Any] = field(repr=False)
    seen: int = 1
    body_bytes: int = 0  # request and answer together, before redaction
    # Whether it exceeds the route's copy_max_bytes; then `content` is not stored.
    too_large: bool = False
    # `ok`, or the reason for a missing answer. The sampling does not depend on it.
    outcome: str = "ok"
    # Pseudonyms (keyed hashes) of caller and conversation; empty if the request names neither.
    caller: str = ""
    conversation: str = ""
    # The shadow whose pair this is, and the candidate's answer; None for a sampled request.
    shadow: str | None = None
    candidate: CandidateAnswer | None = None


_SHOWN_SIZES: Final = (
    8 * 1024,
    128 * 1024,
    1024 * 1024,
    2 * MAX_COPY_BYTES,
)


@dataclass(frozen=True, slots=True)
class CaptureSample:
    """The sizes of the sampled requests, and how many of them were too large to keep."""

    requests: int
    too_large: int
    kept_up_to: Mapping[int, int]  # the number of kept requests, by upper size in bytes
    largest_left_out: int  # bytes

    @classmethod
    def from_sizes(cls, sampled: Sequence[tuple[int, bool, int]]) -> Self:
        """Summarises sampled requests.

        Args:
            sampled: for each request its bytes, whether it is too large, and its number of
                repetitions.
        """
        kept: Counter[int] = Counter()
        for size, too_large, times in sampled:
            if not too_large:
                upper_bytes = next(
                    (bound_bytes for bound_bytes in _SHOWN_SIZES if size <= bound_bytes),
                    _SHOWN_SIZES[-1],
                )
                kept[upper_bytes] += times
        left_out = [(size, times) for size, too_large, times in sampled if too_large]
        too_large_count = sum(times for _, times in left_out)
        largest = max((size for size, _ in left_out), default=0)
        return cls(
            kept.total() + too_large_count, too_large_count, dict(sorted(kept.items())), largest
        )

    @property
    def text(self) -> str:
        """Describes the sample in a sentence; empty without a request."""
        if not self.requests:
            return ""
        sizes = [
            f"{count} of {_format_size_range(upper_bytes)}"
            for upper_bytes, count in self.kept_up_to.items()
        ]
        text = f"of {self.requests} sampled requests, {', '.join(sizes) or 'none'} are kept"
        if not self.too_large:
            return text
        return (
            f"{text}; {self.too_large} are left out, over the route's copy_max_bytes (the "
            f"largest has {format_bytes(self.largest_left_out)})"
        )


def _format_size_range(upper_bytes: int) -> str:
    """Writes the sizes between two bounds, for people."""
    index = _SHOWN_SIZES.index(upper_bytes)
    lower_text = f"{format_bytes(_SHOWN_SIZES[index - 1])} to " if index else "up to "
    return f"{lower_text}{format_bytes(upper_bytes)}"


def is_sampled(request: str, share_bps: int) -> bool:
    """Tells whether Swapproof captures this request.

    Args:
        request: its id, unique to each request.
    """
    return share_bps > 0 and hash_bucket(request, salt=_SALT) < share_bps


def capture_id(
    route: str,
    content: Mapping[str, Any],
    secret: bytes,
) -> str:
    """Computes a captured request's id. Questions that differ only in spacing, case or Unicode
    form have the same id.
    """
    answers = ("answer", CANDIDATE)
    question = {name: value for name, value in content.items() if name not in answers}
    text = " ".join(
        unicodedata.normalize("NFKC", canonical_json(single_spaced(question))).split()
    )
    return "cap_" + key_hash(f"capture:{route}:{text.casefold()}", secret)[:24]


def day_start(at: datetime) -> datetime:
    """Returns midnight UTC of a moment's day."""
    return at.astimezone(UTC).replace(
        hour=0,
        minute=0,
        second=0,
        microsecond=0,
    )


def capture_expiry(at: datetime, keep_days: float) -> datetime:
    """Returns when Swapproof deletes a capture.

    Args:
        keep_days: the route's setting at the time of the capture.
    """
    return at + timedelta(days=keep_days)


MOST_OF_A_CALLER: Final = 2  # at a correlation of 0.3, 200 items in pairs tell as much as 154


def draw_per_caller(
    callers: Mapping[str, str], max_records: int = MOST_OF_A_CALLER
) -> frozenset[str]:
    """Draws at most `max_records` records of each caller, and every record of an unknown
    caller.

    Args:
        callers: by a record's id, its caller's pseudonym; empty if unknown.

    The draw depends only on the ids, not on answers or labels, so a second draw gives the same
    records.
    """
    kept: Counter[str] = Counter()
    drawn = set()
    for capture_id in sorted(
        callers, key=lambda capture_id: (hash_content(f"{_SALT}:{capture_id}"), capture_id)
    ):
        caller = callers[capture_id]
        if not caller or kept[caller] < max_records:
            drawn.add(capture_id)
            kept[caller] += 1
    return frozenset(drawn)


def user_text(content: Mapping[str, Any]) -> str:
    """Returns the text of the user messages. Comparisons use only this text, because requests
    of a route share most other text.
    """
    messages = content.get("messages", ())
    user_messages = (message for message in messages if message.get("role") == "user")
    return "\n".join(message_text(message.get("content")) for message in user_messages)


def answer_text(content: Mapping[str, Any]) -> str:
    """Returns the text of the answer, and each tool call as `name(arguments)`; empty without an
    answer.
    """
    answer = content.get("answer")
    if not isinstance(answer, Mapping):
        return message_text(answer)
    calls = (call.get("function") for call in answer.get("tool_calls") or ())
    lines = [f"{call.get('name')}({call.get('arguments')})" for call in calls if call]
    return "\n".join(part for part in (message_text(answer.get("content")), *lines) if part)


def message_text(content: object) -> str:
    """Returns the text of a message's content; empty for a picture."""
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
