"""A shadow copies a share of a route's requests to a candidate; callers never get its answers.
Pure. It needs no verdict, but its provider must be allowed to see the route's data class. It
has its own limits and budget.

A shadow pair compares the answers of incumbent and candidate to one request: form, latency,
tokens and cost. It needs no model, and yields only counts and sums. With `ShadowTerms`, a judge
compares the stored pairs besides, for a verdict.

`router.observers.shadow` makes the calls. `harness.canary.shadows` starts and ends a shadow,
and interprets its counts.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Any, Final

from harness.frame.errors import InputError
from harness.frame.matching import THREAD_LIMITS, matches_schema
from harness.gate.suite_plan import Claim
from harness.providers.target import Target

MAX_SHARE_BPS: Final = 10_000
MAX_AT_ONCE: Final = 64
MAX_PER_DAY: Final = 10_000_000
MIRRORED: Final = "mirrored"
UNPRICED: Final = "unpriced"
COST_USD: Final = "candidate.cost_usd"
JUDGE_USD: Final = "judge_usd"


@dataclass(frozen=True, slots=True)
class ShadowLimits:
    """The limits of a shadow. `at_once` holds for each worker."""

    share_bps: int = 100  # share of the sticky keys, 1 to 10 000
    at_once: int = 4  # concurrent requests of one worker
    requests_per_day: int = 1000  # days are UTC
    usd_per_day: float | None = 1.0  # None for no limit of costs


@dataclass(frozen=True, slots=True)
class ShadowTerms:
    """What a judge shall show about a shadow, fixed at the start (statistics.md §2.9).

    series: the id of the first shadow with the same terms. The callers of a series count
    together, so a restart is no second look.
    """

    judge: str  # `provider/model`
    criteria: str  # the rubric
    judge_anyway: str  # why the judge may be of a compared model's maker; empty if it is not
    claim: Claim  # superior or non_inferior
    margin: float
    alpha: float  # of the verdict PASSED: what this look has left
    look: int  # from 1
    series: str


@dataclass(frozen=True, slots=True)
class Shadow:
    """A shadow of a route; `find_shadow_end` decides which changes end it."""

    id: str
    route: str
    incumbent: str  # target id
    candidate: Target
    data_class: str
    limits: ShadowLimits
    proposal: str | None  # the proposal that started it; None if an approver started it
    reason: str
    started_by: str
    started_at: datetime
    expires_at: datetime
    ended_at: datetime | None = None  # ended_at, ended_by: None until it ends
    ended_by: str | None = None
    ended_because: str | None = None
    terms: ShadowTerms | None = None  # None without a judge, so without a verdict


@dataclass(frozen=True, slots=True)
class ShadowTally:
    """A worker's counts and sums of a shadow on one day (UTC), never content."""

    shadow: str
    day: date
    worker: str
    # Mirrored requests, omitted requests by reason, and pairs by check (`compare_pair`).
    counts: Mapping[str, int] = field(default_factory=dict)
    # Sums over the pairs, by side and measure, and the whole costs of candidate and judge.
    sums: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShadowUsage:
    """A shadow's usage of one day's budget."""

    requests: int = 0
    cost_usd: float = 0.0


def check_shadow_limits(limits: ShadowLimits) -> None:
    """Checks the limits' ranges. Raises InputError."""
    if not 1 <= limits.share_bps <= MAX_SHARE_BPS:
        raise InputError(f"a shadow mirrors 1 to {MAX_SHARE_BPS} bps, not {limits.share_bps}")
    if not 1 <= limits.at_once <= MAX_AT_ONCE:
        raise InputError(f"a shadow calls 1 to {MAX_AT_ONCE} at once, not {limits.at_once}")
    if not 1 <= limits.requests_per_day <= MAX_PER_DAY:
        raise InputError(f"a shadow mirrors 1 to {MAX_PER_DAY} requests a day")
    usd = limits.usd_per_day
    if usd is not None and not 0 < usd < 1e9:
        raise InputError(f"a shadow's budget is above 0 US dollars a day, not {usd}")


def within_budget(
    limits: ShadowLimits,
    used: ShadowUsage,
    *,
    priced: bool,
) -> bool:
    """Tells whether one more request fits. False for a candidate without a price if costs are
    limited.
    """
    if used.requests >= limits.requests_per_day:
        return False
    max_usd = limits.usd_per_day
    return max_usd is None or (priced and used.cost_usd < max_usd)


def sum_usage(rows: Iterable[ShadowTally], today: date) -> ShadowUsage:
    """Sums up the workers' usage of one day (UTC)."""
    used = [row for row in rows if row.day == today]
    return ShadowUsage(
        sum(row.counts.get(MIRRORED, 0) for row in used),
        math.fsum(row.sums.get(name, 0.0) for row in used for name in (COST_USD, JUDGE_USD)),
    )


def add_tallies(tally: ShadowTally, other: ShadowTally) -> ShadowTally:
    """Adds the counts and sums of `other`; keeps shadow, day and worker of `tally`."""
    counts = Counter(tally.counts)
    counts.update(other.counts)
    sums = dict(tally.sums)
    for name, value in other.sums.items():
        sums[name] = sums.get(name, 0.0) + value
    return ShadowTally(tally.shadow, tally.day, tally.worker, dict(counts), sums)


