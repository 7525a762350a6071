"""Replays labels on real people's and real judges' preferences of the same pairs of answers:
`python -m benchmarks.gate.people_pairs [--votes FOLDER]`.

Source: LLMFAO (D. Ustalov; CC BY 4.0, after the crowdsourced benchmark of llmonitor.com): pairs
of answers of 59 models, each judged by one to five crowd workers, by GPT-4 and by GPT-3.5.
Swapproof has no copy of the data. `VOTES` counts the votes about pairs 0 to 278 and 1600 to
1666, which belong to three prompts. With the source's files in FOLDER, all pairs count.
"""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.gate.label_cells import (
    MISSED,
    MOST_FALSE,
    PAIRS,
    FalseVerdicts,
    LabelUse,
    measure_false_verdicts,
    measure_use_of,
)
from benchmarks.print_rows import print_rows
from harness.gate.offline.label_forecast import round_shares
from harness.gate.offline.label_plan import JUDGE_LEVELS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RUNS: Final = 2_000
_LEVELS: Final = ("right", "tie", "left")  # the candidate's answer is on the left
PEOPLE_FILE: Final = "crowd-comparisons.csv"
JUDGE_FILES: Final = {
    "GPT-4": "gpt4-crowd-comparisons.csv",
    "GPT-3.5": "gpt3-crowd-comparisons.csv",
}


@dataclass(frozen=True)
class MeasuredJudge:
    """A judge with counted votes: by its preference and a person's (3, 3)."""

    name: str
    votes: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        return sum(map(sum, self.votes))

    @property
    def correlation(self) -> float:
        """With one person's preference."""
        counts = np.asarray(self.votes, dtype=np.float64)
        levels = np.asarray(JUDGE_LEVELS)
        shares = counts / counts.sum()
        judge, people = shares.sum(axis=1) @ levels, shares.sum(axis=0) @ levels
        covariance = (levels - judge) @ shares @ (levels - people)
        spreads = (
            shares.sum(axis=1) @ (levels - judge) ** 2,
            shares.sum(axis=0) @ (levels - people) ** 2,
        )
        return float(covariance / np.sqrt(spreads[0] * spreads[1]))

    @property
    def bias(self) -> float:
        """How much the judge's win share exceeds the people's."""
        counts = np.asarray(self.votes, dtype=np.float64)
        levels = np.asarray(JUDGE_LEVELS)
        gain = counts.sum(axis=1) @ levels - counts.sum(axis=0) @ levels
        return float(gain / counts.sum())

    def pairs(self, win_share: float, pairs: int = PAIRS) -> Ints:
        """Counts pairs by the judge's preference and a person's (3, 3), with this win share of
        the people. Their ties, and the judge's preference given theirs, are as counted.
        """
        counts = np.asarray(self.votes, dtype=np.float64)
        people = counts.sum(axis=0)
        ties = people[1] / people.sum()
        wanted = np.array([1.0 - ties / 2.0 - win_share, ties, win_share - ties / 2.0])
        return round_shares(counts / people * wanted, pairs)


# Votes of people, by the judge's preference (rows) and theirs (columns): for the incumbent's
# answer on the right, for neither, for the candidate's on the left.
VOTES: Final = (
    MeasuredJudge("GPT-4", ((310, 215, 268), (5, 14, 7), (209, 161, 260))),
    MeasuredJudge("GPT-3.5", ((170, 102, 113), (56, 63, 81), (298, 225, 341))),
)


@dataclass(frozen=True)
class JudgeWorth:
    """How a judge's preferences relate to one person's. votes: of people."""

    judge: str
    votes: int
    correlation: float
    bias: float


def count_votes(folder: Path) -> tuple[MeasuredJudge, ...]:
    """Counts the votes of the source's files about the pairs that have both.

    Raises OSError for a file that is not there, KeyError for another format.
    """
    people = _read_winners(folder / PEOPLE_FILE)
    found = []
    for name, file in JUDGE_FILES.items():
        judged = dict(_read_winners(folder / file))
        votes = Counter((judged[pair], vote) for pair, vote in people if pair in judged)
        rows = [tuple(votes[judge, vote] for vote in _LEVELS) for judge in _LEVELS]
        found.append(MeasuredJudge(name, tuple(rows)))
    return tuple(found)


def _read_winners(file: Path) -> list[tuple[str, str]]:
    """Reads the pairs and the winners of a file: right, tie or left."""
    with file.open(encoding="utf-8", newline="") as lines:
        return [(row["id"], row["winner"]) for row in csv.DictReader(lines)]


def measure_people(folder: Path) -> float:
    """Measures the correlation of two people's preferences of the same pair."""
    level = dict(zip(_LEVELS, JUDGE_LEVELS, strict=True))
    by_pair: dict[str, list[float]] = {}
    for pair, vote in _read_winners(folder / PEOPLE_FILE):
        by_pair.setdefault(pair, []).append(level[vote])
    both = [two for votes in by_pair.values() for two in permutations(votes, 2)]
    return float(np.corrcoef(np.asarray(both).T)[0, 1])


def print_people_pairs(judges: Sequence[MeasuredJudge], runs: int) -> list[FalseVerdicts]:
    """Prints the tables, and returns the cells that miss their goal."""
    worth = [
        JudgeWorth(judge.name, judge.size, judge.correlation, judge.bias) for judge in judges
    ]
    print_rows("real judges and people: correlation with one person", worth)
    false = [measure_false_verdicts(judge, runs) for judge in judges]
    print_rows("real judges and people: wrong verdicts at the null hypothesis", false)
    use: list[LabelUse] = [
        measure_use_of(judge, margin, distance, runs // 2)
        for judge in judges
        for margin, distance in ((0.05, 5), (0.05, 10), (0.1, 10))
    ]
    print_rows("real judges and people: labels until PASSED, of 3,000 pairs", use)
    return [row for row in false if row.worst > MOST_FALSE]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=RUNS, help="of each cell")
    options.add_argument("--votes", type=Path, help="folder with the files of the source")
    chosen = options.parse_args()
    judges: tuple[MeasuredJudge, ...] = VOTES
    if chosen.votes:
        judges = count_votes(chosen.votes)
        print(f"two people of the same pair: correlation {measure_people(chosen.votes):.2f}")
    missed = print_people_pairs(judges, chosen.runs)
    for row in missed:
        print(f"MISSED: {row}")
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
