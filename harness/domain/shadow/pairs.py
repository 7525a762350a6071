"""A shadow pair compares the incumbent's and the candidate's answer to one request, without a
model: form, latency, tokens, cost and words. Only counts and sums go out. Pure. `is_mirrored`
draws the callers; `end_reason` ends a shadow whose route has changed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from harness.domain.json_schema import THREAD_LIMITS, matches_schema
from harness.domain.routing.table import Route, hash_bucket
from harness.domain.shadow.shadow import Shadow

PAIRS: Final = "pairs"
SIMILARITY: Final = "similarity"
UNIT: Final = "unit"
CUT_OFF_REASONS: Final = frozenset({"length", "max_tokens", "incomplete"})
REFUSAL_REASONS: Final = frozenset({"content_filter", "refusal"})
REDACTED_REFUSAL: Final = "[refusal left out]"


class ShadowCheck(StrEnum):
    """What an answer holds or does not. SCHEMA: it is valid as `domain.json_schema` judges."""

    ANSWERED = "answered"
    JSON = "json"
    SCHEMA = "schema"
    TOOLS = "tools"
    NOT_REFUSED = "not_refused"
    NOT_CUT_OFF = "not_cut_off"


class CheckSides(StrEnum):
    """Says which side of a pair holds a check."""

    BOTH = "both"
    INCUMBENT = "incumbent_only"
    CANDIDATE = "candidate_only"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class PairSide:
    """Holds one side of a shadow pair: the incumbent's or the candidate's."""

    # The request and this side's answer to it; None where it gave none.
    content: Mapping[str, Any] | None
    ms: float  # to the whole answer, of a stream to its first output
    output_tokens: int
    cost_usd: float


def compare_pair(
    incumbent: PairSide, candidate: PairSide
) -> tuple[dict[str, int], dict[str, float]]:
    """Compares the sides of a shadow pair: counts and sums. Raises ValueError, TypeError,
    KeyError or AttributeError for content of another shape.
    """
    ours, theirs = _checks(incumbent.content), _checks(candidate.content)
    counts = {
        f"{check.value}.{_both(ours[check], theirs[check]).value}": 1
        for check in ShadowCheck
        if check in ours and check in theirs
    }
    if incumbent.content is None or candidate.content is None:
        return counts, {}
    counts[PAIRS] = 1
    sums: dict[str, float] = {}
    for name, side in (("incumbent", incumbent), ("candidate", candidate)):
        text = _text(side.content or {})
        sums[f"{name}.ms"] = side.ms
        sums[f"{name}.output_tokens"] = float(side.output_tokens)
        sums[f"{name}.characters"] = float(len(text))
        sums[f"{name}.paired_usd"] = side.cost_usd
    if candidate.ms > incumbent.ms:
        counts["slower"] = 1
    one, other = (_text(side.content or {}) for side in (incumbent, candidate))
    sums[SIMILARITY] = word_similarity(one, other)
    return counts, sums


def unit_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """The checks of a caller's first pair, by the names that callers are counted under."""
    names = {f"{check.value}.{both.value}" for check in ShadowCheck for both in CheckSides}
    return {f"{UNIT}.{name}": n for name, n in counts.items() if name in names}


def word_similarity(one: str, other: str) -> float:
    """Returns the Jaccard similarity of two texts' words, from 0 to 1."""
    a, b = set(one.casefold().split()), set(other.casefold().split())
    return len(a & b) / len(a | b) if a | b else 1.0


def _both(incumbent: bool, candidate: bool) -> CheckSides:  # noqa: FBT001 - two of a kind
    if incumbent:
        return CheckSides.BOTH if candidate else CheckSides.INCUMBENT
    return CheckSides.CANDIDATE if candidate else CheckSides.NEITHER


def _checks(content: Mapping[str, Any] | None) -> dict[ShadowCheck, bool]:
    """Checks an answer for what its request asks for; a missing answer fails only ANSWERED."""
    if content is None:
        return {ShadowCheck.ANSWERED: False}
    answer = content["answer"]
    ended = answer.get("finish_reason")
    said = answer.get("content")
    refused = (
        ended in REFUSAL_REASONS or bool(answer.get("refusal")) or said == REDACTED_REFUSAL
    )
    found = {
        ShadowCheck.ANSWERED: True,
        ShadowCheck.NOT_REFUSED: not refused,
        ShadowCheck.NOT_CUT_OFF: ended not in CUT_OFF_REASONS,
    }
    calls = answer.get("tool_calls") or ()
    if content.get("tools"):
        found[ShadowCheck.TOOLS] = all(_valid(call, content["tools"]) for call in calls)
    form = content.get("response_format") or {}
    if form.get("type") in ("json_object", "json_schema") and not calls:
        is_json, value = _parsed(_answer_text(answer))
        found[ShadowCheck.JSON] = is_json
        if form["type"] == "json_schema":
            schema = (form.get("json_schema") or {}).get("schema")
            found[ShadowCheck.SCHEMA] = is_json and matches_schema(value, schema, THREAD_LIMITS)
    return found


def _valid(call: Mapping[str, Any], tools: list[Mapping[str, Any]]) -> bool:
    """Whether it names a tool that was offered, with arguments of the tool's form."""
    function = call.get("function") or {}
    offered = {
        tool["function"]["name"]: tool["function"] for tool in tools if "function" in tool
    }
    if function.get("name") not in offered:
        return False
    is_json, given = _parsed(function.get("arguments") or "{}")
    wanted = offered[function["name"]].get("parameters")
    return is_json and isinstance(given, dict) and matches_schema(given, wanted, THREAD_LIMITS)


def _parsed(text: object) -> tuple[bool, object]:
    try:
        return True, json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return False, None


def _answer_text(answer: Mapping[str, Any]) -> str:
    content = answer.get("content")
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return content if isinstance(content, str) else ""


def _text(content: Mapping[str, Any]) -> str:
    """The answer's text, tool calls included."""
    answer = content.get("answer") or {}
    calls = (call.get("function") or {} for call in answer.get("tool_calls") or ())
    called = (f"{call.get('name')} {call.get('arguments')}" for call in calls)
    return " ".join([_answer_text(answer), *called]).strip()


def is_mirrored(shadow: Shadow, key: str) -> bool:
    """Whether a caller's requests are mirrored, independent of the canary's callers."""
    return hash_bucket(key, salt=f"shadow:{shadow.id}") < shadow.limits.share_bps


def end_reason(shadow: Shadow, route: Route | None) -> str:
    """Says why the route as it is now takes no such shadow any more; empty if it does."""
    if route is None:
        return f"there is no route {shadow.route!r} any more"
    if route.settings.side_effects:
        return "the route's tools act on the world now (side_effects)"
    if route.settings.data_class != shadow.data_class:
        return "the route carries another class of data now"
    if route.incumbent != shadow.incumbent:
        return "the route has another incumbent now"
    if route.canary is not None and route.canary.target == shadow.candidate.id:
        return "the candidate has its canary now, and answers users"
    return ""
