"""The sequential test against the formulas of statistics.md §1.3 to §1.5, §1.12 and §1.17,
written once more as loops over single items, with scipy's distributions.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from statistics import fmean

import numpy as np
import pytest
from scipy import stats

from harness.domain.evals.suite_plan import Claim, UnseenLoss
from harness.gate.offline.design import REJECT_LOG_E, Design
from harness.gate.offline.sequential import (
    ComparisonProgress,
    build_evidence,
    evidence_path,
    judge_batch,
    judge_differences,
    progress_at,
)

pytestmark = pytest.mark.req("F2")

SUPERIOR = Design(Claim.SUPERIOR, 0.05, 250)


def passfail(n: int, seed: int = 1, won: float = 0.1, lost: float = 0.1) -> list[float]:
    rng = Random(seed)
    return rng.choices([1.0, -1.0, 0.0], [won, lost, 1.0 - won - lost], k=n)


def graded(n: int, seed: int = 2, mean: float = 0.0, sd: float = 0.3) -> list[float]:
    rng = Random(seed)
    return [max(-1.0, min(1.0, rng.gauss(mean, sd))) for _ in range(n)]


def t_statistic(d: Sequence[float], theta0: float, guard: float) -> float:
    n, mean = len(d), fmean(d)
    spread = math.fsum((x - mean) ** 2 for x in d) + guard
    return (mean - theta0) / math.sqrt(spread / n**2)


def p_of_t(d: Sequence[float], theta0: float, guard: float = 0.25) -> float:
    return float(stats.t.sf(t_statistic(d, theta0, guard), len(d) - 1))


def p_of_tango(d: Sequence[float], theta0: float) -> float:
    n, b, c = len(d), d.count(1.0), d.count(-1.0)
    big_b = -b - c + (2 * n - b + c) * theta0
    big_c = -c * theta0 * (1 - theta0)
    q = (math.sqrt(big_b**2 - 8 * n * big_c) - big_b) / (4 * n)
    variance = n * (2 * q + theta0 * (1 - theta0))
    return float(stats.norm.sf((b - c - n * theta0) / math.sqrt(variance)))


def unseen_item(d: Sequence[float], rule: UnseenLoss) -> float:
    mean = fmean(d)
    above = math.fsum((x - mean) ** 2 for x in d if x > mean)
    below = math.fsum((x - mean) ** 2 for x in d if x < mean)
    return -1.0 if rule is UnseenLoss.WHOLE else -1.0 / (1.0 + min(above, below) / 2.0)


def p_at_the_end(d: Sequence[float], design: Design) -> float:
    theta0 = design.theta0
    whole = all(x in (-1.0, 0.0, 1.0) for x in d)
    plain = p_of_t(d, theta0)
    if design.cluster_size is not None:
        m = design.cluster_size
        few = design.claim is Claim.NON_INFERIOR and design.n_max < 60
        lost = -1.0 if few else min(-1.0 / m, *d)
        p = p_of_t([*d, lost], theta0, 0.25 / m)
        return max(p, plain, p_of_tango(d, theta0)) if whole else p
    if whole:
        return max(plain, p_of_tango(d, theta0))
    if design.claim is Claim.NON_INFERIOR or design.n_max < 200:
        return p_of_t([*d, unseen_item(d, design.unseen)], theta0)
    return plain


DESIGNS = [
    Design(Claim.SUPERIOR, 0.05, 199),
    Design(Claim.SUPERIOR, 0.05, 199, unseen=UnseenLoss.MIRRORED),
    Design(Claim.SUPERIOR, 0.05, 200),
    Design(Claim.NON_INFERIOR, 0.05, 80),
    Design(Claim.NON_INFERIOR, 0.05, 240, unseen=UnseenLoss.MIRRORED),
    Design(Claim.SUPERIOR, 0.05, 120, cluster_size=3.5),
    Design(Claim.NON_INFERIOR, 0.05, 59, cluster_size=3.5),
    Design(Claim.NON_INFERIOR, 0.05, 60, cluster_size=3.5),
]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("seed", [3, 4])
def test_the_last_test_of_every_design_is_the_one_of_the_formula(
    design: Design, seed: int
) -> None:
    n = design.n_max
    rows = [passfail(n, seed), graded(n, seed), [x * 0.1 for x in passfail(n, seed)]]
    for d in rows:
        evidence = judge_differences(d, design)
        used = d[: evidence.n_used]

        assert evidence.p_final == pytest.approx(p_at_the_end(used, design), rel=1e-7)
        t = t_statistic(used, design.theta0, 0.25)
        assert evidence.t == pytest.approx(t, rel=1e-9)
        assert evidence.p_t == pytest.approx(stats.t.sf(t, len(used) - 1), rel=1e-9)
        assert evidence.sd == pytest.approx(np.std(used, ddof=1))
        assert evidence.delta == pytest.approx(fmean(used))
        counts = (sum(x > 0 for x in used), used.count(0.0), sum(x < 0 for x in used))
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
        assert (figures, one.outcome, one.delta) == ((None,) * 5, "running", d[0])


def test_a_p_value_of_exactly_the_level_promotes() -> None:
    late = Design(Claim.SUPERIOR, 0.05, 150, early=False)
    d = passfail(150, won=0.15)
    p = judge_differences(d, late).p_final
    assert p is not None
    assert late.alpha2 == late.alpha

    for alpha, outcome in ((p, "promote"), (math.nextafter(p, 0.0), "inconclusive")):
        exact = replace(late, alpha=alpha)
        evidence = judge_differences(d, exact)
        assert (evidence.outcome, evidence.how) == (outcome, "final")
        assert judge_batch([d], exact).promoted.tolist() == [outcome == "promote"]


def test_evidence_of_exactly_the_limit_decides_and_promotion_stands_first() -> None:
    below = progress_at(evidence_path(passfail(20), SUPERIOR), 19)
    up = replace(below, log_e=SUPERIOR.promote_at)
    down = replace(below, log_e_bad=REJECT_LOG_E)
    both = replace(up, log_e_bad=REJECT_LOG_E)

    def outcome(progress: ComparisonProgress) -> tuple[str, str | None]:
        evidence = build_evidence(progress, SUPERIOR)
        return evidence.outcome, evidence.how

    assert outcome(below) == ("running", None)
    assert outcome(up) == outcome(both) == ("promote", "early")
    assert outcome(down) == ("reject", "early")
    almost = replace(
        below,
        log_e=math.nextafter(SUPERIOR.promote_at, 0.0),
        log_e_bad=math.nextafter(REJECT_LOG_E, 0.0),
    )
    assert outcome(almost) == ("running", None)
