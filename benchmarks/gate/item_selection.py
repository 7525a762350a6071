"""Measures how often the gate errs about an equal model when people labelled a suite's records
by looking at the incumbent's answers: `python -m benchmarks.gate.item_selection [--runs 200]`.

A record's difficulty is drawn from a Beta distribution with mean .75. Two equal models answer
it right with this probability. At a low temperature, the incumbent gives its production answer
again with probability AGAIN; the candidate answers afresh. Records whose lines were deleted are
compared with records that stay without a label (docs/how-to/capture.md).
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.print_rows import print_rows
from harness.gate.offline.pairs import PairedItem, PairedSuite
from harness.gate.offline.suite_judgement import judge_pairs
from harness.gate.run import NO_LABEL
from harness.gate.suite_plan import QUALITY_CLAIMS, Claim, SuitePlan, SuiteRole
from harness.gate.verdict import ScorePair

ITEMS: Final = 200
AGAIN: Final = 0.8
MARGIN: Final = 0.05
MOST: Final = 0.05
MISSED: Final = 3
LABELLED: Final = (0.3, 0.7, 1.0)
OPEN: Final = PairedItem(
    ScorePair("", 1.0, 0.0, 1.0, 0.0),
    1,
    1,
    missing=(1.0, 1.0),
    reasons=((NO_LABEL,), (NO_LABEL,)),
)


@dataclass(frozen=True)
class SelectionRow:
    """Shares of comparisons of two equal models that passed, and that failed.

    deleted: without the unlabelled records. kept: with their scores missing.
    """

    claim: str
    labelled: str
    runs: int
    deleted_failed: float
    kept_failed: float
    deleted_passed: float
    kept_passed: float

    @property
    def missed(self) -> bool:
        return max(self.kept_failed, self.kept_passed) > MOST


def measure_selection(
    share: float,
    claim: Claim,
    runs: int,
    *,
    keep: bool,
    badly_rated: bool = False,
) -> tuple[float, float]:
    """Judges suites in which people labelled a share of the records whose production answer
    was right (`badly_rated`: wrong). Returns the shares that passed, and that failed.

    Args:
        keep: whether the other records stay, with missing scores; otherwise the suite omits
            them.
    """
    rng = np.random.default_rng([73, round(100 * share), keep, badly_rated])
    outcomes = []
    for _ in range(runs):
        skill = rng.beta(1.5, 0.5, ITEMS)
        production = rng.random(ITEMS) < skill
        again = rng.random(ITEMS) < AGAIN
        incumbent = np.where(again, production, rng.random(ITEMS) < skill)
        candidate = rng.random(ITEMS) < skill
        labelled = (production ^ badly_rated) & (rng.random(ITEMS) < share)
        pairs = [
            PairedItem(ScorePair(f"q{n}", float(a), float(b), float(a), float(b)))
            if known
            else OPEN
            for n, (a, b, known) in enumerate(zip(incumbent, candidate, labelled, strict=True))
            if known or keep
        ]
        plan = SuitePlan(
            "drawn", "0", SuiteRole.PRIMARY, claim, MARGIN, 0.05, len(pairs), 1, order_seed=1
        )
        outcomes.append(judge_pairs(plan, PairedSuite(tuple(pairs), "a", "b")).report.outcome)
    return outcomes.count("passed") / runs, outcomes.count("failed") / runs


def measure_rows(runs: int) -> Iterator[SelectionRow]:
    for claim in QUALITY_CLAIMS:
        for badly_rated in (False, True):
            for share in LABELLED:
                passed, failed = zip(
                    *(
                        measure_selection(
                            share, claim, runs, keep=keep, badly_rated=badly_rated
                        )
                        for keep in (False, True)
                    ),
                    strict=True,
                )
                of = "wrong" if badly_rated else "right"
                name = f"{share:.0%} of the {of} answers"
                yield SelectionRow(claim.value, name, runs, *failed, *passed)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    rows = list(measure_rows(parser.parse_args(arguments).runs))
    print_rows("equal models, on records that people labelled by their answers", rows)
    return MISSED if any(row.missed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
