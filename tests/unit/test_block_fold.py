"""Which facts of a rollout's rows a block counts (statistics.md §2.1, §2.18, §2.19)."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from harness.gate.online.evidence_paths import counts_path, error_tally, guardrail_path
from harness.gate.online.exposures import (
    BUCKETS,
    LOST,
    THINNED,
    canary_share,
    kept_bps,
)
from harness.gate.online.fisher import worst_log_srm
from harness.gate.online.guardrails import (
    ArmSplit,
    CanaryJudge,
    ExposureRule,
    FeedbackTally,
    Guardrail,
    JudgeTally,
    WindowTally,
)
from harness.gate.online.left_out import ExclusionCause, compare_left_out
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import LATE, MISSING, JudgeOutcome
from harness.gate.online.reading.block_forming import MAX_BLOCK_AGE_S
from harness.gate.online.reading.block_streams import JUDGED_WITHIN_S, SPARE_S
from harness.gate.online.reading.scored_exposures import RequestTraits
from harness.gate.online.uncounted import UncountedReason
from harness.gate.policy import CanaryPolicy
from tests.support.canary.row_journal import SERVED, START, Journal, at, read

pytestmark = pytest.mark.req("F3", "F4")

RULE = ExposureRule(
    block_size=100,
    missing_s=600.0,
    guardrails={Guardrail.FEEDBACK: 1.25},
    ledger_salt="salt",
    window_s=600.0,
    total_timeout_s=120.0,
)
ALL_S = 10_000.0
HANDOVER = UncountedReason.HANDOVER.value


def firsts(blocks: Sequence[ObservationBlock]) -> list[ObservationBlock]:
    return [block for block in blocks if not block.late_of]


def windows(blocks: Sequence[ObservationBlock]) -> WindowTally:
    (tally,) = (
        tally
        for block in blocks
        if isinstance(tally := block.counts.get(Guardrail.CALLER_ERRORS), WindowTally)
    )
    return tally


def test_of_two_routers_rows_of_a_caller_the_earliest_counts() -> None:
    journal = Journal()
    second = journal.admit(5.0, 1, worker="w-a")
    first = journal.admit(4.0, 1, worker="w-b")
    journal.end(second, 6.0)
    journal.end(first, 9.0, failed=True)

    (block,) = firsts(read(journal, RULE, ALL_S)[0])

    assert (block.units, block.failures) == (1, 1)


def test_a_good_retry_at_another_router_erases_no_failure() -> None:
    journal = Journal()
    first = journal.admit(1.0, 1, worker="w-a", canary=True)
    journal.end(first, 2.0, failed=True)
    journal.end(journal.admit(3.0, 1, worker="w-b", canary=True), 4.0)

    blocks, _ = read(journal, RULE, ALL_S)

    (block,) = firsts(blocks)
    assert (block.units, block.canary_failures) == (1, 1)
    tally = windows(blocks)
    assert (tally.units, tally.canary_failures) == (1, 1)
    assert tally.requests == ArmSplit(2, 2)


def test_a_failure_at_another_router_counts_in_the_callers_window() -> None:
    journal = Journal()
    journal.end(journal.admit(1.0, 1, worker="w-a"), 2.0)
    other = journal.admit(3.0, 1, worker="w-b")
    journal.end(other, 4.0)
    journal.turn(other, 20.0, failed=True)

    tally = windows(read(journal, RULE, ALL_S)[0])

    assert (tally.units, tally.failures, tally.missing) == (1, 1, ArmSplit(0, 0))
    assert tally.requests == ArmSplit(3, 0)


def test_a_caller_whose_other_request_has_no_outcome_has_a_missing_window() -> None:
    journal = Journal()
    journal.end(journal.admit(1.0, 1, worker="w-a"), 2.0)
    journal.admit(3.0, 1, worker="w-b")

    tally = windows(read(journal, RULE, ALL_S)[0])

    assert (tally.failures, tally.missing) == (1, ArmSplit(1, 0))


@pytest.mark.parametrize(
    ("began_s", "counts"),
    [(599.0, True), (602.0, False)],
)
def test_a_later_turn_counts_if_it_began_in_the_window(began_s: float, counts: bool) -> None:  # noqa: FBT001
    journal = Journal()
    first = journal.admit(1.0, 1)
    journal.end(first, 2.0)
    journal.turn(first, began_s, failed=True, lasts_s=100.0)

    assert windows(read(journal, RULE, ALL_S)[0]).failures == counts


def test_a_window_has_a_limit_of_requests() -> None:
    rule = replace(RULE, window_requests=3)
    journal = Journal()
    first = journal.admit(1.0, 1)
    journal.end(first, 2.0)
    for turn in range(4):
        journal.turn(first, 10.0 + turn, failed=turn == 3)

    tally = windows(read(journal, rule, ALL_S)[0])

    assert (tally.failures, tally.requests, tally.squares) == (0, (3, 0), (9, 0))


def test_the_next_step_ends_the_windows_and_callers_at_the_old_share_have_none() -> None:
    journal = Journal()
    early = journal.admit(1.0, 1, weight_bps=1_000)
    journal.end(early, 2.0)
    journal.end(journal.admit(50.0, 2, weight_bps=5_000), 51.0)
    behind = journal.admit(52.0, 3, weight_bps=1_000, worker="w-behind")
    journal.end(behind, 53.0)
    journal.turn(early, 60.0, failed=True)
    journal.turn(behind, 60.0, failed=True)

    blocks, seals = read(journal, RULE, 50.0 + RULE.total_timeout_s + SPARE_S + 61.0)

    tallies = [block.counts[Guardrail.CALLER_ERRORS] for block in blocks if block.late_of]
    assert [(tally.units, tally.failures) for tally in tallies] == [(1, 0)]
    assert [(block.weight_bps, block.units) for block in firsts(blocks)] == [
        (1_000, 1),
        (5_000, 1),
        (1_000, 1),
    ]
    blocks, _ = read(journal, RULE, ALL_S)
    assert [
        tally.failures
        for block in blocks
        if (tally := block.counts.get(Guardrail.CALLER_ERRORS))
    ] == [0, 0, 0]
    assert seals


def test_a_block_waits_for_the_watermark_and_for_its_outcomes() -> None:
    journal = Journal()
    journal.end(journal.admit(0.0, 1), 1.0)
    slow = journal.admit(10.0, 2, canary=True)
    journal.end(slow, 200.0)

    assert read(journal, RULE, MAX_BLOCK_AGE_S)[1] == []
    assert len(read(journal, RULE, MAX_BLOCK_AGE_S + 1.0)[1]) == 1
    assert read(journal, RULE, 199.0)[0] == []
    (block,) = read(journal, RULE, 200.0)[0]
    assert (block.units, block.missing) == (2, 0)
    assert block.closed_at == START + timedelta(seconds=MAX_BLOCK_AGE_S)


def test_an_outcome_that_comes_too_late_is_missing_however_late_the_reader_is() -> None:
    journal = Journal()
    for caller, lasts_s in ((1, RULE.missing_s), (2, RULE.missing_s + 120.0)):
        journal.end(journal.admit(caller, caller), caller + lasts_s)

    for until_s in (MAX_BLOCK_AGE_S + RULE.missing_s + 2.0, ALL_S):
        block = firsts(read(journal, RULE, until_s)[0])[0]
        assert (block.units, block.missing) == (2, 1)
        assert block.outcomes[MISSING.key] == ArmSplit(1, 0)


def test_a_killed_routers_late_rows_are_left_out_by_arm_and_the_arms_are_compared() -> None:
    """The candidate's answers kill the router's worker, so that its rows come late."""
    rule = replace(RULE, block_size=50)
    journal = Journal()
    for caller in range(600):
        canary = caller % 2 == 0
        is_killed = canary and caller % 8 == 0
        exposure = journal.admit(
            caller / 2.0,
            caller,
            canary=canary,
            worker="w-killed" if is_killed else "w",
            arrives_s=caller / 2.0 + (200.0 if is_killed else 0.0),
        )
        journal.end(exposure, caller / 2.0 + 1.0)
    times_s = [10.0 * n for n in range(1, 200)]

    blocks = firsts(read(journal, rule, *times_s)[0])

    late = [block.outcomes.get(LATE.key, ArmSplit(0, 0)) for block in blocks]
    assert sum(split.canary for split in late) == sum(split.failures for split in late) > 30
    assert all(
        block.unknown_exposures == split for block, split in zip(blocks, late, strict=True)
    )
    assert [one.reason for one in compare_left_out(blocks)] == [ExclusionCause.LATE]


def test_of_a_caller_whose_earliest_row_is_late_no_row_counts() -> None:
    journal = Journal()
    journal.end(journal.admit(0.0, 1), 1.0)
    late = journal.admit(10.0, 2, worker="w-late", arrives_s=70.0)
    journal.end(late, 11.0, arrives_s=70.0)
    again = journal.admit(65.0, 2)
    journal.end(again, 66.0)
    journal.end(journal.admit(67.0, 3), 68.0)

    first, second = firsts(read(journal, RULE, 62.0, ALL_S)[0])

    assert first.units == 1
    assert second.outcomes == {"answered": ArmSplit(1, 0), LATE.key: ArmSplit(1, 0)}
    assert second.never_seen is not None
    assert second.never_seen.units == 1


def test_exposures_that_a_router_could_not_write_are_left_out_by_arm() -> None:
    journal = Journal()
    journal.end(journal.admit(0.0, 1, canary=True), 1.0)
    journal.count(0, LOST, 3, canary=True)
    journal.count(0, LOST, 2)
    journal.count(0, THINNED, 9)

    (block,) = firsts(read(journal, RULE, ALL_S)[0])

    assert block.outcomes == {"answered": ArmSplit(1, 1), LATE.key: ArmSplit(5, 3)}
    assert (block.units, block.failures, block.uncounted) == (6, 0, {})


def test_the_counts_of_a_minute_belong_to_the_block_of_their_share_in_which_it_ends() -> None:
    journal = Journal()
    for at_s, weight_bps in ((0.0, 1_000), (90.0, 1_000), (200.0, 5_000)):
        exposure = journal.admit(at_s, int(at_s), weight_bps=weight_bps)
        journal.end(exposure, at_s + 1.0)
    journal.end(journal.admit(190.0, 7, weight_bps=1_000), 191.0)
    for minute in range(5):
        weight_bps = 1_000 if minute < 4 else 5_000
        journal.count(minute, HANDOVER, 10**minute, weight_bps=weight_bps)

    blocks = firsts(read(journal, RULE, ALL_S)[0])

    # The blocks end at 60 s, 150 s, 200 s with the step, and 260 s.
    assert [block.uncounted.get(HANDOVER, ArmSplit(0, 0)).failures for block in blocks] == [
        1,
        10,
        1_100,
        0,
    ]


def test_callers_who_may_have_been_thinned_out_before_are_never_never_seen() -> None:
    few = kept_bps(100, canary=False)
    journal = Journal()
    journal.end(journal.admit(0.0, 1, weight_bps=100, sample=few - 1), 1.0)
    callers = ((1, few - 1, True), (2, few - 1, True), (3, few, True), (4, few, False))
    for caller, sample, canary in callers:
        exposure = journal.admit(
            500.0, caller, weight_bps=200, period=2, sample=sample, canary=canary
        )
        journal.end(exposure, 501.0)

    first, second = firsts(read(journal, RULE, ALL_S)[0])

    assert first.never_seen is not None
    assert (first.never_seen.units, first.share) == (1, canary_share(100))
    assert second.never_seen is not None
    # Caller 1 returned, and 3 and 4 may have come in the first step without a row.
    assert (second.units, second.never_seen.units) == (4, 1)
    assert second.share == canary_share(200) != pytest.approx(0.02)
    new = second.of_new_keys
    assert new is not None
    # Both arms' never-seen callers are the same sample, so they have the plain share.
    assert new.share == pytest.approx(0.02)


def test_small_blocks_and_the_split_use_the_share_of_the_rows() -> None:
    journal = Journal()
    for caller in range(5):
        exposure = journal.admit(caller, caller, weight_bps=100, canary=caller == 0)
        journal.end(exposure, caller + 1.0, failed=caller == 0)
    (block,) = firsts(read(journal, RULE, ALL_S)[0])
    share = canary_share(100)

    assert share == pytest.approx(0.05, abs=1e-4)
    assert block.kept_share == share
    tally = error_tally(block)
    path = guardrail_path([block], Guardrail.ERRORS, CanaryPolicy())
    assert path == pytest.approx(counts_path([tally], shares=[share]))
    assert path != pytest.approx(counts_path([tally], shares=[0.01]))
    odds = worst_log_srm([replace(block, units=500, canary_units=25, number=1)])
    assert odds < worst_log_srm([replace(block, units=500, canary_units=5, number=1)])
    # The rows stand for all callers of the larger arm.
    q = kept_bps(100, canary=False) / BUCKETS
    assert block.assigned == ArmSplit(1 + round(4 / q), 1)


def test_feedback_counts_within_the_time_after_the_answer() -> None:
    journal = Journal()
    for caller, after_s in ((1, RULE.missing_s - 1.0), (2, RULE.missing_s + 1.0)):
        exposure = journal.admit(0.0, caller)
        journal.end(exposure, 5.0)
        journal.dislike(exposure, 5.0 + after_s)

    blocks, _ = read(journal, RULE, ALL_S)

    (late,) = (block for block in blocks if Guardrail.FEEDBACK in block.counts)
    assert late.counts[Guardrail.FEEDBACK] == FeedbackTally(2, 0, 1, 0, opinions=ArmSplit(1, 0))


def test_a_route_without_feedback_has_no_evidence_of_it() -> None:
    journal = Journal()
    journal.end(journal.admit(0.0, 1), 5.0)

    blocks, _ = read(journal, RULE, ALL_S)

    assert not [block for block in blocks if Guardrail.FEEDBACK in block.counts]


def test_a_verdict_counts_in_time_and_its_cost_counts_once() -> None:
    judge = CanaryJudge("up/judge", "It answers.", max_usd=5.0)
    rule = replace(RULE, guardrails={Guardrail.JUDGE: 1.25}, judge=judge)
    journal = Journal()
    in_time_s = MAX_BLOCK_AGE_S + JUDGED_WITHIN_S
    verdicts = (
        (1, in_time_s, JudgeOutcome.GOOD),
        (2, in_time_s + 1.0, JudgeOutcome.GOOD),
        (3, 20.0, JudgeOutcome.BAD),
    )
    for caller, at_s, verdict in verdicts:
        exposure = journal.admit(
            0.0, caller, canary=True, traits=SERVED | RequestTraits.JUDGED.value
        )
        journal.end(exposure, 5.0)
        journal.judge(exposure, at_s, verdict)

    (block,) = firsts(read(journal, rule, in_time_s, in_time_s + 0.5, ALL_S)[0])

    tally = block.counts[Guardrail.JUDGE]
    assert tally == JudgeTally(3, 3, 2, 2, no_verdict=ArmSplit(1, 1), cost_usd=0.5)


def test_the_keys_of_clients_count_as_in_the_routers_blocks() -> None:
    journal = Journal()
    for caller, client in enumerate(("k-1", "k-1", "k-2", "k-2")):
        exposure = journal.admit(caller, caller, canary=True, client=client)
        journal.end(exposure, caller + 1.0, failed=caller == 0)

    blocks, _ = read(journal, RULE, ALL_S)

    (late,) = (block for block in blocks if Guardrail.CALLER_ERRORS in block.counts)
    assert {
        key: tallies[Guardrail.CALLER_ERRORS].failures for key, tallies in late.by_key.items()
    } == {"k-1": 1, "k-2": 0}


def test_the_reader_gives_a_block_the_next_number_and_its_time() -> None:
    journal = Journal()
    for caller in range(3):
        journal.end(journal.admit(100.0 * caller, caller), 100.0 * caller + 1.0)

    blocks, seals = read(journal, RULE, ALL_S)

    assert [block.number for block in blocks] == list(range(1, 7))
    assert [block.opened_at for block in firsts(blocks)] == [at(0), at(100), at(200)]
    assert {seal.rollout for seal in seals} == {"r"}


def test_an_exposure_before_all_blocks_that_wait_is_late_at_any_share() -> None:
    journal = Journal()
    journal.end(journal.admit(50.0, 1, weight_bps=5_000), 51.0)
    journal.admit(10.0, 2, weight_bps=1_000, worker="w-late", arrives_s=150.0)
    journal.end(journal.admit(200.0, 3, weight_bps=5_000), 201.0)

    blocks = firsts(read(journal, RULE, 140.0, ALL_S)[0])

    assert [(block.weight_bps, block.units) for block in blocks] == [(5_000, 1), (5_000, 1)]


def test_the_next_period_ends_a_block() -> None:
    journal = Journal()
    journal.end(journal.admit(0.0, 1), 1.0)
    journal.end(journal.admit(20.0, 1, period=2), 21.0)

    blocks = firsts(read(journal, RULE, ALL_S)[0])

    assert [(block.period, block.closed_at) for block in blocks] == [(1, at(20)), (2, at(80))]


def test_a_turn_that_ends_after_the_windows_reading_does_not_count() -> None:
    journal = Journal()
    first = journal.admit(1.0, 1)
    journal.end(first, 2.0)
    journal.turn(first, 500.0, failed=True, lasts_s=500.0)

    tally = windows(read(journal, RULE, ALL_S)[0])

    assert (tally.failures, tally.requests) == (0, ArmSplit(1, 0))


def test_requests_of_the_same_caller_in_the_other_arm_are_not_in_the_window() -> None:
    journal = Journal()
    journal.end(journal.admit(1.0, 1), 2.0)
    journal.end(journal.admit(3.0, 1, worker="w-b", canary=True), 4.0, failed=True)

    tally = windows(read(journal, RULE, ALL_S)[0])

    assert (tally.failures, tally.requests) == (0, ArmSplit(1, 0))


def test_of_two_ends_of_a_request_the_earlier_counts_in_any_order_of_arrival() -> None:
    journal = Journal()
    exposure = journal.admit(0.0, 1)
    journal.end(exposure, 3.0, failed=True)
    journal.end(exposure, 5.0)
    journal.end(exposure, 2.0, arrives_s=7.0)

    (block,) = firsts(read(journal, RULE, ALL_S)[0])

    assert (block.units, block.failures) == (1, 0)


def test_a_reader_that_was_away_numbers_the_blocks_as_they_became_known() -> None:
    journal = Journal()
    for at_s in (0.0, 5_000.0):
        journal.end(journal.admit(at_s, int(at_s)), at_s + 1.0)

    blocks, _ = read(journal, RULE, ALL_S)

    assert [block.late_of for block in blocks] == [0, 1, 0, 3]
