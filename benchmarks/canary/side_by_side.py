"""Compares the blocks of the router with the blocks of rows, on the same simulated requests:
`python -m benchmarks.canary.side_by_side [--seed 1] [--rollouts 1] [--scene NAME]`.

`same` counts the equal decisions. `ended_s` is the time of the first decision to roll back.
log_e, canary and failed are those of the evidence at the end, or at the rollback. Ends with 3
if more than 1 in 20 rollouts ends otherwise.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from benchmarks.print_rows import print_rows
from harness.gate.online.rollout import ActionKind
from tests.support.canary.side_by_side import SCENES, Comparison, Scene, SideBySide

OTHERWISE: Final = 3
# One in so many rollouts may end otherwise.
ROLLOUTS_PER_DIFFERENCE: Final = 20


@dataclass(frozen=True)
class SideBySideRow:
    """One rollout in both forms. The fields with `2` are by rows."""

    scene: str
    seed: int
    same: str
    end: str
    end2: str
    ended_s: float | None
    ended2_s: float | None
    log_e: float
    log_e2: float
    canary: int
    canary2: int
    failed: int
    failed2: int


def compare(scene: Scene, seed: int) -> SideBySideRow:
    """Runs a scene in both forms."""
    with tempfile.TemporaryDirectory() as folder:
        found = SideBySide(scene, Path(folder), seed).run()
    ledger = found.ledger_evidence
    rows = found.row_evidence
    last = found.decisions[-1]
    decisions = len(found.decisions)
    return SideBySideRow(
        scene.name,
        seed,
        f"{decisions - found.differences} of {decisions}",
        last.ledger.code.value,
        last.rows.code.value,
        _find_end(found, by_rows=False),
        _find_end(found, by_rows=True),
        ledger.log_e,
        rows.log_e,
        ledger.exposures,
        rows.exposures,
        ledger.canary_failures,
        rows.canary_failures,
    )


def _find_end(found: Comparison, *, by_rows: bool) -> float | None:
    return next(
        (
            decision.at_s
            for decision in found.decisions
            if (decision.rows if by_rows else decision.ledger).kind is ActionKind.ROLLBACK
        ),
        None,
    )


def _run(options: argparse.Namespace) -> Iterator[SideBySideRow]:
    scenes = [scene for scene in SCENES if options.scene in {None, scene.name}]
    seeds = range(options.seed, options.seed + options.rollouts)
    cases = list(product(scenes, seeds))
    with ProcessPoolExecutor() as pool:
        yield from pool.map(compare, *zip(*cases, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rollouts", type=int, default=1)
    parser.add_argument("--scene", choices=[scene.name for scene in SCENES])
    rows = list(_run(parser.parse_args()))
    print_rows("Blocks of the router, and blocks of rows", rows)
    otherwise = sum(row.end != row.end2 for row in rows)
    print(f"\n{otherwise} of {len(rows)} rollouts end otherwise")
    return OTHERWISE if otherwise * ROLLOUTS_PER_DIFFERENCE > len(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
