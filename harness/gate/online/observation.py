"""Observations count requests: by blocks for the canary's statistics, by minutes for people.

An `ObservationBlock` contains both arms' exposures, failures and ranks (statistics.md §2.1).
`TrafficMinute` and `TrafficTotal` contain requests, tokens, cost and latency by route, arm and
target. `guardrails.ExposureRule` defines an exposure.

Segments are a closed list of parts of a canary's traffic with separate error counts
(statistics.md §2.13): whether a request streams, offers tools, its endpoint, and how it names
its caller. They explain a rollback, and are not evidence. Only the request decides an
exposure's segments, never an answer.

The key ledger records which keys a rollout has counted before (statistics.md §2.12): in this
period, in an earlier period, or never. It stores only fingerprints of keys, spread over pages,
so that a claim of a few keys reads and writes few bytes. It excludes keys by their history
alone, in both arms alike, and never by outcomes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from enum import IntEnum, StrEnum
from hashlib import blake2b
from struct import Struct
from typing import Final, NamedTuple

from harness.frame.failures import ArmFailure
from harness.frame.plain_data import short_hash
from harness.gate.online.capped_sums import CappedTotals
from harness.gate.online.guardrails import (
    NO_SPLIT,
    ArmLevels,
    ArmSplit,
    ErrorTally,
    FailureTally,
    FeedbackTally,
    Guardrail,
    JudgeTally,
    WindowTally,
)

MIN_OBSERVED_S: Final = 60.0
# The beginnings of keys of `ObservationBlock.uncounted` for assigned requests
# (`outcome.outcome_key` of the kinds `not_sent` and `not_measured`).
ASSIGNED: Final = ("not_sent: ", "not_measured: ")


@dataclass(frozen=True, slots=True)
class NeverSeen:
    """Counts the exposures of a block whose keys the rollout had never counted before.

    counts, ranks, bets, by_key: None if the block's own apply to these exposures too.
    """

    units: int
    canary_units: int
    failures: int
    canary_failures: int
    counts: Mapping[Guardrail, FailureTally] | None = None
    ranks: Mapping[Guardrail, tuple[float, ...]] | None = None
    bets: Mapping[Guardrail, tuple[float, ...]] | None = None
    by_key: Mapping[str, Mapping[Guardrail, FailureTally]] | None = None


@dataclass(frozen=True, slots=True)
class ObservationBlock:
    """Holds n consecutive assigned exposures of one rollout at one weight, with all outcomes.

    The analysis uses the assigned arm, even if a different target answered.
    """

    rollout: str
    worker: str
    sequence: int  # the worker's own count, so that the store keeps a resent block once
    weight_bps: int
    units: int
    canary_units: int
    failures: int
    canary_failures: int
    missing: int  # outcomes that never arrived; counted as failures
    opened_at: datetime
    closed_at: datetime
    number: int = 0  # set by the store, in order of arrival
    period: int = 1  # of the rollout, from 1 (statistics.md §2.1); a block never spans two
    counts: Mapping[Guardrail, FailureTally] = field(default_factory=dict)
    # In [0, 1], a rank for each scored exposure of the smaller arm, by `ranking`.
    ranks: Mapping[Guardrail, tuple[float, ...]] = field(default_factory=dict)
    # For texts, not for decisions.
    levels: Mapping[Guardrail, ArmLevels] = field(default_factory=dict)
    # None if the router used no ledger: the exposure rule or the router is too old, or the
    # database was unavailable for too long.
    never_seen: NeverSeen | None = None
    # The exposures by outcome (`ExposureOutcome.key`): both arms, canary. The sum is the
    # block's exposures. Empty in blocks of drivers and tests that record no outcomes.
    outcomes: Mapping[str, ArmSplit] = field(default_factory=dict)
    # Requests of either arm that became no exposure, by reason: both arms, canary. Keys that
    # begin as in `ASSIGNED` are assigned requests; every other key is a reason for which the
    # router could not count a caller.
    uncounted: Mapping[str, ArmSplit] = field(default_factory=dict)
    # Values of the bets on a mean, for guardrails of sums, in [-1.1, 1].
    bets: Mapping[Guardrail, tuple[float, ...]] = field(default_factory=dict)
    # Counts by the client's key, for guardrails that callers decide.
    by_key: Mapping[str, Mapping[Guardrail, FailureTally]] = field(default_factory=dict)
    # The exposures by the model that the answer names: both arms, canary.
    served: Mapping[str, ArmSplit] = field(default_factory=dict)
    # The limits in seconds by which the block settled departures: fields of `WaitLimits`.
    waits: Mapping[str, float] = field(default_factory=dict)
    # Ranked exposures whose value is a lower bound: both arms, canary. For texts only.
    bounds: Mapping[Guardrail, ArmSplit] = field(default_factory=dict)
    # A block of late outcomes has no exposures of its own. Its counts are about the exposures
    # of an earlier block of this worker: late_of is that block's `sequence`; late_units of its
    # exposures count, late_canary_units of them canary.
    late_of: int = 0
    late_units: int = 0
    late_canary_units: int = 0
    # How long after closed_at the windows of the block's callers are known, in seconds; 0 if it
    # has none. They come in a block of late outcomes.
    windows_known_s: float = 0.0
    # How often the incumbent usually fails, at most (`ExposureRule.usual_rates`).
    usual_rates: Mapping[Guardrail, float] = field(default_factory=dict)
    # The exposures of the bets on capped means, by guardrail.
    capped: Mapping[Guardrail, CappedTotals] = field(default_factory=dict)

    @property
    def counted(self) -> ArmSplit:
        """Returns the exposures that the block's counts are about; both arms, canary."""
        if self.late_of:
            return ArmSplit(self.late_units, self.late_canary_units)
        return ArmSplit(self.units, self.canary_units)

    @property
    def is_never_seen(self) -> bool:
        """Tells whether all keys of the block are new to the rollout."""
        new = self.never_seen
        return self.period == 1 if new is None else new.units == self.counted.failures

    @property
    def kept_share(self) -> float:
        """Returns the canary's planned share of all callers that can be exposures, 0 to 1."""
        return self.weight_bps / 10_000

    @property
    def share(self) -> float:
        """Returns the canary's planned share of the block's exposures, from 0 to 1."""
        return self.kept_share

    @property
    def first_requests(self) -> ArmSplit:
        """Returns the callers' first requests that were sent; both arms, canary."""
        return ArmSplit(self.units, self.canary_units)

    @property
    def first_outcomes(self) -> Mapping[str, ArmSplit]:
        """Returns `first_requests` by outcome."""
        return self.outcomes

    @property
    def unknown_exposures(self) -> ArmSplit:
        """Returns the exposures whose outcome is no evidence of errors; both arms, canary."""
        errors = self.counts.get(Guardrail.ERRORS)
        return errors.unknown if isinstance(errors, ErrorTally) else NO_SPLIT

    @property
    def assigned(self) -> ArmSplit:
        """Returns the requests that were assigned: the callers' first ones, and requests that
        were not sent and so became no exposure; both arms, canary.
        """
        unsent = [n for key, n in self.uncounted.items() if key.startswith(ASSIGNED)]
        exposures = self.first_requests
        return ArmSplit(
            exposures.failures + sum(split.failures for split in unsent),
            exposures.canary + sum(split.canary for split in unsent),
        )

    @property
    def assigned_outcomes(self) -> Mapping[str, ArmSplit]:
        """Returns `first_outcomes` with the assigned requests that were not sent."""
        unsent = {key: n for key, n in self.uncounted.items() if key.startswith(ASSIGNED)}
        found = dict(self.first_outcomes)
        for key, split in unsent.items():
            exposures = found.get(key, NO_SPLIT)
            found[key] = ArmSplit(
                exposures.failures + split.failures, exposures.canary + split.canary
            )
        return found

    @property
    def uncounted_callers(self) -> Mapping[str, ArmSplit]:
        """Returns the part of `uncounted` that was not assigned as an exposure."""
        return {key: n for key, n in self.uncounted.items() if not key.startswith(ASSIGNED)}

    def set_missing(self, *, against: bool) -> "ObservationBlock":
        """Returns the block with its missing outcomes counted against the canary (failures of
        the canary, successes of the incumbent), or for it (the reverse). Older blocks do not
        record the arm of a missing outcome, so it may belong to either arm.

        Windows that are all missing were lost with a router's process, in both arms alike. They
        count against the canary in full, and for it they are no evidence.
        """
        if not self.has_missing:
            return self
        counts = {
            guardrail: tally.without(
                self._count_missing(tally, against=against), canary=not against
            )
            for guardrail, tally in self.counts.items()
            if against or not (isinstance(tally, WindowTally) and tally.is_lost)
        }
        whole = FailureTally(
            self.units,
            self.canary_units,
            self.failures,
            self.canary_failures,
        )
        errors = self.counts.get(Guardrail.ERRORS, whole)
        left = whole.without(self._count_missing(errors, against=against), canary=not against)
        return replace(
            self,
            failures=left.failures,
            canary_failures=left.canary_failures,
            counts=counts,
        )

    def _count_missing(self, tally: FailureTally, *, against: bool) -> int:
        """Counts missing outcomes that may belong to the incumbent (`against`) or to the
        canary.
        """
        errors = self.counts.get(Guardrail.ERRORS)
        splits = [ArmSplit(self.missing, 0 if against else self.missing)]
        if isinstance(tally, FeedbackTally | WindowTally):
            splits = [tally.missing]
        elif isinstance(errors, ErrorTally):
            splits = [errors.classes.get(ArmFailure.MISSING.value, NO_SPLIT)]
        if isinstance(tally, JudgeTally):
            splits.append(tally.no_verdict)
        return max(s.failures - s.canary if against else s.canary for s in splits)

    @property
    def has_missing(self) -> bool:
        """Tells whether an outcome, a window, or a judge's verdict on an exposure is
        missing.
        """
        judged = self.counts.get(Guardrail.JUDGE)
        unjudged = isinstance(judged, JudgeTally) and judged.no_verdict.failures > 0
        late = (self.counts.get(name) for name in (Guardrail.FEEDBACK, Guardrail.CALLER_ERRORS))
        unknown = any(
            isinstance(tally, FeedbackTally | WindowTally) and tally.missing != NO_SPLIT
            for tally in late
        )
        return self.missing > 0 or unjudged or unknown

    @property
    def of_new_keys(self) -> "ObservationBlock | None":
        """Returns the block reduced to its never-seen keys; None if it has none.

        Without a ledger it is the whole block in the first period, in which every key is new.
        """
        new = self.never_seen
        if new is None:
            return self if self.period == 1 else None
        if not new.units:
            return None
        late = bool(self.late_of)
        return replace(
            self,
            units=0 if late else new.units,
            canary_units=0 if late else new.canary_units,
            late_units=new.units if late else 0,
            late_canary_units=new.canary_units if late else 0,
            failures=new.failures,
            canary_failures=new.canary_failures,
            counts=self.counts if new.counts is None else new.counts,
            ranks=self.ranks if new.ranks is None else new.ranks,
            bets=self.bets if new.bets is None else new.bets,
            by_key=self.by_key if new.by_key is None else new.by_key,
        )


