"""The sequential test against statistics.md §1.3 to §1.5, §1.12 and §1.17, as loops."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from random import Random
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from harness.gate.offline.design import (
    REJECT_LOG_E,
    Design,
    design_from_plan,
    with_unseen_loss,
)
from harness.gate.offline.item_tests import final_p
from harness.gate.offline.sequential import (
    evidence_path,
    judge_batch,
    judge_differences,
)
from harness.gate.suite_plan import Claim, PrimaryCombination, SuitePlan, SuiteRole
from tests.support.sampling import later

pytestmark = pytest.mark.req("F2")

SUPERIOR = Design(Claim.SUPERIOR, 0.05, 250)


def passfail(
    n: int,
    seed: int = 1,
    won: float = 0.1,
    lost: float = 0.1,
) -> list[float]:
    rng = Random(seed)
    return rng.choices([1.0, -1.0, 0.0], [won, lost, 1.0 - won - lost], k=n)


def graded(
    n: int,
    seed: int = 2,
    mean: float = 0.0,
    sd: float = 0.3,
) -> list[float]:
    rng = Random(seed)
    return [max(-1.0, min(1.0, rng.gauss(mean, sd))) for _ in range(n)]


def t_statistic(
    d: Sequence[float],
    theta0: float,
    guard: float,
) -> float:
    n = len(d)
    mean = fmean(d)
    spread = math.fsum((x - mean) ** 2 for x in d) + guard
    return (mean - theta0) / math.sqrt(spread / n**2)


def p_of_t(
    d: Sequence[float],
    theta0: float,
    guard: float = 0.25,
) -> float:
    return float(stats.t.sf(t_statistic(d, theta0, guard), len(d) - 1))


def p_of_tango(d: Sequence[float], theta0: float) -> float:
    n = len(d)
    b = d.count(1.0)
    c = d.count(-1.0)
    big_b = -b - c + (2 * n - b + c) * theta0
    big_c = -c * theta0 * (1 - theta0)
    q = (math.sqrt(big_b**2 - 8 * n * big_c) - big_b) / (4 * n)
    excess = b - c - n * theta0
    variance = n * (2 * q + theta0 * (1 - theta0))
    return float(stats.norm.sf(excess / math.sqrt(variance))) if excess else 0.5


def p_with_unseen_item(d: Sequence[float], theta0: float) -> float:
    mean = fmean(d)
    above = math.fsum((x - mean) ** 2 for x in d if x > mean)
    below = math.fsum((x - mean) ** 2 for x in d if x < mean)
    return p_by_hall([*d, -1.0 / (1.0 + min(above, below) / 2.0)], theta0)


def p_by_hall(d: Sequence[float], theta0: float) -> float:
    n = len(d)
    mean = fmean(d)
    t = t_statistic(d, theta0, 0.25)
    variance = (math.fsum((x - mean) ** 2 for x in d) + 0.25) / n
    skew = math.fsum((x - mean) ** 3 for x in d) / n / variance**1.5
    if skew < 0.0:
        a = skew / (3.0 * math.sqrt(n))
        t = ((1.0 + a * t) ** 3 - 1.0) / (3.0 * a) + a / 2.0
    return float(stats.t.sf(t, n - 1))


def p_at_the_end(d: Sequence[float], design: Design) -> float:
    """The smaller of the test's p and of 1/e of a bet of all money on every graded item."""
    graded = any(x not in (-1.0, 0.0, 1.0) for x in d)
    money = math.prod((1.0 + x) / (1.0 + design.theta0) for x in d) if graded else 0.0
    return min(
        p_of_test_alone(d, design.theta0),
        1.0 / money if money > 1.0 else 1.0,
    )


def p_of_test_alone(d: Sequence[float], theta0: float) -> float:
    if any(x not in (-1.0, 0.0, 1.0) for x in d):
        return p_with_unseen_item(d, theta0)
    return exact_p(d, theta0)


