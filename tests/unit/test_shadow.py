from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from harness.canary.shadows import (
    check_log_e,
    combined_log_e,
    is_harm,
    share_of_level,
)
from harness.frame.errors import InputError
from harness.providers.target import Target
from harness.routing.route_settings import RouteSettings
from harness.routing.shadow import (
    PairSide,
    Shadow,
    ShadowLimits,
    ShadowTally,
    ShadowUsage,
    add_tallies,
    check_shadow_limits,
    compare_pair,
    sum_usage,
    unit_counts,
    within_budget,
)
from harness.routing.table import Canary, Route, find_shadow_end, is_mirrored
from router.recording.shared_files import SharedMarks
from router.recording.sums import DayTotals, Sums

pytestmark = pytest.mark.req("F8")

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TODAY = NOW.date()
OLD = Target("up", "old")
NEW = Target("up", "new")
SHADOW = Shadow(
    id="sh_1",
    route="support",
    incumbent=OLD.id,
    candidate=NEW,
    data_class="personal",
    limits=ShadowLimits(share_bps=1000),
    proposal=None,
    reason="to see",
    started_by="ada",
    started_at=NOW,
    expires_at=NOW + timedelta(days=1),
)
ROUTE = Route("support", 1, OLD.id, settings=RouteSettings(data_class="personal"))
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {
            "type": "object",
            "properties": {"id": {"type": "integer"}},
            "required": ["id"],
        },
    },
}


def side(
    answer: dict[str, object] | None,
    ms: float = 10.0,
    **asked: object,
) -> PairSide:
    content = (
        None
        if answer is None
        else {
            "messages": [],
            "answer": answer,
            **asked,
        }
    )
    return PairSide(content, ms, 5, 0.001)


def calling(arguments: str, name: str = "find") -> dict[str, object]:
    call = {
        "id": "c",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }
    return {
        "content": None,
        "tool_calls": [call],
        "finish_reason": "tool_calls",
    }


def test_a_tenth_of_the_callers_is_mirrored_the_same_ones_each_time() -> None:
    drawn = [is_mirrored(SHADOW, f"user-{n}") for n in range(10_000)]

    assert 900 < sum(drawn) < 1100
    assert drawn == [is_mirrored(SHADOW, f"user-{n}") for n in range(10_000)]
    other = [is_mirrored(replace(SHADOW, id="sh_2"), f"user-{n}") for n in range(10_000)]
    assert sum(a and b for a, b in zip(drawn, other, strict=True)) < 200


@pytest.mark.parametrize(
    ("route", "word"),
    [
        (None, "does not exist"),
        (
            replace(
                ROUTE,
                settings=RouteSettings(data_class="personal", side_effects=True),
            ),
            "have side effects",
        ),
        (
            replace(ROUTE, settings=RouteSettings(data_class="health")),
            "another class",
        ),
        (replace(ROUTE, incumbent="another"), "another incumbent"),
        (replace(ROUTE, canary=Canary(NEW.id, 100, "s", "r-1")), "canary"),
    ],
)
def test_a_shadow_ends_when_what_it_was_cleared_for_is_no_more(
    route: Route | None, word: str
) -> None:
    assert word in find_shadow_end(SHADOW, route)
    assert not find_shadow_end(SHADOW, ROUTE)


@pytest.mark.parametrize(
    ("used", "priced", "may"),
    [
        (ShadowUsage(999, 0.99), True, True),
        (ShadowUsage(1000, 0.0), True, False),
        (ShadowUsage(0, 1.0), True, False),
        (ShadowUsage(0, 0.0), False, False),
    ],
)
def test_either_budget_ends_it_and_an_unknown_price_has_none(
    *,
    used: ShadowUsage,
    priced: bool,
    may: bool,
) -> None:
    assert within_budget(ShadowLimits(), used, priced=priced) is may
    assert within_budget(ShadowLimits(usd_per_day=None), ShadowUsage(999, 1e9), priced=False)


