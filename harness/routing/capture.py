"""Captures keep a redacted sample of a route's requests, for a suite (F9). Pure.

Near-duplicate texts are found by the exact Jaccard similarity of their word shingles. Pure.

Source: prefix filtering, Bayardo, Ma, Srikant 2007, "Scaling Up All Pairs Similarity Search":
two sets of similarity t or more share one of their rarest elements.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Self

from harness.frame.errors import InputError
from harness.frame.formatting import format_bytes
from harness.frame.people.access import key_hash
from harness.frame.plain_data import canonical_json
from harness.frame.redaction import RedactionRule
from harness.routing.table import BUCKETS, RouteSettings, hash_bucket

MAX_PER_DAY: Final = 100_000
MAX_KEEP_DAYS: Final = 365.0
MAX_COPY_BYTES: Final = 8 * 1024 * 1024
_SALT: Final = "capture"


@dataclass(frozen=True, slots=True)
class CaptureSettings:
    rules: tuple[RedactionRule, ...] = ()  # of the user's, before ours
    off: tuple[str, ...] = ()  # of ours, those left out


class CaptureResult(StrEnum):
    """Says what became of a captured request. FULL: the route has enough of that day."""

    STORED = "stored"
    REPEATED = "repeated"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class CapturedRequest:
    # A keyed hash of route and content, so that the same content is stored once; seen counts.
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
    user_hash: str  # HMACs of whoever the request names, divided by spaces
    share_bps: int  # of the route's requests, at that time
    rules: str  # the redactor's digest
    redactions: Mapping[str, int]  # rule to the number of places
    # `messages` and perhaps `tools` and others, as a chat completion has them, and `answer`.
    content: Mapping[str, Any] = field(repr=False)
    seen: int = 1
    body_bytes: int = 0  # of request and answer, as they came
    # Over the route's limit: only that it came is stored.
    too_large: bool = False


def check_capture(settings: RouteSettings) -> None:
    """Checks a route's capture settings. Raises InputError."""
    if not 0 <= settings.capture_bps <= BUCKETS:
        raise InputError(f"capture: the share is 0 to 100 %, not {settings.capture_bps} bps")
    if not 1 <= settings.capture_per_day <= MAX_PER_DAY:
        raise InputError(f"capture_per_day: 1 to {MAX_PER_DAY}, not {settings.capture_per_day}")
    if not 1 <= settings.copy_max_bytes <= MAX_COPY_BYTES:
        raise InputError(
            f"copy_max_bytes: 1 to {MAX_COPY_BYTES}, not {settings.copy_max_bytes}"
        )
    if not 0 < settings.capture_keep_days <= MAX_KEEP_DAYS:
        raise InputError(
            f"capture_keep_days: above 0, at most {MAX_KEEP_DAYS:g}, not "
            f"{settings.capture_keep_days}"
        )


_SHOWN_SIZES: Final = (8 * 1024, 128 * 1024, 1024 * 1024, 2 * MAX_COPY_BYTES)


@dataclass(frozen=True, slots=True)
class CaptureSample:
    """Says how large the requests are that were drawn, and how many of them were not kept."""

    requests: int
    too_large: int
    kept_up_to: Mapping[int, int]  # bytes to the number of requests that are no larger
    largest_left_out: int  # bytes

    @classmethod
    def from_sizes(cls, drawn: Sequence[tuple[int, bool, int]]) -> Self:
        """Sums up (bytes, whether it was too large, how often it was seen) of each request."""
        kept: Counter[int] = Counter()
        for size, too_large, times in drawn:
            if not too_large:
                top = next((most for most in _SHOWN_SIZES if size <= most), _SHOWN_SIZES[-1])
                kept[top] += times
        left_out = [(size, times) for size, too_large, times in drawn if too_large]
        lost = sum(times for _, times in left_out)
        largest = max((size for size, _ in left_out), default=0)
        return cls(kept.total() + lost, lost, dict(sorted(kept.items())), largest)

    @property
    def text(self) -> str:
        """A sentence; empty without a request."""
        if not self.requests:
            return ""
        sizes = [f"{n} of {_span(top)}" for top, n in self.kept_up_to.items()]
        said = f"of {self.requests} drawn requests, {', '.join(sizes) or 'none'} are kept"
        if not self.too_large:
            return said
        return (
            f"{said}; {self.too_large} are left out, over the route's copy_max_bytes (the "
            f"largest has {format_bytes(self.largest_left_out)})"
        )