@dataclass(frozen=True, slots=True)
class TrafficMinute:
    """One minute of a route's requests by worker, arm and target, at one revision."""

    route: str
    minute: datetime
    worker: str
    arm: str
    target: str
    revision: int
    requests: int
    failed: int  # requests whose user got an error
    charged: int  # requests whose assigned arm failed, though another target answered
    streams: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    # Upper bound in ms (-1: no bound) → count.
    latency_ms: Mapping[int, int] = field(default_factory=dict)
    cached_tokens: int = 0  # input tokens read from a provider's cache
    unpriced: int = 0  # requests without a known cost; cost_usd excludes them
    # Failed requests for which the router called no target, because of a switch, a missing key
    # or a data class. `charged` excludes them, because they are no failure of a target.
    refused: int = 0
    # How long callers waited for output (`waiting.WaitCounts`).
    waits: Mapping[str, Mapping[int, int]] = field(default_factory=dict)
    bounded: int = 0  # requests whose tokens and cost are lower bounds; the sums include them
    unanswered: int = 0  # requests whose caller waited, and left before any output
    # Requests that were their caller's first of the UTC day at this process and are evidence of
    # errors, and the failed ones among them.
    first_requests: int = 0
    first_failed: int = 0
    # Windows of these callers that became known in the minute, and those that failed.
    windows: int = 0
    windows_failed: int = 0