@pytest.mark.parametrize(
    "limits",
    [
        ShadowLimits(share_bps=10_001),
        ShadowLimits(at_once=0),
        ShadowLimits(at_once=65),
        ShadowLimits(requests_per_day=0),
        ShadowLimits(usd_per_day=0.0),
        ShadowLimits(usd_per_day=1e9),
        ShadowLimits(usd_per_day=float("inf")),
        ShadowLimits(usd_per_day=float("nan")),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: ShadowLimits) -> None:
    with pytest.raises(InputError):
        check_shadow_limits(limits)


def test_sums_of_workers_add_up_and_nothing_counts_twice() -> None:
    new: Sums[ShadowTally] = Sums("shadows")
    mine = DayTotals("w-1", new, "shadow", sum_usage)
    mine.note(
        [
            ShadowTally(
                "sh_1",
                TODAY,
                "w-1",
                {"mirrored": 2},
                {"candidate.cost_usd": 0.25},
            )
        ]
    )
    assert not mine.knows("sh_1")  # nobody said what others spend
    written = new.take()
    theirs = ShadowTally("sh_1", TODAY, "w-2", {"mirrored": 3}, {"candidate.cost_usd": 0.5})

    mine.know(["sh_1"], [*written, theirs])

    assert mine.knows("sh_1")
    assert mine.used("sh_1", TODAY) == ShadowUsage(5, 0.75)
    assert mine.used("sh_1", date(2026, 11, 21)) == ShadowUsage()
    assert new.take() == []
    assert sum_usage([add_tallies(theirs, theirs)], TODAY) == ShadowUsage(6, 1.0)


def test_a_pair_is_compared_by_what_the_request_asks_for() -> None:
    schema = {
        "type": "object",
        "required": ["a"],
        "additionalProperties": False,
        "properties": {"a": {"type": "string"}},
    }
    form = {"type": "json_schema", "json_schema": {"schema": schema}}
    good = side(
        {"content": '{"a": "x"}', "finish_reason": "stop"},
        response_format=form,
    )
    bad = side(
        {"content": '{"b": 1}', "finish_reason": "length"},
        30.0,
        response_format=form,
    )

    counts, sums = compare_pair(good, bad)

    assert counts == {
        "answered.both": 1,
        "json.both": 1,
        "schema.incumbent_only": 1,
        "not_refused.both": 1,
        "not_cut_off.incumbent_only": 1,
        "pairs": 1,
    }
    assert (sums["incumbent.ms"], sums["candidate.ms"]) == (10.0, 30.0)


@pytest.mark.parametrize(
    ("arguments", "name", "valid"),
    [
        ('{"id": 7}', "find", True),
        ('{"id": "seven"}', "find", False),
        ("{", "find", False),
        ("{}", "find", False),
        ('{"id": 7}', "invented", False),
    ],
)
def test_a_tool_call_names_an_offered_tool_with_its_arguments(
    *,
    arguments: str,
    name: str,
    valid: bool,
) -> None:
    plain = side({"content": "no need", "finish_reason": "stop"}, tools=[TOOL])
    counts, _ = compare_pair(plain, side(calling(arguments, name), tools=[TOOL]))

    assert counts["tools.both" if valid else "tools.incumbent_only"] == 1


def test_no_answer_and_a_refusal_are_told_apart() -> None:
    fine = side({"content": "hello there", "finish_reason": "stop"})

    assert compare_pair(fine, side(None)) == (
        {"answered.incumbent_only": 1},
        {},
    )
    refused = side(
        {
            "content": "",
            "refusal": "I will not",
            "finish_reason": "stop",
        }
    )
    counts, _ = compare_pair(fine, refused)
    assert counts["not_refused.incumbent_only"] == 1


def test_the_evidence_says_harm_after_few_lost_pairs_and_never_for_won_ones() -> None:
    assert not is_harm(combined_log_e({}))
    assert not is_harm(check_log_e(5, 0))
    assert is_harm(check_log_e(8, 0))
    assert not is_harm(check_log_e(0, 500))
    assert share_of_level(check_log_e(0, 500)) == 0.0
    # One check among six carries a sixth of the evidence.
    rest = {str(n): (0, 0) for n in range(5)}
    assert is_harm(combined_log_e({"schema": (13, 0), **rest}))


def test_a_caller_counts_once_however_many_workers_and_requests(tmp_path: Path) -> None:
    one, other = (SharedMarks(b"secret", tmp_path / "marks") for _ in range(2))
    assert [marks.first("p:a") for marks in (one, one, other)] == [True, False, False]
    assert other.first("p:b")
    assert not one.first("p:b")
    assert one.first("q:a")


def test_a_callers_first_pair_is_told_by_its_checks_alone() -> None:
    counts = {
        "pairs": 1,
        "mirrored": 1,
        "json.both": 1,
        "schema.candidate_only": 1,
    }
    assert unit_counts(counts) == {
        "unit.json.both": 1,
        "unit.schema.candidate_only": 1,
    }
