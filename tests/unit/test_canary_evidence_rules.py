"""What a policy has registered says how blocks become evidence (statistics.md §2.11)."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from harness.domain.canary.guardrails import ArmLevels, FailureTally, Guardrail, UnitRule
from harness.domain.canary.observation import ObservationBlock
from harness.domain.canary.rollout import build_unit_rule
from harness.domain.proposals.policy import (
    CanaryPolicy,
    CanaryStep,
)
from harness.gate.online.evidence_paths import (
    TIMES,
    counts_path,
    skip_warm_up,
)
from harness.gate.online.rollout_evidence import collect_evidence
from harness.store.schema.policies import canary_policy_from_json

pytestmark = pytest.mark.req("F3")
START = datetime(2026, 1, 1, tzinfo=UTC)
NEW = CanaryPolicy()
ONE_FAILS = FailureTally(1, 1, 1, 1)


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


def test_a_small_block_is_judged_by_the_planned_share_only_where_arms_are_coins() -> None:
    path = counts_path([ONE_FAILS])

    assert path[-1] == pytest.approx(0.0)


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


@pytest.mark.parametrize(("least", "units"), [(300, 30), (100, 10), (5, 0)])
def test_the_warm_up_is_a_tenth_of_the_first_step_at_the_most(least: int, units: int) -> None:
    assert replace(NEW, steps=(CanaryStep(100, least),)).warm_up_units == units


def test_a_policy_and_its_unit_rule_come_back_as_they_were_stored() -> None:
    assert canary_policy_from_json(NEW.as_json()) == NEW
    rule = build_unit_rule(NEW, START, ledger_salt="salt")
    assert UnitRule.from_json(rule.as_json()) == rule
