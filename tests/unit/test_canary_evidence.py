"""The canary's evidence: its laws, and what a policy registers of it (statistics.md §2.11)."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.errors import InputError
from harness.gate.online.evidence_paths import (
    TIMES,
    counts_path,
    odds_grid,
    skip_warm_up,
)
from harness.gate.online.fisher import ALARM_LOG_E, log_factors, worst_log_srm
from harness.gate.online.guardrails import ArmLevels, FailureTally, Guardrail
from harness.gate.online.observation import NeverSeen, ObservationBlock
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy, CanaryStep
from tests.support.store.records import PLAIN_BLOCK

pytestmark = pytest.mark.req("F3")


@st.composite
def counts(draw: st.DrawFn) -> FailureTally:
    units = draw(st.integers(0, 120))
    canary = draw(st.integers(0, units))
    failures = draw(st.integers(0, units))
    low = max(0, failures - units + canary)
    high = min(canary, failures)
    return FailureTally(units, canary, failures, draw(st.integers(low, high)))


@given(found=counts())
def test_the_factors_average_to_1_over_what_could_have_happened(found: FailureTally) -> None:
    """An e-value: its mean is 1 when the null is true, whatever the block's margins."""
    low = max(0, found.failures - found.units + found.canary)
    high = min(found.canary, found.failures)
    null = 1.0
    harm = 3.0
    others = found.units - found.canary
    ways = [
        math.comb(found.canary, y) * math.comb(others, found.failures - y)
        for y in range(low, high + 1)
    ]
    mean = sum(
        way
        / sum(ways)
        * math.exp(
            log_factors(
                found.units,
                found.canary,
                found.failures,
                y,
                odds=(null, harm),
            )[0]
        )
        for y, way in zip(range(low, high + 1), ways, strict=True)
    )
    assert mean == pytest.approx(1.0, rel=1e-9)


def log_e(found: FailureTally) -> float:
    return float(counts_path([found], weights=())[0])


@given(found=counts())
def test_a_block_without_a_choice_says_nothing(found: FailureTally) -> None:
    if found.canary in (0, found.units) or found.failures in (
        0,
        found.units,
    ):
        assert log_e(found) == 0.0


@given(found=counts())
def test_one_more_canary_failure_never_speaks_for_the_canary(found: FailureTally) -> None:
    more = FailureTally(
        found.units,
        found.canary,
        found.failures,
        min(found.canary, found.canary_failures + 1),
    )
    if more.canary_failures > min(more.failures, more.canary):
        return
    assert log_e(more) >= log_e(found) - 1e-12


def test_what_cannot_be_counted_is_refused() -> None:
    for bad in (
        FailureTally(10, 11, 0, 0),
        FailureTally(10, 1, 11, 0),
        FailureTally(10, 1, 5, 2),
        FailureTally(10, 9, 5, 2),
        FailureTally(-1, 0, 0, 0),
    ):
        with pytest.raises(InputError):
            log_e(bad)
    with pytest.raises(InputError, match="rho is an odds ratio"):
        odds_grid(math.nan)


def test_nothing_seen_is_no_evidence_of_anything() -> None:
    evidence = collect_evidence([], CanaryPolicy())
    assert (evidence.log_e, evidence.log_certificate) == pytest.approx((0.0, 0.0))
    assert not len(counts_path([], weights=()))


START = datetime(2026, 1, 1, tzinfo=UTC)
NEW = CanaryPolicy()
NO_WARM_UP = replace(NEW, warm_up_s=0.0, warm_up_units=0)
ONE_FAILS = FailureTally(1, 1, 1, 1)


def block(number: int, **changes: object) -> ObservationBlock:
    at = START + timedelta(minutes=number)
    made = replace(PLAIN_BLOCK, opened_at=at, closed_at=at + timedelta(minutes=1))
    return replace(made, sequence=number, number=number, **changes)  # type: ignore[arg-type]


def slow(number: int) -> ObservationBlock:
    on = (*TIMES, Guardrail.OUTPUT_TOKENS)
    level = ArmLevels(2.0, 1.0)
    return block(
        number,
        ranks=dict.fromkeys(on, (0.999,)),
        levels=dict.fromkeys(on, level),
    )


def test_a_small_block_is_judged_by_the_planned_share_only_where_arms_are_coins() -> None:
    path = counts_path([ONE_FAILS])

    assert path[-1] == pytest.approx(0.0)


COLD = replace(NEW, guardrails=replace(NEW.guardrails, output_tokens=False))


def busy(
    number: int,
    worker: str = "w-1",
    weight_bps: int = 100,
) -> ObservationBlock:
    """One of many units, whose warm-up lasts as long as its time."""
    ranks = dict.fromkeys(TIMES, (0.999,) * 10)
    made = block(number, canary_units=50, ranks=ranks)
    return replace(made, worker=worker, weight_bps=weight_bps)


