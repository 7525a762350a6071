"""The gate on win shares: pairs whose orders disagree, weights, and the check of a record."""

import pytest

from evals.runner.record_check import CHECKED, share_p
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.suite_judgement import judge_pairs
from harness.gate.suite_plan import ORDERS_DISAGREE, Claim, SuitePlan, SuiteRole
from harness.gate.verdict import ScorePair, SuiteReport

pytestmark = pytest.mark.req("F2")

PAIRS = 120


def judged(
    shares: list[float],
    claim: Claim = Claim.NON_INFERIOR,
    *,
    contrary: bool = False,
    requests: tuple[int, ...] = (1,) * PAIRS,
) -> SuiteReport:
    plan = SuitePlan(
        "traffic",
        "digest",
        SuiteRole.PRIMARY,
        claim,
        margin=0.1,
        alpha=0.05,
        n_max=PAIRS,
        epochs=1,
        order_seed=1,
        cluster="caller",
        cluster_sizes=(1,) * PAIRS,
        judged_by="a judge",
        unit_requests=requests,
    )
    rules = (ORDERS_DISAGREE,) if contrary else ()
    items = tuple(
        PairedItem(ScorePair(str(number), 0.5, share, 0.5, share), rules=rules)
        for number, share in enumerate(shares)
    )
    return judge_pairs(plan, PairedSuite(items, "a", "b")).report


def test_a_judge_that_follows_the_position_alone_shows_nothing() -> None:
    ties = [0.5] * PAIRS

    assert judged(ties).outcome == "passed"
    assert judged(ties, contrary=True).outcome == "inconclusive"


def test_pairs_whose_orders_disagree_are_ties_where_no_loss_is_allowed() -> None:
    ties = [0.5] * PAIRS

    reports = [judged(ties, Claim.SUPERIOR, contrary=contrary) for contrary in (True, False)]

    assert reports[0].delta == reports[1].delta == 0.0


def test_the_reason_begins_with_the_judge_and_names_the_weighted_difference() -> None:
    report = judged([0.5] * PAIRS)

    assert report.reason.startswith("By the judge a judge: ")
    assert "Weighted by requests, the difference is 0.0 points." in report.reason


def test_requests_that_contradict_the_callers_leave_no_verdict() -> None:
    shares = [0.0 if number % 4 == 0 else 1.0 for number in range(PAIRS)]
    heavy = tuple(100 if number % 4 == 0 else 1 for number in range(PAIRS))

    assert judged(shares).outcome == "passed"
    report = judged(shares, requests=heavy)
    assert report.outcome == "inconclusive"
    assert "callers with many requests and the others disagree" in report.reason


def test_a_win_share_is_as_far_from_one_half_in_either_direction() -> None:
    wins = [1.0] * 45 + [0.0] * (CHECKED - 45)

    assert share_p([0.5] * CHECKED) == 1.0
    assert share_p(wins) == pytest.approx(share_p([1.0 - share for share in wins]))
    assert share_p(wins) < 0.05 < share_p([1.0] * 32 + [0.0] * (CHECKED - 32))
