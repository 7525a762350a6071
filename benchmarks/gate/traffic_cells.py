"""Measures how often a suite of traffic gives a wrong verdict where its records mislead:
`python -m benchmarks.gate.traffic_cells [--runs 200]`.

Every candidate lies exactly at the null hypothesis. A cell passes the pairs of one draw through
the rules of the draw, the check of the record, and the gate. The last column is the same cell
without the rule that the cell tests. Ends with 3 when a rule misses its goal.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.print_rows import print_rows
from evals.runner.record_check import CHECKED, LEVEL, share_p
from evals.traffic.recorded_runs import MOST_TURNS
from harness.gate.budget import spend_alpha
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.suite_judgement import judge_pairs
from harness.gate.suite_plan import (
    ORDERS_DISAGREE,
    RUN_CLUSTER,
    Claim,
    SuitePlan,
    SuiteRole,
)
from harness.gate.verdict import ScorePair

Floats = NDArray[np.float64]

PAIRS: Final = 200
RUNS: Final = 200
MARGIN: Final = 0.05
ALPHA: Final = 0.05
TIES: Final = 0.3  # share of the pairs
MOST_FALSE: Final = 0.055
MISSED: Final = 3
_SEED: Final = 80
_EVEN: Final = 0.5
_HEAVY_SHARE: Final = 0.3  # of the requests: one caller's
_OUTAGE: Final = 0.05  # share of the records without an answer
_UPGRADE: Final = 0.05  # by which the incumbent of now is better, or worse
_FLIPS: Final = 0.3  # share of the pairs whose preference follows the position
_WINDOWS: Final = 10
_LAST_TURN: Final = 0.12  # probability that a turn is its run's last
_LONG: Final = 5  # turns; longer runs are long
_LONG_GAIN: Final = 0.1  # of the win share in long runs, and loss in the others
_RUN_SPREAD: Final = 0.15  # standard deviation of a run's own win share


@dataclass(frozen=True)
class TrafficCell:
    """One cell. false, without: shares of passed candidates with and without the rule. goal:
    the highest allowed share; None for a share that is only shown.
    """

    cell: str
    claim: Claim
    false: float
    without: float | None = None
    goal: float | None = MOST_FALSE

    @property
    def missed(self) -> bool:
        return self.goal is not None and self.false > self.goal


def null_share(claim: Claim) -> float:
    """Returns the win share of a candidate at the null hypothesis."""
    return _EVEN - (MARGIN if claim is Claim.NON_INFERIOR else 0.0)


def draw_scores(chance: np.random.Generator, share: float, n: int = PAIRS) -> Floats:
    """Draws pairs with this win share: wins 1, ties ½, losses 0."""
    wins = share - TIES / 2.0
    return chance.choice([1.0, _EVEN, 0.0], size=n, p=[wins, TIES, 1.0 - TIES - wins])


@cache
def plan_of(
    claim: Claim,
    n: int,
    alpha: float = ALPHA,
    turns: tuple[int, ...] = (),
) -> SuitePlan:
    """Returns the plan of n callers with one record each, or of runs with these turns."""
    return SuitePlan(
        "traffic",
        "digest",
        SuiteRole.PRIMARY,
        claim,
        MARGIN,
        alpha,
        n,
        epochs=1,
        order_seed=1,
        cluster=RUN_CLUSTER if turns else "caller",
        cluster_sizes=turns or (1,) * n,
        judged_by="a judge",
        unit_requests=(1,) * n,
    )


def passes(
    plan: SuitePlan,
    scores: Floats,
    contrary: NDArray[np.bool_] | None = None,
) -> bool:
    """Tells whether the gate passes these win shares.

    Args:
        contrary: pairs whose orders disagree.
    """
    marks = np.zeros(len(scores), dtype=bool) if contrary is None else contrary
    items = tuple(
        PairedItem(
            ScorePair(str(number), _EVEN, score, _EVEN, score),
            rules=(ORDERS_DISAGREE,) if marked else (),
        )
        for number, (score, marked) in enumerate(
            zip(scores.tolist(), marks.tolist(), strict=True)
        )
    )
    report = judge_pairs(plan, PairedSuite(items, "incumbent", "candidate")).report
    return report.outcome == "passed"


def rate(runs: int, seed: int, passed: Callable[[np.random.Generator], bool]) -> float:
    chance = np.random.default_rng([_SEED, seed])
    return sum(passed(chance) for _ in range(runs)) / runs


def rate_without(runs: int, seed: int, passed: Callable[[np.random.Generator], bool]) -> float:
    """Measures the cell without its rule; fewer runs suffice to show that it can fail."""
    return rate(max(1, runs // 4), seed, passed)


def at_the_null(runs: int, claim: Claim) -> TrafficCell:
    """The candidate is at the null against the answers that the users got."""
    plan = plan_of(claim, PAIRS)
    found = rate(runs, 1, lambda chance: passes(plan, draw_scores(chance, null_share(claim))))
    return TrafficCell("a candidate at the null", claim, found)


def stale_record(runs: int, claim: Claim, upgrade: float, *, ask_again: bool) -> TrafficCell:
    """A silent upgrade by `upgrade` points of win share; the candidate is at the null against
    the incumbent of *now*.

    Args:
        ask_again: both models answer now. Else the record counts unless its check refuses it.
    """
    plan = plan_of(claim, PAIRS)
    shift = 0.0 if ask_again else upgrade

    def passed(chance: np.random.Generator) -> bool:
        found = passes(plan, draw_scores(chance, null_share(claim) + shift))
        return found and (ask_again or not _is_stale(chance, upgrade))

    def unchecked(chance: np.random.Generator) -> bool:
        return passes(plan, draw_scores(chance, null_share(claim) + upgrade))

    way = "--ask-again" if ask_again else f"{CHECKED} records are checked"
    return TrafficCell(
        f"a silent upgrade by {100 * upgrade:+.0f} points; {way}",
        claim,
        rate(runs, 2, passed),
        rate_without(runs, 3, unchecked),
        # Without --ask-again, the claim is about the answers that the users got.
        MOST_FALSE if ask_again or upgrade < 0 else None,
    )


def _is_stale(chance: np.random.Generator, upgrade: float) -> bool:
    return share_p(draw_scores(chance, _EVEN + upgrade, CHECKED).tolist()) <= LEVEL


def logged_outage(runs: int, claim: Claim) -> TrafficCell:
    """5 % of the records have no answer. Both models answer these now; the naive rule counts
    them as wins of the candidate.
    """
    plan = plan_of(claim, PAIRS)

    def draw(chance: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
        return draw_scores(chance, null_share(claim)), chance.random(PAIRS) < _OUTAGE

    def naive(chance: np.random.Generator) -> bool:
        scores, failed = draw(chance)
        return passes(plan, np.where(failed, 1.0, scores))

    return TrafficCell(
        "an outage in 5 % of the log",
        claim,
        rate(runs, 4, lambda chance: passes(plan, draw(chance)[0])),
        rate_without(runs, 5, naive),
    )


def best_of_windows(runs: int, claim: Claim) -> TrafficCell:
    """The proposer draws again for each of ten windows of seven days, which share six days
    with the next one, and takes the best.
    """
    days = _WINDOWS + 6
    per_day = PAIRS // 7
    n = per_day * 7

    def best(chance: np.random.Generator, alphas: list[float]) -> bool:
        scores = draw_scores(chance, null_share(claim), days * per_day).reshape(days, per_day)
        windows = (scores[start : start + 7].ravel() for start in range(_WINDOWS))
        return any(
            passes(plan_of(claim, n, alpha), window)
            for window, alpha in zip(windows, alphas, strict=True)
        )

    looks = [spend_alpha(ALPHA, look) for look in range(1, _WINDOWS + 1)]
    return TrafficCell(
        "the best of ten date windows",
        claim,
        rate(runs // 2, 6, lambda chance: best(chance, looks)),
        rate_without(runs // 2, 7, lambda chance: best(chance, [ALPHA] * _WINDOWS)),
    )


def heavy_caller(runs: int, claim: Claim) -> TrafficCell:
    """One caller sends 30 % of the requests, and the candidate wins all of them. The mean over
    callers is at the null. The naive rule draws requests, and ignores their callers.
    """
    others = PAIRS - 1
    plan = plan_of(claim, PAIRS)
    share = (null_share(claim) * PAIRS - 1.0) / others

    def passed(chance: np.random.Generator) -> bool:
        scores = draw_scores(chance, share, others)
        return passes(plan, np.insert(scores, int(chance.integers(PAIRS)), 1.0))

    def naive(chance: np.random.Generator) -> bool:
        is_heavy = chance.random(PAIRS) < _HEAVY_SHARE
        return passes(plan, np.where(is_heavy, 1.0, draw_scores(chance, share)))

    return TrafficCell(
        "one heavy caller, whose requests the candidate wins",
        claim,
        rate(runs, 8, passed),
        rate_without(runs, 9, naive),
    )


def position_bias(runs: int, claim: Claim) -> TrafficCell:
    """The judge follows the position in 30 % of the pairs."""
    plan = plan_of(claim, PAIRS)

    def draw(chance: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
        contrary = chance.random(PAIRS) < _FLIPS
        scores = draw_scores(chance, null_share(claim))
        return np.where(contrary, _EVEN, scores), contrary

    return TrafficCell(
        "a judge that follows the position in 30 % of the pairs",
        claim,
        rate(runs, 10, lambda chance: passes(plan, *draw(chance))),
        rate_without(runs, 11, lambda chance: passes(plan, draw(chance)[0])),
    )


def agents_runs(runs: int, claim: Claim) -> TrafficCell:
    """Runs of very different length, whose turns agree within a run. The mean over runs is at
    the null, and the candidate is better in long runs. The naive rule takes turns as units.
    """
    long_share = (1.0 - _LAST_TURN) ** _LONG
    center = null_share(claim) - _LONG_GAIN * (2.0 * long_share - 1.0)

    def draw(chance: np.random.Generator) -> tuple[NDArray[np.int64], list[Floats]]:
        logged = chance.geometric(_LAST_TURN, PAIRS)
        gains = np.where(logged > _LONG, _LONG_GAIN, -_LONG_GAIN)
        shares = center + gains + _RUN_SPREAD * chance.choice([-1.0, 1.0], PAIRS)
        turns = np.minimum(logged, MOST_TURNS)
        scores = [
            draw_scores(chance, share, int(count))
            for share, count in zip(shares, turns, strict=True)
        ]
        return turns, scores

    def passed(chance: np.random.Generator) -> bool:
        turns, scores = draw(chance)
        plan = plan_of(claim, PAIRS, turns=tuple(turns.tolist()))
        return passes(plan, np.concatenate(scores))

    def naive(chance: np.random.Generator) -> bool:
        _, scores = draw(chance)
        pooled = np.concatenate(scores)
        return passes(plan_of(claim, len(pooled)), pooled)

    return TrafficCell(
        "agents' runs of 1 to some 50 turns, judged better in long runs",
        claim,
        rate(runs, 12, passed),
        rate_without(runs, 13, naive),
    )


def measure_traffic_cells(runs: int) -> Iterator[TrafficCell]:
    """Yields all cells of both claims."""
    for claim in (Claim.NON_INFERIOR, Claim.SUPERIOR):
        yield at_the_null(runs, claim)
        for upgrade in (_UPGRADE, -_UPGRADE):
            yield stale_record(runs, claim, upgrade, ask_again=False)
        yield stale_record(runs, claim, _UPGRADE, ask_again=True)
        yield logged_outage(runs, claim)
        yield best_of_windows(runs, claim)
        yield heavy_caller(runs, claim)
        yield position_bias(runs, claim)
        yield agents_runs(runs, claim)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=RUNS, help="per cell")
    cells = [*measure_traffic_cells(options.parse_args().runs)]
    print_rows("suites of traffic: shares of useless candidates that pass", cells)
    missed = [cell for cell in cells if cell.missed]
    for cell in missed:
        print(f"MISSED: {cell}")
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
