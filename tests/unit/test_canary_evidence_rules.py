"""What a policy has registered says how blocks become evidence (statistics.md §2.11)."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.domain.canary.guardrails import ArmLevels, FailureTally, Guardrail
from harness.domain.canary.observation import NeverSeen, ObservationBlock
from harness.domain.canary.rollout import build_unit_rule
from harness.domain.canary.unit_rule import UnitRule
from harness.domain.proposals.policy import (
    CanaryPolicy,
    CanaryStep,
)
from harness.gate.online.evidence_paths import (
    ODDS_WEIGHTS,
    TIMES,
    counts_path,
    guardrail_path,
    guardrail_weights,
    skip_warm_up,
)
from harness.gate.online.rollout_evidence import collect_evidence
from harness.store.schema.policies import canary_policy_from_json

pytestmark = pytest.mark.req("F3")
START = datetime(2026, 1, 1, tzinfo=UTC)
NEW = CanaryPolicy()
ONE_FAILS = FailureTally(1, 1, 1, 1)
shares = st.sampled_from([0.01, 0.05, 0.25, 0.99])


def block(number: int, **changes: object) -> ObservationBlock:
    made = ObservationBlock(
        rollout="r-1", worker="w-1", sequence=number, number=number, weight_bps=100, units=100,
        canary_units=1, failures=0, canary_failures=0, missing=0, opened_at=START,
        closed_at=START,
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def slow(number: int) -> ObservationBlock:
    """The candidate's values are the highest of all, of whatever is measured."""
    on = (*TIMES, Guardrail.OUTPUT_TOKENS)
    level = ArmLevels(2.0, 1.0)
    return block(number, ranks=dict.fromkeys(on, (0.999,)), levels=dict.fromkeys(on, level))


def test_the_weights_sum_to_one() -> None:
    assert math.fsum(ODDS_WEIGHTS) == pytest.approx(1.0)
    assert math.fsum(guardrail_weights(list(Guardrail)).values()) == pytest.approx(1.0)


def test_a_caller_alone_in_a_block_says_much() -> None:
    assert counts_path([ONE_FAILS] * 3, shares=[0.01] * 3)[-1] > math.log(1000.0)


def test_a_model_whose_callers_come_back_more_often_is_not_blamed_for_it() -> None:
    """Half of those who come back on the second day are the canary's, at a share of 25 %, and
    all fail equally often, whichever arm they have.
    """
    alone = [
        block(
            number, weight_bps=2500, units=1, canary_units=number % 2, failures=number % 10 < 2,
            canary_failures=number % 10 == 1, period=2, never_seen=NeverSeen(0, 0, 0, 0),
        )
        for number in range(1, 1001)
    ]  # fmt: skip
    errors = guardrail_path(alone, Guardrail.ERRORS, NEW)
    assert errors.max() < 1.0
    # As callers whom no arm has answered before, they would show harm.
    new = [replace(b, never_seen=None, period=1) for b in alone]
    assert guardrail_path(new, Guardrail.ERRORS, NEW).max() > 10.0
    # A canary that fails more often is found all the same.
    failing = [
        replace(b, failures=b.canary_units, canary_failures=b.canary_units) for b in alone
    ]
    assert guardrail_path(failing[:100], Guardrail.ERRORS, NEW).max() > 10.0


def test_a_small_block_is_judged_by_the_planned_share_only_where_arms_are_coins() -> None:
    path = counts_path([ONE_FAILS])

    assert path[-1] == pytest.approx(0.0)


def test_a_block_in_which_a_canary_unit_was_expected_is_compared_within_itself() -> None:
    full = FailureTally(100, 1, 2, 1)

    within = counts_path([full])
    assert counts_path([full], shares=[0.01]) == within


@given(share=shares, failures=st.integers(1, 4), tolerated=st.sampled_from([0.5, 1.0, 1.25]))
def test_a_small_blocks_factor_is_at_most_one_in_the_mean_where_nothing_is_wrong(
    share: float, failures: int, tolerated: float
) -> None:
    """Each failing unit is in the canary with the planned probability, or less."""
    units = 4
    mean = sum(
        math.comb(failures, y)
        * share**y
        * (1.0 - share) ** (failures - y)
        * math.exp(
            counts_path(
                [FailureTally(units, y, failures, y)],
                tolerated,
                shares=[share],
            )[-1]
        )
        for y in range(failures + 1)
        if units * min(share, 1.0 - share) < 1.0
    )
    assert mean <= 1.0 + 1e-9


def test_slow_first_answers_of_a_cold_model_roll_nothing_back() -> None:
    cold = [slow(n) for n in range(1, 21)]

    assert collect_evidence(cold, replace(NEW, warm_up=0)).block is not None
    warm = replace(NEW, guardrails=replace(NEW.guardrails, output_tokens=False))
    assert collect_evidence(cold, warm).block is None


def test_a_model_that_stays_slow_is_rolled_back_after_its_warm_up() -> None:
    policy = replace(NEW, guardrails=replace(NEW.guardrails, output_tokens=False))
    found = collect_evidence([slow(n) for n in range(1, 60)], policy)

    assert found.block is not None
    assert 30 < found.exposures < 45


def test_the_warm_up_leaves_errors_and_amounts_alone() -> None:
    first = replace(slow(1), failures=1, canary_failures=1)

    (kept,) = skip_warm_up([first], 30)
    assert kept.ranks == {Guardrail.OUTPUT_TOKENS: (0.999,)}
    assert set(kept.levels) == {Guardrail.OUTPUT_TOKENS}
    assert replace(kept, ranks=first.ranks, levels=first.levels) == first


def test_the_warm_up_ends_with_the_block_of_its_last_unit() -> None:
    blocks = [replace(slow(n), canary_units=10) for n in range(1, 6)]

    kept = skip_warm_up(blocks, 30)
    assert [len(block.ranks) for block in kept] == [1, 1, 1, 4, 4]


@pytest.mark.parametrize(("least", "units"), [(300, 30), (100, 10), (5, 0)])
def test_the_warm_up_is_a_tenth_of_the_first_step_at_the_most(least: int, units: int) -> None:
    assert replace(NEW, steps=(CanaryStep(100, least),)).warm_up_units == units


def test_a_policy_and_its_unit_rule_come_back_as_they_were_stored() -> None:
    assert canary_policy_from_json(NEW.as_json()) == NEW
    rule = build_unit_rule(NEW, START, ledger_salt="salt")
    assert UnitRule.from_json(rule.as_json()) == rule