PAIRS: Final = "pairs"
UNIT: Final = "unit"
CUT_OFF_REASONS: Final = frozenset({"length", "max_tokens", "incomplete"})
REFUSAL_REASONS: Final = frozenset({"content_filter", "refusal"})
REDACTED_REFUSAL: Final = "[refusal left out]"


class ShadowCheck(StrEnum):
    """A property of an answer. SCHEMA: it matches the request's JSON schema."""

    ANSWERED = "answered"
    JSON = "json"
    SCHEMA = "schema"
    TOOLS = "tools"
    NOT_REFUSED = "not_refused"
    NOT_CUT_OFF = "not_cut_off"


class CheckSides(StrEnum):
    """Which side's answer passed a check."""

    BOTH = "both"
    INCUMBENT = "incumbent_only"
    CANDIDATE = "candidate_only"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class PairSide:
    """One side's answer to a mirrored request, with its usage."""

    # The request with this side's answer; None if there is no answer.
    content: Mapping[str, Any] | None
    ms: float  # time to the whole answer; for a stream, to its first output
    output_tokens: int
    cost_usd: float


def compare_pair(
    incumbent: PairSide, candidate: PairSide
) -> tuple[dict[str, int], dict[str, float]]:
    """Compares the answers of one request. Returns counts by check and side, and sums by side.

    Omits checks that do not apply to the request. Without both answers, the sums are empty.
    Raises ValueError, TypeError, KeyError or AttributeError for an answer of another form.
    """
    incumbent_checks = _run_checks(incumbent.content)
    candidate_checks = _run_checks(candidate.content)
    counts: dict[str, int] = {}
    for check in ShadowCheck:
        if check in incumbent_checks and check in candidate_checks:
            sides = _find_sides(incumbent_checks[check], candidate_checks[check])
            counts[f"{check.value}.{sides.value}"] = 1
    if incumbent.content is None or candidate.content is None:
        return counts, {}
    counts[PAIRS] = 1
    sums: dict[str, float] = {}
    for name, side in (("incumbent", incumbent), ("candidate", candidate)):
        sums[f"{name}.ms"] = side.ms
        sums[f"{name}.output_tokens"] = float(side.output_tokens)
        sums[f"{name}.paired_usd"] = side.cost_usd
    return counts, sums


def unit_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Renames the checks of a caller's first pair, to count them once per caller."""
    names = {f"{check.value}.{sides.value}" for check in ShadowCheck for sides in CheckSides}
    return {f"{UNIT}.{name}": count for name, count in counts.items() if name in names}


def _find_sides(incumbent: bool, candidate: bool) -> CheckSides:  # noqa: FBT001 - two of a kind
    if incumbent:
        return CheckSides.BOTH if candidate else CheckSides.INCUMBENT
    return CheckSides.CANDIDATE if candidate else CheckSides.NEITHER


def _run_checks(content: Mapping[str, Any] | None) -> dict[ShadowCheck, bool]:
    """Returns the checks that apply to this request, and whether its answer passes them."""
    if content is None:
        return {ShadowCheck.ANSWERED: False}
    answer = content["answer"]
    finish_reason = answer.get("finish_reason")
    text = answer.get("content")
    is_refusal = (
        finish_reason in REFUSAL_REASONS
        or bool(answer.get("refusal"))
        or text == REDACTED_REFUSAL
    )
    checks = {
        ShadowCheck.ANSWERED: True,
        ShadowCheck.NOT_REFUSED: not is_refusal,
        ShadowCheck.NOT_CUT_OFF: finish_reason not in CUT_OFF_REASONS,
    }
    calls = answer.get("tool_calls") or ()
    if content.get("tools"):
        checks[ShadowCheck.TOOLS] = all(
            _is_valid_call(call, content["tools"]) for call in calls
        )
    response_format = content.get("response_format") or {}
    if response_format.get("type") in ("json_object", "json_schema") and not calls:
        is_json, value = _parse_json(_answer_text(answer))
        checks[ShadowCheck.JSON] = is_json
        if response_format["type"] == "json_schema":
            schema = (response_format.get("json_schema") or {}).get("schema")
            checks[ShadowCheck.SCHEMA] = is_json and matches_schema(
                value, schema, THREAD_LIMITS
            )
    return checks


def _is_valid_call(call: Mapping[str, Any], tools: list[Mapping[str, Any]]) -> bool:
    """Tells whether a call names an offered tool, with arguments that match its schema."""
    function = call.get("function") or {}
    offered = {
        tool["function"]["name"]: tool["function"] for tool in tools if "function" in tool
    }
    if function.get("name") not in offered:
        return False
    is_json, arguments = _parse_json(function.get("arguments") or "{}")
    schema = offered[function["name"]].get("parameters")
    return (
        is_json
        and isinstance(arguments, dict)
        and matches_schema(arguments, schema, THREAD_LIMITS)
    )


def _parse_json(text: object) -> tuple[bool, object]:
    """Returns whether the text is JSON, and its value."""
    try:
        return True, json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return False, None


def _answer_text(answer: Mapping[str, Any]) -> str:
    content = answer.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return content if isinstance(content, str) else ""
