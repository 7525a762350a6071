"""Measures how often a shadow's judge gives a wrong verdict, and how many callers a right
verdict needs: `python -m benchmarks.gate.shadow_cells [--runs 2000]`.

Each candidate of a cell lies exactly at the null hypothesis, and the shadow stops at its first
verdict. "Without" is the same cell without the rule that the cell tests. Ends with 3 when a
rule misses its goal.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.print_rows import print_rows
from harness.gate.budget import spend_alpha
from harness.gate.offline.label_plan import LabelDesign
from harness.gate.offline.shadow_evidence import SharePaths, trace_shares
from harness.gate.suite_plan import Claim

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Chance = np.random.Generator

RUNS: Final = 2_000
CALLERS: Final = 1_500
MARGIN: Final = 0.05
TIES: Final = 0.3  # share of the pairs
MOST_FALSE: Final = 0.055  # as measured; the promise is .05
MISSED: Final = 3
RESTARTS: Final = 10
_SEED: Final = 82
_BATCH: Final = 100  # runs whose arrays are in memory together
_FLIPS: Final = 0.3  # share of the pairs whose preference follows the position
_OUTAGE: Final = 0.05  # share of the callers whose first pair lacks an answer
_UNJUDGED: Final = 0.05  # share of the pairs that the judge cannot score
_HEAVY: Final = 0.3  # share of the requests: one caller's
_LOOKED_FROM: Final = 30  # units, for the test that assumes a fixed number
_QUANTILE_95: Final = 1.645


@dataclass(frozen=True)
class ShadowCell:
    """One cell. passed, failed: shares of wrong verdicts. without: the wrong verdicts PASSED
    without the rule; None for a cell without one.
    """

    cell: str
    claim: Claim
    passed: float
    failed: float | None = None
    without: float | None = None

    @property
    def missed(self) -> bool:
        return max(self.passed, self.failed or 0.0) > MOST_FALSE


@dataclass(frozen=True)
class ShadowPower:
    """How soon a shadow passes. distance: of the win share above the null hypothesis.

    median, quantile_80: callers; None if fewer runs pass.
    """

    claim: Claim
    margin: float
    distance: float
    passed: float
    median: int | None
    quantile_80: int | None


def design_of(claim: Claim, alpha: float = 0.05, margin: float = MARGIN) -> LabelDesign:
    return LabelDesign(claim, margin, alpha)


def draw_shares(chance: Chance, share: float, runs: int, callers: int = CALLERS) -> Floats:
    """Draws win shares with this mean (runs, callers): wins 1, ties ½, losses 0."""
    wins = share - TIES / 2.0
    drawn = chance.random((runs, callers))
    return np.where(drawn < wins, 1.0, np.where(drawn < wins + TIES, 0.5, 0.0))


Draw = Callable[[Chance, int, LabelDesign], tuple[Floats, Floats]]


def rate(
    design: LabelDesign, draw: Draw, runs: int, seed: int, decide: Callable[[SharePaths], Bools]
) -> float:
    """Returns the share of runs with a decision.

    Args:
        draw: bounds of the win shares.
    """
    chance = np.random.default_rng([_SEED, seed])
    found = 0
    for begin in range(0, runs, _BATCH):
        low, high = draw(chance, min(_BATCH, runs - begin), design)
        found += int(decide(trace_shares(low, high, design)).sum())
    return found / runs


def has_passed(paths: SharePaths) -> Bools:
    """Tells which runs pass: PASSED is the first verdict."""
    pass_at, fail_at = _first(paths.passes), _first(paths.fails)
    return np.asarray(paths.passes.any(axis=-1) & (pass_at <= fail_at))


def has_failed(paths: SharePaths) -> Bools:
    return np.asarray(paths.fails.any(axis=-1) & (_first(paths.fails) < _first(paths.passes)))


def _first(marks: Bools) -> NDArray[np.int64]:
    """Returns the first marked unit of each run; the number of units without one."""
    found = np.where(marks.any(axis=-1), marks.argmax(axis=-1), marks.shape[-1])
    return np.asarray(found, dtype=np.int64)


def at_the_null(chance: Chance, runs: int, design: LabelDesign) -> tuple[Floats, Floats]:
    shares = draw_shares(chance, design.theta0, runs)
    return shares, shares


def _follow_position(tie: float | None) -> Draw:
    """The judge follows the position in some pairs.

    Args:
        tie: their score; None for the rule's.
    """

    def draw(chance: Chance, runs: int, design: LabelDesign) -> tuple[Floats, Floats]:
        shares = draw_shares(chance, design.theta0, runs)
        score = design.theta0 if tie is None else tie
        shares = np.where(chance.random(shares.shape) < _FLIPS, score, shares)
        return shares, shares

    return draw


def _incumbent_outage(score: float | None) -> Draw:
    """The incumbent does not answer some callers.

    Args:
        score: of these; None for the rule's.
    """

    def draw(chance: Chance, runs: int, design: LabelDesign) -> tuple[Floats, Floats]:
        shares = draw_shares(chance, design.theta0, runs)
        value = design.theta0 if score is None else score
        shares = np.where(chance.random(shares.shape) < _OUTAGE, value, shares)
        return shares, shares

    return draw


def _candidate_outage(*, counts: bool) -> Draw:
    """The candidate does not answer some callers, and is at the null with these losses.

    Args:
        counts: whether they count. A rule that leaves them out sees a better candidate.
    """

    def draw(chance: Chance, runs: int, design: LabelDesign) -> tuple[Floats, Floats]:
        answered = draw_shares(chance, design.theta0 / (1.0 - _OUTAGE), runs)
        is_out = chance.random(answered.shape) < _OUTAGE
        shares = np.where(is_out, 0.0 if counts else design.theta0, answered)
        return shares, shares

    return draw


def _unjudged(*, bounded: bool) -> Draw:
    """The judge cannot score some pairs, which the candidate loses; it is at the null with
    these.

    Args:
        bounded: whether a missing score counts against both verdicts.
    """

    def draw(chance: Chance, runs: int, design: LabelDesign) -> tuple[Floats, Floats]:
        judged = draw_shares(chance, design.theta0 / (1.0 - _UNJUDGED), runs)
        is_missing = chance.random(judged.shape) < _UNJUDGED
        if not bounded:
            shares = np.where(is_missing, design.theta0, judged)
            return shares, shares
        return np.where(is_missing, 0.0, judged), np.where(is_missing, 1.0, judged)

    return draw


def _heavy_caller(*, by_request: bool) -> Draw:
    """One caller sends many requests, and the candidate wins all of them."""

    def draw(chance: Chance, runs: int, design: LabelDesign) -> tuple[Floats, Floats]:
        shares = draw_shares(chance, design.theta0, runs)
        if by_request:
            shares = np.where(chance.random(shares.shape) < _HEAVY, 1.0, shares)
            return shares, shares
        # The first pairs of the others make up for the win: the mean over callers is the null.
        others = (design.theta0 * CALLERS - 1.0) / (CALLERS - 1)
        shares = draw_shares(chance, others, runs)
        shares[np.arange(runs), chance.integers(CALLERS, size=runs)] = 1.0
        return shares, shares

    return draw


def _changing_share(chance: Chance, runs: int, design: LabelDesign) -> tuple[Floats, Floats]:
    """Two kinds of callers have different win shares. A person who reads the evidence raises
    the shadow's share when it looks good, and lowers it when it looks bad. Callers are chosen
    by a hash, so the share changes how fast they arrive, and not which kind.
    """
    kinds = np.array([design.theta0 - 0.2, design.theta0 + 0.2])
    drawn = np.stack([draw_shares(chance, kind, runs) for kind in kinds])
    is_second = chance.random((runs, CALLERS)) < 0.5
    shares = np.where(is_second, drawn[1], drawn[0])
    # A quick shadow has all its callers, a slow one a quarter: chosen by the path so far.
    paths = trace_shares(shares, shares, design)
    slow = paths.passing[:, CALLERS // 8] < 0.0
    kept = np.where(slow[:, None] & (np.arange(CALLERS) > CALLERS // 4), design.theta0, shares)
    return kept, kept


def peeked_t(claim: Claim, runs: int) -> float:
    """Returns the false passes of a t test that a person reads after each unit."""
    design = design_of(claim)
    chance = np.random.default_rng([_SEED, 90])
    found = 0
    for begin in range(0, runs, _BATCH):
        shares, _ = at_the_null(chance, min(_BATCH, runs - begin), design)
        n = np.arange(1, CALLERS + 1)
        mean = np.cumsum(shares, axis=-1) / n
        spread = np.sqrt(np.maximum(np.cumsum(shares**2, axis=-1) / n - mean**2, 1e-9) / n)
        shown = (mean - design.theta0) / spread >= _QUANTILE_95
        found += int(shown[:, _LOOKED_FROM:].any(axis=-1).sum())
    return found / runs


def restarted(claim: Claim, runs: int, alphas: list[float]) -> float:
    """Returns the share of candidates that pass in one of several shadows, each with callers
    and an e-process of its own.
    """
    chance = np.random.default_rng([_SEED, 91])
    passed = np.zeros(runs, dtype=bool)
    callers = CALLERS // RESTARTS
    for alpha in alphas:
        design = design_of(claim, alpha)
        for begin in range(0, runs, _BATCH):
            count = min(_BATCH, runs - begin)
            shares = draw_shares(chance, design.theta0, count, callers)
            passed[begin : begin + count] |= has_passed(trace_shares(shares, shares, design))
    return float(passed.mean())


def measure_shadow_cells(runs: int) -> Iterator[ShadowCell]:
    """Yields all cells of both claims."""
    few = max(1, runs // 4)
    for claim in (Claim.NON_INFERIOR, Claim.SUPERIOR):
        design = design_of(claim)

        def measure(
            cell: str,
            seed: int,
            draw: Draw,
            naive: Draw | None = None,
            *,
            claim: Claim = claim,
            design: LabelDesign = design,
        ) -> ShadowCell:
            without = rate(design, naive, few, seed + 50, has_passed) if naive else None
            passed = rate(design, draw, runs, seed, has_passed)
            return ShadowCell(
                cell, claim, passed, rate(design, draw, runs, seed, has_failed), without
            )

        null = measure("a candidate at the null, read after each caller", 1, at_the_null)
        yield ShadowCell(null.cell, claim, null.passed, null.failed, peeked_t(claim, few))
        yield measure(
            "a judge that follows the position in 30 % of the pairs",
            2,
            _follow_position(None),
            _follow_position(0.5),
        )
        yield measure(
            "the incumbent does not answer 5 % of the callers",
            3,
            _incumbent_outage(None),
            _incumbent_outage(1.0),
        )
        yield measure(
            "the candidate does not answer 5 % of the callers",
            4,
            _candidate_outage(counts=True),
            _candidate_outage(counts=False),
        )
        yield measure(
            "the judge does not score 5 % of the pairs, all lost",
            5,
            _unjudged(bounded=True),
            _unjudged(bounded=False),
        )
        yield measure(
            "one caller with 30 % of the requests, whom the candidate pleases",
            6,
            _heavy_caller(by_request=False),
            _heavy_caller(by_request=True),
        )
        yield measure("the share of callers changes with the evidence", 7, _changing_share)
        looks = [spend_alpha(0.05, look) for look in range(1, RESTARTS + 1)]
        yield ShadowCell(
            "ten shadows with other judges, one after the other",
            claim,
            restarted(claim, runs, looks),
            without=restarted(claim, few, [0.05] * RESTARTS),
        )


def measure_power(runs: int) -> Iterator[ShadowPower]:
    """Yields how many callers a right verdict PASSED needs."""
    cells = (
        (Claim.NON_INFERIOR, 0.05, (0.05, 0.1)),
        (Claim.NON_INFERIOR, 0.1, (0.1, 0.2)),
        (Claim.SUPERIOR, 0.05, (0.05, 0.1, 0.2)),
    )
    for claim, margin, distances in cells:
        design = design_of(claim, margin=margin)
        for distance in distances:
            chance = np.random.default_rng([_SEED, 92])
            share = design.theta0 + distance
            shares = draw_shares(chance, share, runs, 2 * CALLERS)
            paths = trace_shares(shares, shares, design)
            at = np.where(has_passed(paths), _first(paths.passes) + 1.0, np.inf)
            quantiles = np.quantile(at, (0.5, 0.8), method="higher")
            median, most = (int(each) if np.isfinite(each) else None for each in quantiles)
            passed = float(np.isfinite(at).mean())
            yield ShadowPower(claim, margin, distance, passed, median, most)


def print_shadow_cells(runs: int) -> list[object]:
    """Prints all cells, and returns those that miss their goal."""
    cells = [*measure_shadow_cells(runs)]
    print_rows("shadows: wrong verdicts at the null", cells)
    print_rows("shadows: callers until PASSED", [*measure_power(max(100, runs // 4))])
    return [cell for cell in cells if cell.missed]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=RUNS)
    missed = print_shadow_cells(options.parse_args().runs)
    for cell in missed:
        print(f"MISSED: {cell}")
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
