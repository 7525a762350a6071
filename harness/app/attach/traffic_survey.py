"""Adds up logged requests by model, in memory that does not grow with the log's contents.

A fact that a log omits is unknown: each sum has the number of requests that it covers. Pure.
"""

import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, datetime
from hashlib import blake2b
from typing import Final

from evals.suites.request_log import FAILED, NO_DATE, LoggedRequest
from harness.app.attach.request_needs import find_bond, find_needs
from harness.frame.plain_data import canonical_json
from harness.providers.models.capabilities import Needs

# Two durations in one bin differ by at most 5 %.
_BINS_OF_E: Final = 20
_TOKENS_OF_BIN: Final = 1_000
_HASH_BYTES: Final = 8
_OF_SPAN: Final = ":"  # between the trace's and the span's id (`otel_spans`)
# Enough different questions to know that the requests are not all alike.
_QUESTIONS_KEPT: Final = 3
_SERVICES_KEPT: Final = 100


def name_needs(needs: Needs) -> tuple[str, ...]:
    """Names the needs that are true, as fields of `Needs`."""
    return tuple(name for name in NEED_NAMES if getattr(needs, name))


NEED_NAMES: Final = (
    "tools",
    "parallel_tools",
    "json_schema",
    "vision",
    "documents",
    "audio",
    "several_choices",
)


