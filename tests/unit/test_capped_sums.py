"""Bets on a capped mean: their range, their pairs, and their place beside the ranks."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.frame.plain_data import from_plain, to_plain
from harness.gate.online.capped_sums import (
    SUM_LEAST,
    CappedExposure,
    CappedTotals,
    bet_on_sums,
)
from harness.gate.online.evidence_paths import (
    CAPPED_WEIGHTS,
    guardrail_path,
    ranks_path,
    skip_warm_up,
    sums_path,
)
from harness.gate.online.guardrails import ArmLevels, ExposureRule, Guardrail
from harness.gate.online.observation import NeverSeen, ObservationBlock
from harness.gate.online.outcome import (
    ANSWERED,
    ExposureOutcome,
    OutcomeKind,
    OutcomeReason,
)
from harness.gate.online.reading.scored_exposures import GuardrailSample, SampleValues
from harness.gate.online.rollout_evidence import collect_evidence
from harness.gate.policy import CanaryPolicy
from harness.routing.records.block_checks import check_block
from router.recording.ledger import Ledger

pytestmark = pytest.mark.req("F3")
NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)
COST: Final = Guardrail.COST_PER_SUCCESS
TIME: Final = Guardrail.LATENCY
NAME: Final = ("r", "w", 1)
POLICY: Final = CanaryPolicy()
USUAL: Final = {Guardrail.ERRORS: 0.02}


def bets(
    values: list[CappedExposure], cap: float = 10.0, tolerated: float = 1.5
) -> list[float]:
    found = bet_on_sums(values, guardrail=COST, tolerated=tolerated, cap=cap, block=NAME)
    return [value / SUM_LEAST for value in found]


def units(canary: list[float], control: list[float]) -> list[CappedExposure]:
    return [
        *(CappedExposure(canary=True, value=value) for value in canary),
        *(CappedExposure(canary=False, value=value) for value in control),
    ]


def test_a_bet_is_a_part_of_the_largest_loss() -> None:
    assert bets(units([3.0], [1.0] * 10)) == pytest.approx([(3.0 - 1.5) / 15.0])
    assert bets(units([0.0], [math.inf] * 10)) == pytest.approx([-1.0])
    assert bets(units([math.inf], [0.0] * 10)) == pytest.approx([10.0 / 15.0])


def test_if_the_canary_is_the_larger_arm_each_unit_of_the_incumbent_has_a_bet() -> None:
    found = bets(units([3.0] * 10, [1.0, 2.0]))

    assert sorted(found) == pytest.approx([0.0, (3.0 - 1.5) / 15.0])


@given(
    canary=st.lists(st.floats(0.0, 1e6), max_size=20),
    control=st.lists(st.floats(0.0, 1e6), max_size=20),
    tolerated=st.floats(0.5, 3.0),
    cap=st.floats(1e-6, 1e6),
)
def test_all_bets_are_storable(
    canary: list[float],
    control: list[float],
    tolerated: float,
    cap: float,
) -> None:
    found = bet_on_sums(
        units(canary, control),
        guardrail=COST,
        tolerated=tolerated,
        cap=cap,
        block=NAME,
    )

    assert all(-SUM_LEAST <= value <= 1.0 for value in found)
    smaller = min(len(canary), len(control))
    assert len(found) == smaller


def test_totals_tell_what_the_cap_leaves_out() -> None:
    totals = CappedTotals.from_exposures(units([30.0, 10.0], [1.0, math.inf]), 20.0)

    assert totals == CappedTotals(20.0, 2, 2, 30.0, 21.0, 10.0, 0.0)
    assert totals.share_above(canary=True) == 0.25
    assert totals.share_above(canary=False) == 0.0
    assert totals.ratio == pytest.approx(30.0 / 21.0)
    assert totals.plus(totals).means == totals.means
    assert totals.emptied.ratio is None


def block(number: int, **changes: object) -> ObservationBlock:
    plain = ObservationBlock("r", "w", number, 100, 100, 1, 0, 0, 0, NOW, NOW, number)
    return replace(plain, **changes)  # type: ignore[arg-type]


EMPTY: Final = CappedTotals.from_exposures((), 20.0)


def test_ranks_and_sums_have_half_of_the_guardrail_each() -> None:
    ranks = (0.9, 0.8)
    ys = (0.5, -0.1)
    blocks = [block(1, ranks={COST: ranks}, bets={COST: ys}, capped={COST: EMPTY}), block(2)]

    path = guardrail_path(blocks, COST, POLICY)

    both = math.exp(ranks_path([ranks])[-1]) + math.exp(sums_path([ys], CAPPED_WEIGHTS)[-1])
    assert math.exp(path[-1]) == pytest.approx(both / 2.0)
    assert sum(CAPPED_WEIGHTS) == pytest.approx(1.0)


def test_without_a_cap_the_ranks_have_the_whole_guardrail() -> None:
    blocks = [block(1, ranks={COST: (0.9, 0.8)})]

    assert guardrail_path(blocks, COST, POLICY) == pytest.approx(ranks_path([(0.9, 0.8)]))


def test_bets_on_times_do_not_count_in_the_warm_up() -> None:
    new = NeverSeen(50, 1, 0, 0, ranks={}, bets={TIME: (0.3,), COST: (0.2,)})
    found = block(
        1,
        bets={TIME: (0.5,), COST: (0.4,)},
        levels={COST: ArmLevels(1.0, 1.0)},
        capped={TIME: CappedTotals(9.0, 1, 9, 1.0, 9.0, 0.0, 0.0)},
        never_seen=new,
    )

    (kept,) = skip_warm_up([found], POLICY)

    assert kept.bets == {COST: (0.4,)}
    assert kept.capped == {TIME: CappedTotals(9.0, 0, 0, 0.0, 0.0, 0.0, 0.0)}
    assert kept.never_seen == replace(new, bets={COST: (0.2,)})


def test_a_candidate_whose_sum_alone_is_too_high_is_described_by_it() -> None:
    totals = CappedTotals(0.02, 500, 1500, 1.5, 1.5, 0.5, 0.0)
    blocks = [
        block(
            number,
            ranks={COST: (0.4, 0.6)},
            bets={COST: (0.6,) * 25},
            levels={COST: ArmLevels(0.001, 0.001)},
            capped={COST: totals},
        )
        for number in range(1, 12)
    ]

    found = collect_evidence(blocks, POLICY)

    assert found.tripped is COST
    evidence = next(one for one in found.guardrails if one.guardrail is COST)
    assert evidence.text == (
        "costs 3 × as much as the incumbent for an answer, as a mean of values up to $0.02, "
        "with failed requests as usual ones: $3 against $1 per 1,000 answers; "
        "above it, and left out: 25 % of the candidate's sum, 0 % of the incumbent's"
    )


FAILED: Final = ExposureOutcome(OutcomeKind.FAILED, OutcomeReason.PROVIDER, "timeout")
LEFT: Final = ExposureOutcome(OutcomeKind.LEFT)


def recorded(canary: ExposureOutcome | None, control: ExposureOutcome | None) -> CappedTotals:
    """Records a block: in each arm 9 answers of 1 s, and one request that ended as given."""
    rule = ExposureRule(
        block_size=20, guardrails={TIME: 1.25}, caps={TIME: 20.0}, usual_rates=USUAL
    )
    ledger = Ledger("r", "w", rule)
    for number in range(20):
        in_canary = number % 2 == 0
        unit = ledger.admit(number, canary=in_canary, weight_bps=5_000, now=0.0, at=NOW)
        assert unit is not None
        outcome = ANSWERED if number >= 2 else (canary if in_canary else control)
        if outcome is not None:
            seconds = None if outcome is FAILED else 1.0 if number >= 2 else 3.0
            sample = GuardrailSample(SampleValues(latency=seconds))
            ledger.finish(unit, outcome=outcome, sample=sample)
    (found,) = ledger.close(1.0, NOW)
    assert len(found.bets[TIME]) == 10
    assert found.usual_rates == USUAL
    check_block(found)
    return found.capped[TIME]


@pytest.mark.parametrize(
    ("outcome", "canary_s", "control_s"),
    [(FAILED, 10.0, 10.0), (LEFT, 12.0, 29.0), (None, 9.0, 29.0)],
    ids=["failed", "left", "missing"],
)
def test_a_failure_is_neutral_and_what_is_not_known_counts_for_the_candidate(
    outcome: ExposureOutcome | None,
    canary_s: float,
    control_s: float,
) -> None:
    totals = recorded(outcome, outcome)

    assert (totals.canary, totals.control) == (10, 10)
    assert (totals.canary_sum, totals.control_sum) == (canary_s, control_s)


def test_blocks_and_rules_keep_caps_and_rates_in_storage() -> None:
    rule = ExposureRule(caps={COST: 0.02}, usual_rates=USUAL)
    stored = block(1, bets={COST: (0.5,)}, capped={COST: EMPTY}, usual_rates=USUAL)

    assert from_plain(ExposureRule, to_plain(rule)) == rule
    assert from_plain(ObservationBlock, to_plain(stored)) == stored
    check_block(stored)


def test_old_blocks_and_rules_have_neither() -> None:
    old = {
        name: value
        for name, value in to_plain(ExposureRule()).items()
        if name not in ("caps", "usual_rates")
    }

    assert from_plain(ExposureRule, old) == ExposureRule()
