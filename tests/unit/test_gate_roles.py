"""What required, primary and guard suites decide together (statistics.md §1.7)."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from harness.domain.evals.suite_plan import Claim, PrimaryCombination, SuitePlan, SuiteRole
from harness.domain.evals.verdict import (
    Inconclusive,
    InfraError,
    Passed,
)
from tests.unit.test_gate_verdicts import ALIKE, BETTER, Sides, ask, broken, plan, sides

pytestmark = pytest.mark.req("F2", "A7")

GUARD = plan("safety", SuiteRole.GUARD, Claim.NON_INFERIOR)
# Too spread to show that it is within 5 points, and not worse either.
OPEN = sides([1.0, 0.0, 1.0, 0.0] * 50, [0.0, 1.0, 1.0, 0.0] * 50)


def weighted(*weights: float, claim: Claim = Claim.SUPERIOR) -> list[SuitePlan]:
    return [
        replace(plan(f"s{n}", claim=claim), combine=PrimaryCombination.WEIGHTED, weight=weight)
        for n, weight in enumerate(weights)
    ]


def any_of(count: int) -> list[SuitePlan]:
    return [replace(plan(f"s{n}"), combine=PrimaryCombination.ANY) for n in range(count)]


def named(*found: Sides) -> Mapping[str, Sides]:
    return {f"s{n}": sample for n, sample in enumerate(found)}


def leaning(wins: int, losses: int, n: int = 200) -> Sides:
    """Differences spread evenly over the items, so that nothing crosses early by order."""
    ours, theirs = [1.0] * n, [1.0] * n
    for k in range(wins):
        ours[k * n // wins] = 0.0
    for k in range(losses):
        place = (k * n // losses + 1) % n
        ours[place], theirs[place] = 1.0, 0.0
    return sides(ours, theirs)


def test_a_guard_is_waited_for_and_one_that_was_cut_short_has_not_guarded() -> None:
    some = (OPEN[0][:50], OPEN[1][:50])
    plans = [plan(), GUARD]

    assert ask(plans, {"math": BETTER, "safety": some}) is None
    stopped = {"safety": ("inconclusive", "over budget")}
    cut = ask(plans, {"math": BETTER, "safety": some}, stopped)
    assert isinstance(cut, Inconclusive)
    gone = ([*map(broken, OPEN[0])], OPEN[1])
    assert isinstance(ask(plans, {"math": BETTER, "safety": gone}), InfraError)


def test_one_better_suite_of_several_suffices_by_holms_rule() -> None:
    one = ask(any_of(2), named(leaning(20, 2), ALIKE))

    assert isinstance(one, Passed)
    outcomes = [(r.outcome, r.how) for r in one.suites]
    assert outcomes == [("passed", "final"), ("inconclusive", "final")]
    assert "By Holm's rule p = " in one.reason
    # Nothing is promoted before its end, or the p-values would not be those of one look.
    assert all(r.n_used == r.n_max for r in one.suites)


def test_a_suite_that_would_pass_alone_may_not_pass_among_four() -> None:
    p_alone = leaning(14, 5)
    alone = ask(any_of(1), named(p_alone))
    assert isinstance(alone, Passed)
    among = ask(any_of(4), named(p_alone, ALIKE, ALIKE, ALIKE))

    assert isinstance(among, Inconclusive)
    assert among.suites[0].p_final == alone.suites[0].p_final
    assert "not after the other suites are counted" in among.suites[0].reason