@dataclass
class ModelTraffic:
    """The sums of one model's requests."""

    provider: str  # in the tool's spelling; empty if unknown
    model: str  # empty if unknown
    requests: int = 0
    priced: int = 0  # requests whose log has a cost
    cost_usd: float = 0.0  # of the priced requests
    counted: int = 0  # requests whose log has both numbers of tokens
    input_tokens: int = 0
    output_tokens: int = 0
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # kind of failure → requests
    with_content: int = 0
    needs: Counter[str] = field(default_factory=Counter)  # of the requests with content
    bonds: Counter[str] = field(default_factory=Counter)  # why no copy is asked → requests
    # Requests by the name under which they were asked: of a service, or of a group of models.
    services: Counter[str] = field(default_factory=Counter)
    # Requests by their tokens, in thousands, rounded down.
    sizes: Counter[int] = field(default_factory=Counter)
    unnamed: int = 0  # requests whose log names no caller
    _durations: Counter[int] = field(default_factory=Counter)
    # Hashes, because names of callers are personal data, and take more memory.
    _callers: Counter[bytes] = field(default_factory=Counter)

    @property
    def name(self) -> str:
        """The model's name for people."""
        return f"{self.provider}/{self.model}" if self.provider and self.model else self.model

    @property
    def timed(self) -> int:
        """The number of requests whose duration is known."""
        return self._durations.total()

    def add(self, request: LoggedRequest) -> None:
        self.requests += 1
        if request.cost_usd is not None:
            self.priced += 1
            self.cost_usd += request.cost_usd
        if request.input_tokens is not None and request.output_tokens is not None:
            self.counted += 1
            self.input_tokens += request.input_tokens
            self.output_tokens += request.output_tokens
            tokens = request.input_tokens + request.output_tokens
            self.sizes[tokens // _TOKENS_OF_BIN] += 1
        if request.duration_s is not None:
            # A millisecond more, because the logarithm of 0 does not exist.
            self._durations[round(math.log(request.duration_s + 0.001) * _BINS_OF_E)] += 1
        if request.caller:
            self._callers[_hash(request.caller)] += 1
        else:
            self.unnamed += 1
        group = request.model if request.model != request.served_model else ""
        service = request.source or ("" if "/" in group else group)
        if service and (service in self.services or len(self.services) < _SERVICES_KEPT):
            self.services[service] += 1
        if request.outcome == FAILED:
            self.failed += 1
            self.errors[request.error or FAILED] += 1
        if request.body:
            self.with_content += 1
            self.needs.update(name_needs(find_needs(request)))
            if bond := find_bond(request.body):
                self.bonds[bond] += 1

    def find_duration(self, share: float) -> float | None:
        """Returns a quantile of the durations in seconds; None without a known duration."""
        seen = 0
        for bin_, number in sorted(self._durations.items()):
            seen += number
            if seen >= share * self.timed:
                return max(0.0, math.exp(bin_ / _BINS_OF_E) - 0.001)
        return None

    def count_items(self, most_of_a_caller: int) -> int:
        """Counts the requests that a draw could take, at most that many of each caller."""
        named = sum(min(number, most_of_a_caller) for number in self._callers.values())
        copied = self.requests - self.bonds.total()
        return min(copied, named + self.unnamed)

    def count_larger(self, tokens: int) -> int:
        """Counts the requests that certainly have more tokens than that."""
        return sum(n for size, n in self.sizes.items() if size * _TOKENS_OF_BIN > tokens)


@dataclass
class TrafficSurvey:
    """The sums of all requests that `attach` read."""

    models: dict[tuple[str, str], ModelTraffic] = field(default_factory=dict)
    requests: int = 0
    repeated: int = 0  # records of a request that came before
    undated: int = 0
    answered: int = 0  # requests with content whose log has the answer
    with_content: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    days: Counter[date] = field(default_factory=Counter)
    lost: Counter[str] = field(
        default_factory=Counter
    )  # records that are no request, by reason
    data_classes: Counter[str] = field(default_factory=Counter)
    _callers: set[bytes] = field(default_factory=set)
    _conversations: set[bytes] = field(default_factory=set)
    _ids: set[bytes] = field(default_factory=set)
    _questions: set[bytes] = field(default_factory=set)

    def add(self, request: LoggedRequest) -> None:
        """Adds a request, unless it came before."""
        if request.id and self._is_repeated(request):
            self.repeated += 1
            return
        self.requests += 1
        key = (request.provider, request.served_model or request.model)
        traffic = self.models.get(key)
        if traffic is None:
            traffic = self.models[key] = ModelTraffic(*key)
        traffic.add(request)
        self._add_time(request.at)
        self._add_people(request)
        if request.data_class:
            self.data_classes[request.data_class] += 1
        if request.body:
            self.with_content += 1
            self.answered += bool(request.answer)
            if len(self._questions) < _QUESTIONS_KEPT:
                messages = request.body.get("messages") or request.body.get("input")
                self._questions.add(_hash(canonical_json(messages)))

    def _is_repeated(self, request: LoggedRequest) -> bool:
        """Tells whether a record with the same id and time came before, or the span of a log
        record, which has the span's id and no model. Remembers the record.
        """
        record = _hash(f"{request.id} {request.at.isoformat()}")
        is_repeated = record in self._ids
        self._ids.add(record)
        if _OF_SPAN in request.id:
            span = _hash(request.id)
            is_repeated = is_repeated or (not request.served_model and span in self._ids)
            self._ids.add(span)
        return is_repeated

    def _add_time(self, at: datetime) -> None:
        if at == NO_DATE:
            self.undated += 1
            return
        self.days[at.date()] += 1
        self.first_at = at if self.first_at is None else min(self.first_at, at)
        self.last_at = at if self.last_at is None else max(self.last_at, at)

    def _add_people(self, request: LoggedRequest) -> None:
        if request.conversation:
            self._conversations.add(_hash(request.conversation))
        if request.caller:
            self._callers.add(_hash(request.caller))

    @property
    def callers(self) -> int:
        return len(self._callers)

    @property
    def conversations(self) -> int:
        return len(self._conversations)

    @property
    def all_alike(self) -> bool:
        """Tells whether all requests with content ask the same."""
        return self.with_content > 1 and len(self._questions) == 1

    @property
    def ranked(self) -> list[ModelTraffic]:
        """The models, the one with the most requests first."""
        return sorted(self.models.values(), key=lambda model: (-model.requests, model.name))


def _hash(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=_HASH_BYTES).digest()
