"""What proves a spare, for how long, and the order in which routers try proven fallbacks."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.gate.verdict import Failed, HarnessMismatch, Inconclusive, Passed, Verdict
from harness.routing.route_settings import FailoverOrder, RouteSettings
from harness.routing.spare import (
    SPARE_FOR,
    ProvenSpare,
    SpareComparison,
    build_spare,
    judge_spare,
)
from harness.routing.table import Route, order_fallbacks

pytestmark = pytest.mark.req("F12")
NOW = datetime(2026, 6, 1, tzinfo=UTC)
SUITES = {"colours": "d1"}


def decide(kind: type[Verdict] = Passed, days_ago: float = 1.0) -> Verdict:
    at = NOW - timedelta(days=days_ago)
    return kind(
        id="v_1",
        route="chat",
        incumbent="t_base",
        candidate="t_spare",
        reason="",
        suites=(),
        inputs={},
        decided_at=at,
        expires_at=at + timedelta(days=14),
    )


def test_a_passed_verdict_proves_a_spare_for_30_days_and_no_longer() -> None:
    before = SpareComparison("p_1", decide(days_ago=29.99), SUITES)
    after = SpareComparison("p_1", decide(days_ago=30.0), SUITES)

    assert judge_spare(before, SUITES, NOW).proven  # although its swap expired after 14 days
    lapsed = judge_spare(after, SUITES, NOW)
    assert not lapsed.proven
    assert lapsed.why == "its verdict of 2026-05-02 proved it for 30 days only"


@pytest.mark.parametrize(
    ("newest", "why"),
    [
        (None, "no verdict compares it with the route's incumbent"),
        (
            SpareComparison("p", decide(Failed), SUITES),
            "its newest verdict, of 2026-05-31, is FAILED",
        ),
        (SpareComparison("p", decide(Inconclusive), SUITES), "is NOT ENOUGH EVIDENCE"),
        (SpareComparison("p", decide(HarnessMismatch), SUITES), "is FORMAT MISMATCH"),
        (SpareComparison("p", decide(), {"colours": "d0"}), "suite colours has changed"),
        (SpareComparison("p", decide(), {"tickets": "d1"}), "the route has other suites"),
        (SpareComparison("p", decide(), SUITES, "it was rolled back"), "it was rolled back"),
    ],
)
def test_a_spare_without_proof_says_why(newest: SpareComparison | None, why: str) -> None:
    proof = judge_spare(newest, SUITES, NOW)

    assert not proof.proven
    assert why in proof.why
    assert why in build_spare("t_spare", "sim/spare", 1, proof, NOW).text


def test_a_proven_spare_names_its_age_its_verdict_and_its_end() -> None:
    proof = judge_spare(SpareComparison("p_1", decide(days_ago=3), SUITES), SUITES, NOW)

    text = build_spare("t_spare", "sim/spare", 1, proof, NOW).text
    assert text == "sim/spare: proven 3 d ago by v_1, until 2026-06-28"


ROUTE = Route("chat", 1, "t_base", fallbacks=("a", "b", "c", "d"))


def prove(*targets: str, incumbent: str = "t_base", until: datetime = NOW + SPARE_FOR) -> Route:
    proven = tuple(ProvenSpare(target, incumbent, "v_1", until) for target in targets)
    settings = RouteSettings(failover=FailoverOrder.PROVEN_FIRST, proven=proven)
    return replace(ROUTE, settings=settings)


@given(st.sets(st.sampled_from(ROUTE.fallbacks)))
def test_proven_fallbacks_come_first_and_each_group_keeps_its_order(proven: set[str]) -> None:
    ordered = order_fallbacks(prove(*proven), NOW).fallbacks

    first, rest = ordered[: len(proven)], ordered[len(proven) :]
    assert first == tuple(sorted(proven))
    assert rest == tuple(name for name in ROUTE.fallbacks if name not in proven)


@pytest.mark.parametrize(
    "route",
    [
        prove("c", until=NOW),
        prove("c", incumbent="t_former"),
        replace(ROUTE, settings=replace(prove("c").settings, failover=FailoverOrder.DECLARED)),
        prove("unknown"),
    ],
    ids=["lapsed", "another incumbent", "declared", "not in the chain"],
)
def test_the_declared_order_stays_without_a_proof_that_counts(route: Route) -> None:
    assert order_fallbacks(route, NOW).fallbacks == ROUTE.fallbacks
