"""The page Shadows shows a judge's counts, and its evidence only with a verdict."""

from dataclasses import replace
from datetime import timedelta

import pytest

from dashboard.views import shadows as page
from harness.canary.shadow_verdict import (
    ShadowVerdict,
    describe_verdict,
    name_next_step,
    weigh_scores,
)
from harness.canary.shadows import ShadowStatus, build_status
from harness.gate.suite_plan import Claim
from harness.routing.shadow import JUDGE_USD, Shadow, ShadowTally, ShadowTerms
from harness.routing.shadow_score import ScoreReason, ShadowScore
from tests.contract.test_store_shadows import SHADOW

pytestmark = pytest.mark.req("F8")

TERMS = ShadowTerms(
    "ref/judge", "Better is better.", "", Claim.NON_INFERIOR, 0.1, 0.05, 1, SHADOW.id
)
JUDGED = replace(SHADOW, terms=TERMS)
NOW = SHADOW.started_at + timedelta(hours=1)
COSTS = ShadowTally(SHADOW.id, NOW.date(), "judge", {}, {JUDGE_USD: 0.25})


def judged(share: float, callers: int, shadow: Shadow = JUDGED) -> ShadowStatus:
    """The status of a shadow whose callers all have this score."""
    scores = [
        ShadowScore(
            SHADOW.id,
            number,
            SHADOW.id,
            f"pair_{number}",
            f"caller_{number}",
            ScoreReason.JUDGED,
            share,
            share,
            2,
            0.01,
            NOW,
        )
        for number in range(1, callers + 1)
    ]
    evidence = weigh_scores(TERMS, scores)
    is_decided = evidence.outcome != "running"
    verdict = ShadowVerdict(
        evidence.outcome,
        callers,
        0,
        0,
        evidence if is_decided else None,
        describe_verdict(shadow, TERMS, evidence) if is_decided else "",
        name_next_step(shadow, TERMS, evidence) if is_decided else "",
    )
    return build_status(shadow, [COSTS], NOW, verdict)


def facts(status: ShadowStatus) -> str:
    return str(page._list_facts(status))


def test_a_running_shadow_shows_counts_and_costs_of_its_judge_and_no_evidence() -> None:
    shown = facts(judged(1.0, 3))

    assert "ref/judge" in shown
    assert "3 callers" in shown
    assert "0.25" in shown
    assert "the evidence is shown with it" in shown
    assert " wins " not in shown


def test_a_shadow_without_a_judge_says_that_it_gives_no_verdict() -> None:
    status = build_status(SHADOW, [], NOW)

    assert "gives no verdict, only the six checks" in facts(status)
    assert "no judge" in page._render_verdict(status)


def test_a_verdict_names_the_judge_the_share_and_the_next_commands() -> None:
    passed, failed = judged(1.0, 20), judged(0.0, 20)

    for status in (passed, failed):
        assert status.verdict
        assert f"{status.verdict.outcome.upper()}: by ref/judge" in facts(status)
        assert status.verdict.outcome in page._render_verdict(status)
    assert "swapproof suite draw" in page._render_verdict(passed)
    assert "swapproof route candidates" in page._render_verdict(failed)
    proposed = judged(1.0, 20, replace(JUDGED, proposal="p_1"))
    shown = page._render_verdict(proposed)
    assert "<code>swapproof proposal show p_1</code>: its suites decide</span> <a" in shown
    assert "none" in page._render_verdict(judged(0.5, 1))