COLD_UNITS = [slow(n) for n in range(1, 101)]


@pytest.mark.parametrize(
    ("blocks", "ends"),
    [
        pytest.param(COLD_UNITS, 100, id="units"),
        pytest.param([busy(n) for n in range(1, 11)], 500, id="time"),
        pytest.param(
            [*COLD_UNITS, *(busy(n, "w-2") for n in range(102, 112))],
            600,
            id="another-router",
        ),
        pytest.param(
            [
                *COLD_UNITS,
                *(busy(n, weight_bps=2500) for n in range(102, 112)),
            ],
            600,
            id="another-share",
        ),
    ],
)
def test_slow_first_answers_of_a_cold_model_roll_nothing_back(
    blocks: list[ObservationBlock], ends: int
) -> None:
    last = blocks[-1]
    more = [
        replace(slow(n), worker=last.worker, weight_bps=last.weight_bps)
        for n in range(last.number + 1, last.number + 40)
    ]

    assert collect_evidence(blocks, NO_WARM_UP).block is not None
    cold = collect_evidence(blocks, COLD)
    assert (cold.block, cold.slow_in_warm_up) == (None, True)
    found = collect_evidence([*blocks, *more], COLD)
    assert found.block is not None
    assert 10 < found.exposures - ends < 25


def test_a_step_waits_for_times_after_the_warm_up_where_those_within_it_are_slow() -> None:
    cold = [busy(n) for n in range(1, 11)]
    usual = dict.fromkeys(TIMES, (0.3, 0.7) * 5)
    warm = [replace(busy(n), ranks=usual) for n in range(20, 31)]

    assert not collect_evidence(warm, COLD).slow_in_warm_up
    assert collect_evidence([*cold, warm[0]], COLD).slow_in_warm_up
    assert not collect_evidence([*cold, *warm], COLD).slow_in_warm_up


def test_late_outcomes_of_an_earlier_share_do_not_end_the_wait_for_times() -> None:
    cold = [busy(n, weight_bps=2500) for n in range(1, 11)]
    late = replace(
        block(11),
        units=0,
        canary_units=0,
        failures=0,
        canary_failures=0,
        late_of=1,
        late_units=100,
        late_canary_units=1,
    )

    assert late.weight_bps < cold[0].weight_bps
    assert collect_evidence([*cold, late], COLD).slow_in_warm_up


def test_a_bake_has_no_warm_up() -> None:
    baking = [replace(slow(n), weight_bps=9900, canary_units=99) for n in range(1, 20)]

    assert collect_evidence(baking, COLD).block is not None


def test_ranks_with_units_of_the_warm_up_go_with_it() -> None:
    policy = replace(COLD, warm_up_units=0)
    pooled = NeverSeen(
        50,
        1,
        0,
        0,
        ranks={Guardrail.LATENCY: (0.7,), Guardrail.JUDGE: (0.1,)},
    )
    pools = [replace(slow(n), never_seen=pooled) for n in (13, 14)]
    first, plain, mixed, last = skip_warm_up(
        [
            slow(1),
            block(12),
            *pools,
        ],
        policy,
    )

    assert Guardrail.LATENCY not in first.ranks
    assert plain == block(12)
    assert set(mixed.ranks) == {Guardrail.OUTPUT_TOKENS}
    assert mixed.never_seen is not None
    assert mixed.never_seen.ranks == {Guardrail.JUDGE: (0.1,)}
    assert last == pools[1]


def test_the_warm_up_leaves_errors_and_amounts_alone() -> None:
    first = replace(slow(1), failures=1, canary_failures=1)

    (kept,) = skip_warm_up([first], NEW)
    assert kept.ranks == {Guardrail.OUTPUT_TOKENS: (0.999,)}
    assert set(kept.levels) == {Guardrail.OUTPUT_TOKENS}
    assert replace(kept, ranks=first.ranks, levels=first.levels) == first


@pytest.mark.parametrize(
    ("least", "units"),
    [
        (300, 100),
        (90, 30),
        (2, 0),
    ],
)
def test_the_warm_up_is_a_third_of_the_first_step_at_the_most(least: int, units: int) -> None:
    assert replace(NEW, steps=(CanaryStep(100, least),)).cold_exposures == units


def test_the_split_of_callers_is_judged_from_the_first_block_of_a_step_on() -> None:
    wrong = replace(PLAIN_BLOCK, units=1_000, canary_units=500)

    assert worst_log_srm([wrong], wrong.opened_at) >= ALARM_LOG_E
    assert worst_log_srm([wrong], wrong.opened_at + timedelta.resolution) == 0.0