@cache
def p_of_counts(
    won: int,
    lost: int,
    n: int,
    theta0: float,
) -> float:
    d = [1.0] * won + [-1.0] * lost + [0.0] * (n - won - lost)
    plain = p_of_t(d, theta0) if theta0 else p_by_hall(d, theta0)
    return max(plain, p_of_tango(d, theta0))


def exact_p(d: Sequence[float], theta0: float) -> float:
    """Of all wins and losses, at 16 shares of the interval that misses 1 in 100,000."""
    n = len(d)
    count = len(d) - d.count(0.0)
    low = stats.beta.ppf(5e-6, count, n - count + 1) if count else 0.0
    high = stats.beta.ppf(1.0 - 5e-6, count + 1, n - count) if count < n else 1.0
    begin, end = (math.asin(math.sqrt(max(share, -theta0))) for share in (low, high))
    found = p_of_counts(d.count(1.0), d.count(-1.0), n, theta0)
    as_small = [
        (won, lost, n - won - lost)
        for won in range(n + 1)
        for lost in range(n + 1 - won)
        if p_of_counts(won, lost, n, theta0) <= found * (1.0 + 1e-8)
    ]
    largest = 0.0
    for step in range(16):
        differ = math.sin(begin + (end - begin) * step / 15.0) ** 2
        chances = [
            (differ + theta0) / 2.0,
            (differ - theta0) / 2.0,
            1.0 - differ,
        ]
        chances = [min(max(chance, 0.0), 1.0) for chance in chances]
        largest = max(largest, float(stats.multinomial.pmf(as_small, n, chances).sum()))
    return min(1.0, largest + 1e-5)


DESIGNS = [
    Design(Claim.SUPERIOR, 0.05, 40),
    later(Design(Claim.SUPERIOR, 0.05, 210)),
    Design(Claim.NON_INFERIOR, 0.05, 50),
    later(Design(Claim.NON_INFERIOR, 0.05, 240)),
]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("seed", [3, later(4)])
def test_the_last_test_of_every_design_is_the_one_of_the_formula(
    design: Design, seed: int
) -> None:
    n = design.n_max
    rows = [
        passfail(n, seed),
        graded(n, seed),
        [x * 0.1 for x in passfail(n, seed)],
    ]
    rows += [
        passfail(
            n,
            seed,
            won=0.6,
            lost=0.3,
        ),
        [0.03125] * (n - 1) + [-1.0],
    ]
    rows += [[0.0625 * (1 + i % 3) for i in range(n)]]
    for d in rows:
        evidence = judge_differences(d, design)
        used = d[: evidence.n_used]

        assert evidence.p_final == pytest.approx(p_at_the_end(used, design), rel=1e-7)
        t = t_statistic(used, design.theta0, 0.25)
        assert evidence.t == pytest.approx(t, rel=1e-9)
        assert evidence.p_t == pytest.approx(stats.t.sf(t, len(used) - 1), rel=1e-9)
        assert evidence.sd == pytest.approx(np.std(used, ddof=1))
        assert evidence.delta == pytest.approx(fmean(used))
        counts = (
            sum(x > 0 for x in used),
            used.count(0.0),
            sum(x < 0 for x in used),
        )
        assert (evidence.wins, evidence.ties, evidence.losses) == counts


def test_two_items_are_the_fewest_that_are_tested() -> None:
    for d in ([1.0, 0.0], [0.5, 0.25]):
        design = Design(Claim.SUPERIOR, 0.05, 2)
        evidence = judge_differences(d, design)
        assert evidence.p_final == pytest.approx(p_at_the_end(d, design))
        assert evidence.sd == pytest.approx(np.std(d, ddof=1))
        assert evidence.ci_low is not None
        one = judge_differences(d[:1], Design(Claim.SUPERIOR, 0.05, 2))
        figures = (one.p_final, one.t, one.sd, one.ci_low, one.ci_high)
        assert (figures, one.outcome, one.delta) == (
            (None,) * 5,
            "running",
            d[0],
        )


