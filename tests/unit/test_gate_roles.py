"""What required, primary and guard suites decide together (statistics.md §1.7)."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from harness.domain.evals.suite_plan import Claim, PrimaryCombination, SuitePlan, SuiteRole
from harness.domain.evals.verdict import (
    Failed,
    HarnessMismatch,
    Inconclusive,
    InfraError,
    Passed,
)
from harness.gate.offline.primary_suites import WEIGHTED_MEAN
from tests.unit.test_gate_costs import priced
from tests.unit.test_gate_verdicts import ALIKE, BETTER, WORSE, Sides, ask, broken, plan, sides

pytestmark = pytest.mark.req("F2", "A7")

GUARD = plan("safety", SuiteRole.GUARD, Claim.NON_INFERIOR)
# Too spread to show that it is within 5 points, and not worse either.
OPEN = sides([1.0, 0.0, 1.0, 0.0] * 50, [0.0, 1.0, 1.0, 0.0] * 50)
FORM = sides([1.0] * 200, [0.0] * 200, lenient=[1.0] * 200)


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


def test_a_guard_that_is_shown_worse_rejects_a_better_candidate() -> None:
    found = ask([plan(), GUARD], {"math": BETTER, "safety": WORSE})

    assert isinstance(found, Failed)
    assert found.reason.startswith("safety: The candidate is worse")


def test_a_guard_without_enough_evidence_does_not_block_and_a_required_suite_does() -> None:
    passed = ask([plan(), GUARD], {"math": BETTER, "safety": OPEN})

    assert isinstance(passed, Passed)
    assert passed.reason.startswith("math: The candidate is better")
    assert passed.reason.endswith("Not shown to be worse: safety.")
    assert {r.suite: r.outcome for r in passed.suites}["safety"] == "inconclusive"
    required = replace(GUARD, role=SuiteRole.REQUIRED)
    assert isinstance(ask([plan(), required], {"math": BETTER, "safety": OPEN}), Inconclusive)


def test_a_guard_is_waited_for_and_one_that_was_cut_short_has_not_guarded() -> None:
    some = (OPEN[0][:50], OPEN[1][:50])
    plans = [plan(), GUARD]

    assert ask(plans, {"math": BETTER, "safety": some}) is None
    stopped = {"safety": ("inconclusive", "over budget")}
    cut = ask(plans, {"math": BETTER, "safety": some}, stopped)
    assert isinstance(cut, Inconclusive)
    gone = ([broken(OPEN[0][0]), *OPEN[0][1:]], OPEN[1])
    assert isinstance(ask(plans, {"math": BETTER, "safety": gone}), InfraError)


@pytest.mark.req("A8")
def test_a_guard_that_loses_by_form_rejects_and_one_that_draws_by_form_does_not() -> None:
    assert isinstance(ask([plan(), GUARD], {"math": BETTER, "safety": FORM}), HarnessMismatch)
    ours = [1.0, 0.0, 1.0, 0.0] * 50
    draw = sides(ours, [0.0, 1.0, 1.0, 0.0] * 50, lenient=[1.0] * 200)
    assert isinstance(ask([plan(), GUARD], {"math": BETTER, "safety": draw}), Passed)


def test_the_weighted_mean_decides_and_every_suite_guards() -> None:
    found = ask(weighted(1.0, 1.0), named(BETTER, ALIKE))

    assert isinstance(found, Passed)
    whole = found.suites[-1]
    assert (whole.suite, whole.outcome) == (WEIGHTED_MEAN, "passed")
    assert whole.delta == pytest.approx(0.5)
    assert found.suites[1].outcome == "inconclusive"
    assert "It counts in the weighted mean, with weight 1." in found.suites[1].reason
    worse = ask(weighted(3.0, 1.0), named(leaning(50, 0), WORSE))
    assert isinstance(worse, Failed)
    assert worse.reason.startswith("s1: The candidate is worse")


def test_weights_say_how_much_each_suite_counts() -> None:
    better, alike = leaning(60, 0), ALIKE
    deltas = []
    for weight in (1.0, 3.0):
        verdict = ask(weighted(weight, 1.0, claim=Claim.NON_INFERIOR), named(better, alike))
        assert isinstance(verdict, Passed)
        pairs = verdict.inputs["pairs"]
        used = len(pairs["s0"])  # type: ignore[index]
        mean = sum(row[2] - row[1] for row in pairs["s0"]) / used  # type: ignore[index]
        assert verdict.suites[-1].delta == pytest.approx(mean * weight / (weight + 1.0))
        deltas.append(verdict.suites[-1].delta)
    assert deltas[1] > deltas[0]


def test_the_weighted_mean_of_costs_is_part_of_the_claim() -> None:
    plans = [
        replace(suite_plan, min_saving=0.2, cost_ceiling=5.0)
        for suite_plan in weighted(1.0, 1.0, claim=Claim.CHEAPER)
    ]
    saves, same = priced(ALIKE, 0.002, 0.0002), priced(ALIKE, 0.002, 0.002)

    found = ask(plans, named(saves, same))
    assert isinstance(found, Passed)
    assert "45 % less per item" in found.reason
    assert isinstance(ask(plans, named(same, same)), Failed | Inconclusive)
    unknown = priced(ALIKE, 0.002, None)
    assert isinstance(ask(plans, named(saves, unknown)), Inconclusive)


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


def test_one_suite_that_is_shown_worse_rejects_though_another_is_better() -> None:
    found = ask(any_of(2), named(BETTER, WORSE))

    assert isinstance(found, Failed)
    assert found.reason.startswith("s1: ")


def test_a_suite_of_several_that_ended_early_shows_nothing() -> None:
    some = (BETTER[0][:50], BETTER[1][:50])
    assert ask(any_of(2), named(some, ALIKE)) is None
    stopped = {"s0": ("inconclusive", "over budget")}
    assert isinstance(ask(any_of(2), named(some, ALIKE), stopped), Inconclusive)
    other = ask(any_of(2), named(some, leaning(25, 2)), stopped)
    assert isinstance(other, Passed)
