"""GateBench: how often the gate errs, beside simpler rules. `python -m benchmarks.gate.run`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gate.matrix import BINARY, GRADED, ModelPair, close_pairs, load
from benchmarks.gate.measure import Cell, measure
from benchmarks.gate.rules import RULES
from harness.domain.evaluation import Claim

SIZES = (200, 500)
PAIRS = 6


def main() -> None:
    options = _parser().parse_args()
    power = max(50, options.replications // 10)
    paths = [options.matrix] if options.matrix else [BINARY, GRADED]
    for path in paths:
        pairs = close_pairs(load(path), PAIRS)
        for claim in Claim:
            for n in SIZES:
                _table(path.stem, pairs, claim, n, options.replications, power)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--matrix", type=Path, help="your own models x items scores")
    parser.add_argument("--replications", type=int, default=2000, help="per pair, at the null")
    return parser


def _table(
    suite: str,
    pairs: Sequence[ModelPair],
    claim: Claim,
    n: int,
    replications: int,
    power: int,
) -> None:
    null = measure(pairs, claim, n=n, lift=0.0, replications=replications)
    five = measure(pairs, claim, n=n, lift=0.05, replications=power)
    ten = measure(pairs, claim, n=n, lift=0.10, replications=power)
    print(f"\n{suite}, {claim.value}, n = {n}; {replications} and {power} draws of each pair")
    print(
        f"{'rule':<26}{'false':>7}{'worst':>7}{'at +5':>7}{'at +10':>7}"
        f"{'items 0':>9}{'+5':>6}{'+10':>6}"
    )
    for rule in RULES:
        print(_row(rule, null[rule], five[rule], ten[rule]))


def _row(rule: str, null: Cell, five: Cell, ten: Cell) -> str:
    return (
        f"{rule:<26}{null.mean:>7.3f}{null.worst:>7.3f}{five.mean:>7.2f}{ten.mean:>7.2f}"
        f"{null.items:>9.0f}{five.items:>6.0f}{ten.items:>6.0f}"
    )


if __name__ == "__main__":
    main()