def test_a_p_value_up_to_the_level_promotes() -> None:
    late = Design(Claim.SUPERIOR, 0.05, 150, early=False)
    d = passfail(150, won=0.15)
    p = judge_differences(d, late).p_final
    assert p is not None

    alpha = p / 0.9
    if alpha < 0.05:  # less of a smaller alpha is spent
        alpha = (p / 0.9 * 0.05**0.1) ** (1.0 / 1.1)
    for at, outcome in (
        (alpha * 1.001, "promote"),
        (alpha * 0.999, "inconclusive"),
    ):
        exact = replace(late, alpha=at)
        evidence = judge_differences(d, exact)
        assert (evidence.outcome, evidence.how) == (outcome, "final")
        assert judge_batch([d], exact).promoted.tolist() == [outcome == "promote"]


def log_e_below(d: Sequence[float], theta0: float) -> list[float]:
    """After each difference, the mean over 15 stakes of a bet on each one below theta0."""
    money = [1.0] * 15
    stakes = np.geomspace(0.02, 0.9, 15).tolist()
    logs = []
    for x in d:
        for at, stake in enumerate(stakes):
            money[at] *= 1.0 - stake * (x - theta0) / (1.0 - theta0)
        logs.append(math.log(fmean(money)))
    return logs


@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
def test_a_candidate_fails_where_it_is_shown_to_be_below_what_the_claim_allows(
    claim: Claim,
) -> None:
    """Without a margin the chance of passing decides nothing; with one it ends a comparison
    that points to no loss beyond the margin (statistics.md §1.4, §1.16)."""
    n_max = 600
    theta0 = Design(claim, 0.05, 600).theta0
    slightly, clearly = ([mean + 0.1 * (-1.0) ** i for i in range(n_max)] for mean in M)
    for d in (
        slightly,
        clearly,
        passfail(n_max, lost=0.16),
        passfail(n_max, won=0.04, lost=0.09),
        [-1.0] * 9 + [0.0] * 591,
    ):
        design = Design(claim, 0.05, n_max)
        path = evidence_path(d, design)
        logs = log_e_below(d, theta0)
        of_no_margin = log_e_below(d, 0.0)
        assert path.log_e_bad.tolist() == pytest.approx(logs, rel=1e-9, abs=1e-9)
        expected = [log_e >= REJECT_LOG_E for log_e in logs]
        assert path.rejects.tolist() == expected
        assert path.hopeless.tolist() == [
            claim is Claim.NON_INFERIOR
            and n < n_max
            and of_no_margin[n - 1] >= REJECT_LOG_E
            and chance(d[:n], design) < 0.01
            and logs[n - 1] <= 0.0
            for n in range(1, n_max + 1)
        ]
        evidence = judge_differences(d, design)
        if evidence.outcome == "reject":
            assert evidence.n_used == expected.index(True) + 1
            assert evidence.how == ("final" if evidence.n_used == n_max else "early")
        many = judge_batch([d], design)
        assert many.rejected.tolist() == [evidence.outcome == "reject"]
        assert many.n_used.tolist() == [evidence.n_used]
    # Two points worse is shown, and is well within the margin.
    outcome = judge_differences(slightly, Design(claim, 0.05, n_max)).outcome
    assert outcome == ("reject" if claim is Claim.SUPERIOR else "promote")
    assert judge_differences(clearly, Design(claim, 0.05, n_max)).outcome == "reject"
    assert theta0 in (0.0, -0.05)


def test_only_a_comparison_that_decides_alone_stops_once_its_margin_is_out_of_reach() -> None:
    """A loss about as large as the margin: it neither passes nor fails."""
    d = [-0.05 + 0.2 * (-1.0) ** i for i in range(600)]
    design = Design(Claim.NON_INFERIOR, 0.05, 600)
    plan = SuitePlan("s", "sha", SuiteRole.PRIMARY, Claim.NON_INFERIOR, 0.05, 0.05, 600, 1, 7)
    assert design_from_plan(plan) == design
    alone = judge_differences(d, design)
    assert (alone.outcome, alone.how) == ("inconclusive", "futile")
    assert alone.n_used < 600

    for other in (
        replace(plan, role=SuiteRole.GUARD),
        replace(plan, combine=PrimaryCombination.WEIGHTED),
    ):
        found = judge_differences(d, design_from_plan(other))
        assert (found.outcome, found.how) == ("inconclusive", "final")
        assert found.n_used == 600

    required = replace(plan, role=SuiteRole.REQUIRED)
    assert design_from_plan(required) == design