# Swapproof counts this many names per route and day separately, and sums up all other names.
MOST_ASKED_NAMES: Final = 200
OTHER_NAMES: Final = "(others)"
# The beginning of the names under which a sample of a route's requests counts by need.
NEED: Final = "need:"


@dataclass(frozen=True, slots=True)
class AskedName:
    """Counts a UTC day's requests for one model or feature."""

    # Without a route: a model, as the client called it. With a route: the endpoint, a colon,
    # and a feature that only the endpoint's own provider supports; or NEED and a need, or NEED
    # alone for each request of the sample.
    name: str
    day: date
    route: str
    requests: int


@dataclass(frozen=True, slots=True)
class TrafficTotal:
    """Sums of traffic minutes over a period, by route, arm and target."""

    route: str
    arm: str
    target: str
    first: datetime  # first, last: the target's first and last minute
    last: datetime
    requests: int
    failed: int
    charged: int
    streams: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float
    unpriced: int
    refused: int = 0
    bounded: int = 0
    unanswered: int = 0


@dataclass(frozen=True, slots=True)
class TrafficPoint:
    """One point of a route's traffic chart."""

    minute: datetime
    requests: int
    failed: int  # requests whose user got an error
    charged: int  # requests whose assigned arm failed, though another target answered


def observed_seconds(totals: Iterable[TrafficTotal], now: datetime) -> float:
    """Returns the seconds that these records cover: from the first minute to now, at least 60.

    Every rate divides by this.
    """
    first = min((total.first for total in totals), default=now)
    return max(MIN_OBSERVED_S, (now - first).total_seconds())