def _span(top: int) -> str:
    """Writes the sizes up to a bound of `_SHOWN_SIZES`."""
    place = _SHOWN_SIZES.index(top)
    least = f"{format_bytes(_SHOWN_SIZES[place - 1])} to " if place else "up to "
    return f"{least}{format_bytes(top)}"


def is_sampled(request: str, share_bps: int) -> bool:
    """Whether this request is captured. request: its id, which is new for every request."""
    return share_bps > 0 and hash_bucket(request, salt=_SALT) < share_bps


def capture_id(route: str, content: Mapping[str, Any], secret: bytes) -> str:
    """Computes a captured request's id: the same for questions that differ in spacing, case and
    forms of characters alone.
    """
    asked = {name: value for name, value in content.items() if name != "answer"}
    text = " ".join(unicodedata.normalize("NFKC", canonical_json(_spaced(asked))).split())
    return "cap_" + key_hash(f"capture:{route}:{text.casefold()}", secret)[:24]


def _spaced(value: object) -> object:
    match value:
        case str():
            return " ".join(value.split())
        case dict():
            return {name: _spaced(inner) for name, inner in value.items()}
        case list():
            return [_spaced(inner) for inner in value]
        case _:
            return value


def day_start(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def capture_expiry(at: datetime, keep_days: float) -> datetime:
    return at + timedelta(days=keep_days)


def user_text(content: Mapping[str, Any]) -> str:
    """The text of the users' messages, for comparison: the rest is alike in most requests."""
    said = (message for message in content.get("messages", ()) if message.get("role") == "user")
    return "\n".join(message_text(message.get("content")) for message in said)


def answer_text(content: Mapping[str, Any]) -> str:
    """The text of the answer, and each tool call as `name(arguments)`; empty without one."""
    answer = content.get("answer")
    if not isinstance(answer, Mapping):
        return message_text(answer)
    calls = (call.get("function") for call in answer.get("tool_calls") or ())
    said = [f"{call.get('name')}({call.get('arguments')})" for call in calls if call]
    return "\n".join(part for part in (message_text(answer.get("content")), *said) if part)


def message_text(content: object) -> str:
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


SHINGLE_WORDS: Final = 3


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Runs of three words, without regard to case; shorter texts are one run."""
    words = text.casefold().split()
    if len(words) <= SHINGLE_WORDS:
        return frozenset({tuple(words)})
    return frozenset(
        tuple(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1)
    )


def jaccard_similarity(
    one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]
) -> float:
    """The Jaccard similarity of two sets, 0 to 1. Neither is empty."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def find_near_duplicates(texts: Mapping[str, str], *, threshold: float) -> dict[str, str]:
    """Maps an id to the earlier, kept text that it nearly is; texts in their order. threshold:
    least similarity, above 0, at most 1.
    """
    sets = {id_: shingles(text) for id_, text in texts.items()}
    counted = Counter(shingle for of_text in sets.values() for shingle in of_text)
    kept_by: dict[tuple[str, ...], list[str]] = {}
    near: dict[str, str] = {}
    for id_, of_text in sets.items():
        rarest = sorted(of_text, key=lambda shingle: (counted[shingle], shingle))
        prefix = rarest[: len(rarest) - math.ceil(threshold * len(rarest)) + 1]
        # Each kept id once, in the order in which they were kept.
        kept = dict.fromkeys(one for shingle in prefix for one in kept_by.get(shingle, ()))
        like = (one for one in kept if jaccard_similarity(of_text, sets[one]) >= threshold)
        if (first := next(like, None)) is not None:
            near[id_] = first
            continue
        for shingle in prefix:
            kept_by.setdefault(shingle, []).append(id_)
    return near