def test_a_disaster_fails_under_a_margin_before_a_tenth_of_the_items() -> None:
    design = Design(Claim.NON_INFERIOR, 0.05, 600)
    found = judge_differences(passfail(600, won=0.02, lost=0.4), design)

    assert found.outcome == "reject"
    assert found.n_used < 60


M = (-0.02, -0.08)


def chance(d: Sequence[float], design: Design) -> float:
    n = len(d)
    left = design.n_max - len(d)
    if not left:
        return 0.0
    mean = fmean(d)
    sd = math.sqrt((math.fsum((x - mean) ** 2 for x in d) + 0.25) / n)
    ahead = left * (mean + 2.0 * sd / math.sqrt(n))
    z = float(stats.norm.isf(design.levels[design.n_max]))
    limit = z * sd * math.sqrt(design.n_max) + design.theta0 * design.n_max
    return float(stats.norm.cdf((sum(d) + ahead - limit) / (sd * math.sqrt(left))))


def unseen(d: list[float]) -> float:
    return float(with_unseen_loss(d)[-1])


def test_only_spread_that_both_sides_share_makes_the_unseen_loss_smaller() -> None:
    # 0.5 above the mean and 0.5 below it, ten of each.
    assert unseen([0.6, -0.4] * 10) == pytest.approx(-1.0 / (1.0 + 2.5 / 2.0))
    alike = [0.02] * 59
    assert unseen([*alike, -1.0]) < -0.98
    assert unseen([*alike, 1.0]) < -0.98
    assert with_unseen_loss([0.5, 0.5]).tolist() == [0.5, 0.5, -1.0]


@pytest.mark.parametrize("n", [20, 199, 200, 1000])
@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
def test_wins_that_are_all_alike_show_little_at_any_size(claim: Claim, n: int) -> None:
    # A little more everywhere, and one whole item lost in n, which this run did not meet.
    design = Design(claim, 0.05, n)
    gain = design.theta0 + (1.0 + design.theta0) / n
    assert float(final_p([gain] * n, design.theta0)) > 0.3
    # With one loss met, the skew says how little is known.
    assert float(final_p([*([gain] * (n - 1)), -1.0], design.theta0)) > 0.3


@pytest.mark.parametrize(
    ("n", "gain"),
    [
        (20, 0.17),
        (50, 0.07),
        (100, 0.05),
    ],
)
@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
def test_alike_wins_pass_once_so_many_would_have_met_a_loss(
    claim: Claim,
    n: int,
    gain: float,
) -> None:
    design = Design(claim, 0.05, n)
    won, less = ((1.0 + g) * (1.0 + design.theta0) - 1.0 for g in (gain, gain / 2.0))
    found = judge_differences([won] * n, design)
    assert found.outcome == "promote"
    assert found.p_final == pytest.approx((1.0 + gain) ** -found.n_used)
    assert judge_differences([less] * n, design).outcome == "inconclusive"


@pytest.mark.parametrize("claim", [Claim.SUPERIOR, Claim.NON_INFERIOR])
def test_one_path_and_many_paths_agree(claim: Claim) -> None:
    design = Design(claim, 0.05, 60)
    rng = np.random.default_rng(12)
    d = np.clip(0.06 + design.theta0 + rng.normal(0.0, 0.3, (40, 60)), -1.0, 1.0)

    promoted = judge_batch(d, design).promoted
    assert 0 < promoted.sum() < 40
    for row, passed in zip(d, promoted, strict=True):
        assert (judge_differences(row.tolist(), design).outcome == "promote") == passed
