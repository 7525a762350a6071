"""What a policy has registered says how blocks become evidence (statistics.md §2.11)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from harness.domain.canary.guardrails import ArmLevels, FailureTally, Guardrail
from harness.domain.canary.observation import NeverSeen, ObservationBlock
from harness.domain.proposals.policy import CanaryPolicy, CanaryStep
from harness.gate.online.evidence_paths import TIMES, counts_path, skip_warm_up
from harness.gate.online.rollout_evidence import collect_evidence
from tests.support.store.records import PLAIN_BLOCK

pytestmark = pytest.mark.req("F3")
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
    return block(number, ranks=dict.fromkeys(on, (0.999,)), levels=dict.fromkeys(on, level))


def test_a_small_block_is_judged_by_the_planned_share_only_where_arms_are_coins() -> None:
    path = counts_path([ONE_FAILS])

    assert path[-1] == pytest.approx(0.0)


COLD = replace(NEW, guardrails=replace(NEW.guardrails, output_tokens=False))


def busy(number: int, worker: str = "w-1", weight_bps: int = 100) -> ObservationBlock:
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
            [*COLD_UNITS, *(busy(n, "w-2") for n in range(102, 112))], 600, id="another-router"
        ),
        pytest.param(
            [*COLD_UNITS, *(busy(n, weight_bps=2500) for n in range(102, 112))],
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


def test_a_bake_has_no_warm_up() -> None:
    baking = [replace(slow(n), weight_bps=9900, canary_units=99) for n in range(1, 20)]

    assert collect_evidence(baking, COLD).block is not None


def test_ranks_with_units_of_the_warm_up_go_with_it() -> None:
    policy = replace(COLD, warm_up_units=0)
    pooled = NeverSeen(50, 1, 0, 0, ranks={Guardrail.LATENCY: (0.7,), Guardrail.JUDGE: (0.1,)})
    first, plain, mixed, last = skip_warm_up(
        [slow(1), block(12), replace(slow(13), never_seen=pooled), slow(14)], policy
    )

    assert Guardrail.LATENCY not in first.ranks
    assert plain == block(12)
    assert set(mixed.ranks) == {Guardrail.OUTPUT_TOKENS}
    assert mixed.never_seen is not None
    assert mixed.never_seen.ranks == {Guardrail.JUDGE: (0.1,)}
    assert last == slow(14)


def test_the_warm_up_leaves_errors_and_amounts_alone() -> None:
    first = replace(slow(1), failures=1, canary_failures=1)

    (kept,) = skip_warm_up([first], NEW)
    assert kept.ranks == {Guardrail.OUTPUT_TOKENS: (0.999,)}
    assert set(kept.levels) == {Guardrail.OUTPUT_TOKENS}
    assert replace(kept, ranks=first.ranks, levels=first.levels) == first


@pytest.mark.parametrize(("least", "units"), [(300, 100), (90, 30), (2, 0)])
def test_the_warm_up_is_a_third_of_the_first_step_at_the_most(least: int, units: int) -> None:
    assert replace(NEW, steps=(CanaryStep(100, least),)).cold_units == units
