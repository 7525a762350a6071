"""The cells that expose a wrong rule of the canary, as tables with goals.

Each table uses the simulation of its calibration test in `tests/simulation`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Final

import numpy as np

from benchmarks.canary.rows import BenchmarkCell, Limits, share_cell
from harness.frame.formatting import format_percent
from harness.gate.online.evidence_paths import counts_path
from harness.gate.online.fisher import ALARM_LOG_E, worst_log_srm
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.observation import ObservationBlock
from tests.support.canary.handed_over_traffic import (
    HandoverScene,
    count_moved,
    simulate_handovers,
)

# Shares of the requests whose conversation began before the rollout.
UNSEEN: Final = (0.2, 0.3, 0.5, 0.6)
REQUESTS: Final = 30_000
CONVERSATIONS: Final = 800


def handovers(rollouts: int, seed: int) -> Iterator[BenchmarkCell]:
    """Measures conversations under way: false alarms of the split, and rollbacks."""
    cells = count()

    def simulate(scene: HandoverScene, number: int) -> Iterator[list[ObservationBlock]]:
        cell = next(cells)
        for index in range(number):
            rng = np.random.default_rng([seed, cell, index])
            yield simulate_handovers(scene, requests=REQUESTS, rng=rng)

    few = max(5, rollouts // 4)
    for unseen in UNSEEN:
        under_way = f"{format_percent(unseen)} under way"
        for earlier in (0.0, 0.3):
            scene = HandoverScene(unseen=unseen, earlier=earlier)
            alarms = [worst_log_srm(one) >= ALARM_LOG_E for one in simulate(scene, rollouts)]
            case = (
                f"{under_way}, {format_percent(earlier)} from the step before: `sample_ratio`"
            )
            yield share_cell("handover", case, REQUESTS, alarms, Limits(most=0.001))
        half = HandoverScene(unseen=unseen, handed_over=0.5)
        for words, new, running in (("less", 0.05, 0.01), ("more", 0.01, 0.05)):
            equal = replace(half, new=new, running=running)
            found = [_is_harm(one) for one in simulate(equal, few)]
            case = f"{under_way}, equal, running conversations fail {words}"
            yield share_cell("handover", case, REQUESTS, found, Limits(most=0.05))
        harmful = replace(half, new=0.01, running=0.05, harm=2.0)
        found = [_is_harm(one) for one in simulate(harmful, few)]
        case = f"{under_way}, twice as bad"
        yield share_cell("handover", case, REQUESTS, found, Limits(least=0.75))
    moved = count_moved(CONVERSATIONS, (0, 100, 500))
    ends = [True] * moved + [False] * (CONVERSATIONS - moved)
    yield share_cell("handover", "leaves the incumbent at a step", 0, ends, Limits(most=0.0))


def _is_harm(blocks: list[ObservationBlock]) -> bool:
    """Tells whether errors of first requests alone end a rollout at alpha .05."""
    path = counts_path(
        [block.counts[Guardrail.ERRORS] for block in blocks],
        shares=[block.weight_bps / 10_000 for block in blocks],
    )
    return bool(path.max() >= math.log(20.0))


CELL_TABLES: Final[Mapping[str, Callable[[int, int], Iterator[BenchmarkCell]]]] = {
    "handover": handovers,
}