class Segment(StrEnum):
    STREAM = "stream"
    WHOLE = "whole"
    TOOLS = "tools"
    NO_TOOLS = "no_tools"
    CHAT = "chat"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    # The source of the caller's name (`SOURCES`).
    HEADER = "named_by_header"
    FIELD = "named_by_field"
    OPENING = "named_by_opening"
    REQUEST = "named_by_request"

    @property
    def text(self) -> str:
        if words := SOURCES.get(self):
            return f"requests whose caller is named by {words}"
        return _TEXTS.get(self) or f"requests to the endpoint {self.value}"


SOURCES: Final[Mapping[Segment, str]] = {
    Segment.HEADER: "a header",
    Segment.FIELD: "a field of the body",
    Segment.OPENING: "the conversation's opening",
    Segment.REQUEST: "the request alone",
}
_TEXTS: Final[Mapping[Segment, str]] = {
    Segment.STREAM: "requests that stream",
    Segment.WHOLE: "requests that do not stream",
    Segment.TOOLS: "requests with tools",
    Segment.NO_TOOLS: "requests without tools",
}
SEGMENTS: Final = tuple(Segment)


# 12 of a fingerprint's 44 bits select the page; the page stores the other 32.
PAGES: Final = 4096
# Limits the ledger of one rollout to 2 million keys, 12.6 MB.
KEYS_PER_PAGE: Final = 512
_ENTRY: Final = Struct(">IH")
_LAST_PERIOD: Final = 0xFFFF


class KeyHistory(IntEnum):
    NEVER_SEEN = 0
    RETURNED = 1  # in an earlier period
    COUNTED = 2  # in this period, by another process or before a restart


class KeyClaim(NamedTuple):
    """Keys that a router is about to count, in one period of one rollout."""

    rollout: str
    period: int
    fingerprints: Sequence[int]
    # The fingerprints of the callers that the candidate served, if the store is to list them.
    candidates: frozenset[int] = frozenset()


def fingerprint(salt: str, key: str | int) -> int:
    """Computes a key's fingerprint.

    Args:
        key: sticky key, or its short hash.
        salt: the rollout's.
    """
    digest = short_hash(key) if isinstance(key, str) else key.to_bytes(8)
    return int.from_bytes(blake2b(digest, digest_size=6, key=salt.encode()[:64]).digest()) >> 4


def page_of(print_: int) -> int:
    """Returns the number of the page that holds this fingerprint, from 0 to PAGES - 1."""
    return print_ >> 32


def claim_keys(
    pages: Mapping[int, bytes], claim: KeyClaim
) -> tuple[Mapping[int, bytes], Sequence[KeyHistory]]:
    """Enters a claim's keys; returns the changed pages, and each key's earlier history.

    Args:
        pages: the existing pages of these keys.

    A key whose page is full counts as returned and is not stored, so it adds nothing to the
    evidence over all periods.
    """
    period = min(claim.period, _LAST_PERIOD)
    read = {number: _read_page(page) for number, page in pages.items()}
    histories = []
    changed = set[int]()
    for print_ in claim.fingerprints:
        number = page_of(print_)
        rest = print_ & 0xFFFFFFFF
        page = read.setdefault(number, {})
        last = page.get(rest)
        if last is not None and last >= period:
            histories.append(KeyHistory.COUNTED)
            continue
        if last is None and len(page) >= KEYS_PER_PAGE:
            histories.append(KeyHistory.RETURNED)
            continue
        histories.append(KeyHistory.NEVER_SEEN if last is None else KeyHistory.RETURNED)
        page[rest] = period
        changed.add(number)
    return {number: _write_page(read[number]) for number in sorted(changed)}, histories


def find_last_period(page: bytes, print_: int) -> int | None:
    """Finds the last period in which a key counted; None if it never did.

    Args:
        page: of the key.
    """
    return _read_page(page).get(print_ & 0xFFFFFFFF)


def _read_page(page: bytes) -> dict[int, int]:
    """Returns the last period of each key of a page; ignores an incomplete entry at the end."""
    whole = len(page) - len(page) % _ENTRY.size
    return dict(_ENTRY.iter_unpack(page[:whole]))


def _write_page(entries: Mapping[int, int]) -> bytes:
    return b"".join(_ENTRY.pack(rest, period) for rest, period in entries.items())
