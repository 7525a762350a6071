import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate.online.evidence_paths import (
    guardrail_path,
    guardrail_weights,
    sums_path,
)
from harness.gate.online.guardrail_report import GuardrailEvidence
from harness.gate.online.guardrails import (
    RANK_GUARDRAILS,
    ArmLevels,
    ArmSplit,
    ErrorTally,
    FailureTally,
    Guardrail,
    Guardrails,
)
from harness.gate.online.observation import NeverSeen, ObservationBlock
from harness.gate.online.rollout_evidence import (
    CanaryEvidence,
    collect_evidence,
    distance_path,
)
from harness.gate.policy import CanaryPolicy

pytestmark = pytest.mark.req("F3")

NOW = datetime(2026, 3, 1, tzinfo=UTC)
POLICY = CanaryPolicy(warm_up_s=0.0, warm_up_units=0)
G = Guardrail


def block(number: int, **changes: object) -> ObservationBlock:
    plain = ObservationBlock("r", "w", number, 100, 100, 1, 0, 0, 0, NOW, NOW, number)
    return replace(plain, **changes)  # type: ignore[arg-type]


def evidence_for(evidence: CanaryEvidence, guardrail: Guardrail) -> GuardrailEvidence:
    return next(
        guardrail_evidence
        for guardrail_evidence in evidence.guardrails
        if guardrail_evidence.guardrail is guardrail
    )


@st.composite
def tallies(draw: st.DrawFn) -> FailureTally:
    canary = draw(st.integers(0, 5))
    control = draw(st.integers(0, 100))
    y = draw(st.integers(0, canary))
    others = draw(st.integers(0, control))
    return FailureTally(canary + control, canary, y + others, y)


units = st.floats(0.0, 1.0)
LOST = ArmSplit(40, 1)


def test_units_whose_outcome_is_unknown_are_evidence_of_no_arm() -> None:
    failing = {
        "failures": 12,
        "canary_failures": 1,
        "weight_bps": 500,
    }
    unknown = ErrorTally(100, 2, 12, 1, unknown=LOST)
    found = block(
        1,
        **failing,
        canary_units=2,
        counts={G.ERRORS: unknown},
    )
    known = block(
        1,
        **failing,
        units=60,
        canary_units=1,
    )

    evidence = collect_evidence([found], POLICY)
    expected = collect_evidence([known], POLICY)
    assert evidence.log_e == expected.log_e
    assert evidence.log_certificate == expected.log_certificate
    assert evidence.exposures_by_weight == {500: 1}


def test_the_first_unknown_outcome_ends_the_use_of_the_planned_share() -> None:
    # Each small block has one failure, in the canary. Only the planned share makes it evidence.
    small = {
        "units": 5,
        "canary_units": 1,
        "failures": 1,
        "canary_failures": 1,
    }
    before = [block(number, **small) for number in range(1, 4)]
    limited = ErrorTally(5, 0, 0, 0, unknown=ArmSplit(1, 0))
    first = block(
        4,
        units=5,
        canary_units=0,
        counts={G.ERRORS: limited},
    )
    after = [block(number, **small) for number in range(5, 8)]

    path = guardrail_path([*before, first, *after], G.ERRORS, POLICY)
    assert path[2] > path[1] > path[0] > 0.0
    assert set(path[3:]) == {path[2]}


def test_limited_requests_of_the_incumbent_are_no_evidence_that_callers_leave() -> None:
    # The provider limits half of the incumbent's requests, so half of its callers cannot leave.
    # A tenth of all others leave.
    limited = ErrorTally(21, 1, 0, 0, unknown=ArmSplit(10, 0))
    blocks = []
    for number in range(1000):
        leaves = number % 10 == 0
        left = FailureTally(11, 1, 1 + leaves, int(leaves))
        counts = {G.LEAVING: left, G.ERRORS: limited}
        blocks.append(block(number, weight_bps=500, units=21, counts=counts))
    assert guardrail_path(blocks, G.LEAVING, POLICY).max() < 1.0


def test_a_block_in_which_nothing_is_known_adds_no_exposure() -> None:
    nothing = ErrorTally(100, 1, 0, 0, unknown=ArmSplit(100, 1))
    evidence = collect_evidence([block(1, counts={G.ERRORS: nothing})], POLICY)
    assert evidence.exposures_by_weight == {}
    assert (evidence.log_e, evidence.log_certificate) == pytest.approx((0.0, 0.0))


def test_outcomes_and_requests_that_were_not_sent_sum_to_the_assigned_requests() -> None:
    blocks = [
        block(
            n,
            outcomes={
                "answered": ArmSplit(98, 1),
                "limited: rate": ArmSplit(2, 0),
            },
            uncounted={
                "not_sent: pause": ArmSplit(4, 3),
                "max_keys": ArmSplit(5, 0),
            },
        )
        for n in (1, 2)
    ]
    evidence = collect_evidence(blocks, POLICY)

    assert evidence.outcomes == {
        "answered": (196, 2),
        "limited: rate": (4, 0),
        "not_sent: pause": (8, 6),
    }
    assert evidence.uncounted == {"max_keys": (10, 0)}
    assert evidence.assigned == (208, 8)
    limits = evidence_for(evidence, G.LIMITS)
    assert (limits.control_failures, limits.control, limits.canary) == (4, 198, 2)


def test_bets_on_a_mean_are_evidence_only_if_the_mean_is_above_zero() -> None:
    harm = sums_path([(0.9,)] * 60)
    fair = sums_path([(0.9,), (-0.9,)] * 30)
    assert harm[-1] > math.log(1_000)
    assert fair[-1] < 0.0
    assert list(sums_path([(), (math.nan,)])) == [0.0, 0.0]


