import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate.online.exposures import SEGMENTS_FROM
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.outcome import (
    ANSWERED,
    UNKNOWN_LIMITS,
    ExposureOutcome,
    OutcomeKind,
    OutcomeReason,
    WaitLimits,
    settle_departure,
)
from harness.gate.online.reading.scored_exposures import LedgerExposure
from harness.gate.online.waiting import (
    LONGEST_S,
    MIN_ANSWERS,
    NO_WAITS,
    RATIO,
    SHORTEST_S,
    RequestWaits,
    WaitKind,
    count_waits,
    find_limit,
    leaving_share,
    limits_before,
    longest_in_bin,
    merge_waits,
    read_waits,
    wait_bin,
)
from router.recording.ledger import Ledger
from tests.support.canary.leaving import START, STREAM_TRAITS

pytestmark = pytest.mark.req("F3")
LIMITS = WaitLimits(4.0, 2.0, 1.0)


@given(seconds=st.floats(SHORTEST_S, LONGEST_S))
def test_a_bin_holds_waits_that_differ_by_two_percent_at_most(seconds: float) -> None:
    number = wait_bin(seconds)

    assert seconds <= longest_in_bin(number) * (1.0 + 1e-9)
    assert seconds > longest_in_bin(number - 1) * (1.0 - 1e-9)
    assert wait_bin(longest_in_bin(number)) == number


def test_without_leavers_the_limit_is_the_99th_percentile() -> None:
    waits = count_waits(RequestWaits(False, n / 100) for n in range(1, 1001))  # noqa: FBT003

    assert find_limit(waits, WaitKind.FIRST) == pytest.approx(9.9, rel=RATIO - 1.0)
    assert find_limit(waits, WaitKind.STREAM_FIRST) is None


@pytest.mark.parametrize("patience_s", [1.0, 3.0, 8.0])
def test_the_callers_patience_does_not_shorten_the_limit(patience_s: float) -> None:
    rng = np.random.default_rng(3)
    answers = rng.lognormal(0.0, math.log(4.0) / 2.326, 40_000)
    patience = rng.lognormal(math.log(patience_s), 0.7, 40_000)
    waits = count_waits(
        RequestWaits(False, a) if a <= p else RequestWaits(False, None, left_s=p)  # noqa: FBT003
        for a, p in zip(answers.tolist(), patience.tolist(), strict=True)
    )

    assert find_limit(waits, WaitKind.FIRST) == pytest.approx(4.0, rel=0.12)
    shown = leaving_share(waits, WaitKind.FIRST, 4.0)
    assert shown == pytest.approx((patience < 4.0).mean(), abs=0.06)


def test_if_the_estimate_never_falls_to_one_percent_the_longest_answer_is_the_limit() -> None:
    answered = [RequestWaits(False, 0.4)] * 100  # noqa: FBT003
    left = [RequestWaits(False, None, left_s=0.5)] * 20  # noqa: FBT003

    limit_s = find_limit(count_waits([*answered, *left]), WaitKind.FIRST)

    assert limit_s == pytest.approx(0.4, rel=RATIO - 1.0)


def test_fewer_than_a_hundred_answers_give_no_limit() -> None:
    waits = count_waits([RequestWaits(False, 0.4)] * (MIN_ANSWERS - 1))  # noqa: FBT003

    assert find_limit(waits, WaitKind.FIRST) is None
    assert limits_before(waits, first_byte_s=None, first_token_s=3.0) == (10.0, 3.0, 3.0)
    assert limits_before(NO_WAITS, first_byte_s=60.0, first_token_s=None) == (10.0,) * 3


def test_a_stream_counts_its_longest_wait_between_outputs_once() -> None:
    waits = count_waits(
        [
            RequestWaits(True, 0.5, gap_s=0.2),  # noqa: FBT003
            RequestWaits(True, 0.5, gap_s=0.2, left_s=0.1),  # noqa: FBT003
            RequestWaits(True, 0.5, gap_s=0.2, left_s=9.0),  # noqa: FBT003
            RequestWaits(True, None, left_s=7.0),  # noqa: FBT003
        ]
    )

    assert {key: sum(bins.values()) for key, bins in waits.items()} == {
        "stream_first": 3,
        "gap": 2,
        "gap_left": 1,
        "stream_first_left": 1,
    }
    assert (
        read_waits({key: {str(n): c for n, c in bins.items()} for key, bins in waits.items()})
        == waits
    )
    assert merge_waits([waits, waits])["gap"] == {wait_bin(0.2): 4}


@pytest.mark.parametrize(
    ("waited_s", "sent", "streamed", "settled"),
    [
        (4.1, False, False, "left: waited"),
        (3.9, False, False, "left: early"),
        (2.1, False, True, "left: waited"),
        (1.1, True, True, "left: waited"),
        (0.9, True, True, "stopped"),
    ],
)
def test_a_departure_is_harm_only_after_the_limit_of_its_wait(
    *,
    waited_s: float,
    sent: bool,
    streamed: bool,
    settled: str,
) -> None:
    raw = ExposureOutcome(
        OutcomeKind.LEFT,
        OutcomeReason.EARLY,
        waited_s=waited_s,
        sent=sent,
    )

    assert settle_departure(raw, LIMITS, streamed=streamed).key == settled
    unknown = settle_departure(raw, UNKNOWN_LIMITS, streamed=streamed)
    assert unknown.reason is not OutcomeReason.WAITED


def test_a_block_is_settled_by_the_controls_waits_in_earlier_blocks() -> None:
    """The canary's answers are slower and never move the limit."""
    ledger = Ledger(
        "r-1",
        "w",
        ExposureRule(block_size=200, first_wait_s=10.0, gap_wait_s=10.0),
    )
    blocks = []
    for number in range(600):
        unit = ledger.admit(
            str(number),
            canary=number % 2 == 1,
            weight_bps=5000,
            now=0.0,
            at=START,
        )
        assert isinstance(unit, LedgerExposure)
        ended = ANSWERED._replace(first_s=0.4)
        if unit.canary:
            ended = ExposureOutcome(OutcomeKind.LEFT, OutcomeReason.EARLY, waited_s=0.5)
        ledger.finish(unit, outcome=ended)
        blocks += ledger.tick(0.0, START)

    assert [block.waits["first_s"] for block in blocks] == pytest.approx(
        [10.0, 0.4, 0.4], rel=RATIO - 1.0
    )
    assert [dict(block.outcomes) for block in blocks] == [
        {"answered": (100, 0), "left: early": (100, 100)},
        *[{"answered": (100, 0), "left: waited": (100, 100)}] * 2,
    ]


def test_a_stream_is_settled_by_the_waits_of_streams() -> None:
    ledger = Ledger(
        "r-1",
        "w",
        ExposureRule(block_size=100, first_wait_s=10.0, stream_wait_s=2.0),
    )
    blocks = []
    for number in range(100):
        unit = ledger.admit(
            str(number),
            canary=False,
            weight_bps=100,
            now=0.0,
            at=START,
            traits=STREAM_TRAITS,
        )
        assert unit is not None
        left = ExposureOutcome(OutcomeKind.LEFT, OutcomeReason.EARLY, waited_s=3.0)
        ledger.finish(unit, outcome=left)
        blocks += ledger.tick(0.0, START)

    assert dict(blocks[0].outcomes) == {"left: waited": (100, 0)}
    assert STREAM_TRAITS >> SEGMENTS_FROM