@given(st.lists(st.floats(-1.1, 1.0), max_size=30))
def test_no_sequence_of_bets_loses_everything(bets: list[float]) -> None:
    assert np.isfinite(sums_path([tuple(bets)])).all()


@pytest.mark.parametrize("guardrail", [G.TRUNCATION, G.ERRORS])
def test_a_small_block_of_a_guardrail_that_leaves_failures_out_waits_for_others(
    guardrail: Guardrail,
) -> None:
    tally = FailureTally(4, 1, 1, 1)
    small = block(
        1,
        units=4,
        canary_units=1,
        failures=1,
        canary_failures=1,
    )
    path = guardrail_path([replace(small, counts={guardrail: tally})], guardrail, POLICY)
    assert bool(path[-1] > 0.0) is (guardrail is G.ERRORS)


def test_errors_weigh_seven_tenths_leaving_two_and_the_others_share_the_last() -> None:
    weights = guardrail_weights(POLICY.tolerated)
    own = (G.ERRORS, G.CALLER_ERRORS, G.LEAVING)
    assert [weights[name] for name in own] == [0.35, 0.35, 0.2]
    others = {weight for name, weight in weights.items() if name not in own}
    assert len(others) == 1
    assert sum(weights.values()) == pytest.approx(1.0)


def test_a_guardrail_that_is_off_gives_its_weight_to_errors() -> None:
    assert guardrail_weights([G.ERRORS]) == {G.ERRORS: 1.0}
    assert guardrail_weights([G.ERRORS, G.LEAVING])[G.ERRORS] == pytest.approx(0.8)
    assert guardrail_weights([G.ERRORS, G.LATENCY])[G.ERRORS] == pytest.approx(0.9)


def test_one_guardrail_trips_alone_at_its_share_of_alpha_and_is_named() -> None:
    slow = {
        "ranks": {G.LATENCY: (0.995,)},
        "levels": {G.LATENCY: ArmLevels(4.2, 2.0)},
    }
    evidence = collect_evidence([block(n, **slow) for n in range(1, 40)], POLICY)

    assert evidence.block is not None
    assert evidence.tripped is G.LATENCY
    latency = evidence_for(evidence, G.LATENCY)
    assert latency.log_e == pytest.approx(
        math.log((1 / 0.03 - (1 - latency.weight)) / latency.weight), abs=0.8
    )
    assert latency.text == (
        "takes 2.1 × as long as the incumbent for an answer: 4.2 s against 2 s"
    )


@given(
    tally=tallies(),
    ranks=st.lists(units, max_size=3),
    # Errors, of first requests and of windows, are never off.
    guardrail=st.sampled_from(
        [one for one in Guardrail if one not in (G.ERRORS, G.CALLER_ERRORS)]
    ),
)
def test_a_guardrail_that_is_off_is_never_looked_at(
    tally: FailureTally,
    ranks: list[float],
    guardrail: Guardrail,
) -> None:
    policy = replace(POLICY, guardrails=Guardrails.none())
    if guardrail in RANK_GUARDRAILS:
        seen = block(1, ranks={guardrail: tuple(ranks)})
    else:
        seen = block(1, counts={guardrail: tally})
    assert collect_evidence([seen], policy).log_e == 0.0


CARRYING = replace(POLICY, guardrails=Guardrails.none(), alpha=0.05)
ALL_NEW = NeverSeen(100, 1, 10, 1)


def sick(
    number: int,
    period: int,
    never_seen: NeverSeen | None,
) -> ObservationBlock:
    return block(
        number,
        failures=10,
        canary_failures=1,
        period=period,
        never_seen=never_seen,
    )


def test_what_never_seen_keys_showed_is_carried_over_the_days() -> None:
    days = [sick(day, day, ALL_NEW) for day in range(1, 6)]
    pooled = collect_evidence([replace(day, period=1) for day in days], CARRYING)

    evidence = collect_evidence(days, CARRYING)

    assert evidence.carried
    assert evidence.limit == pytest.approx(math.log(1 / (0.75 * 0.05)))
    assert evidence.log_e == pytest.approx(pooled.log_e)
    assert evidence.block == pooled.block == 2


def test_a_block_that_asked_no_ledger_counts_as_never_seen_on_the_first_day_alone() -> None:
    first = sick(1, 1, None)
    second = sick(2, 2, None)

    assert first.of_new_keys == first
    assert second.of_new_keys is None
    assert collect_evidence([first], CARRYING).log_e > 0.0
    assert collect_evidence([second], CARRYING).log_certificate == 0.0


@given(cut=st.integers(0, 30))
def test_carried_evidence_at_more_data_never_changes_what_was_seen_before(cut: int) -> None:
    rng = np.random.default_rng(3)
    blocks = []
    for n in range(1, 31):
        failures = int(rng.integers(0, 3))
        new = int(rng.integers(0, 2))
        never_seen = ALL_NEW if new and failures else NeverSeen(0, 0, 0, 0)
        failures = 10 if never_seen == ALL_NEW else failures
        blocks.append(
            block(
                n,
                failures=failures,
                canary_failures=int(failures == 10),
                period=1 + n // 4,
                never_seen=never_seen,
            )
        )
    policy = replace(CARRYING, alpha=1e-9)
    assert distance_path(blocks[:cut], policy) == distance_path(blocks, policy)[:cut]
