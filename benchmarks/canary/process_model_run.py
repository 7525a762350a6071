"""Compares the process models of a router by a canary's times:
`python -m benchmarks.canary.process_model_run [--rollouts 60] [--table rollback] [--seed 5]`.

The tables: callers until a rollback, minutes until each step, and what `kill -9` of one worker
loses. The figures are the same on every machine. ADR 7 has the decision.
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.canary.process_models import (
    HARMS,
    PARENT,
    Harm,
    ProcessModel,
    Scene,
    lose_worker,
    own_models,
    step_times,
    until_abort_s,
    until_rollback_s,
)
from benchmarks.print_rows import print_rows
from harness.frame.formatting import format_bps

Times = NDArray[np.float64]
WORKERS: Final = (4, 8)
SHARES_BPS: Final = (100, 2_500)
CALLERS_PER_S: Final = 50.0
OTHER_RATES_PER_S: Final = (5.0, 500.0)
STEP_RATE_PER_S: Final = 20.0


@dataclass(frozen=True)
class RollbackRow:
    """The callers who got the candidate until its rollback: the median time multiplied by the
    candidate's callers a second.

    control: until the control plane rolls it back. either: until that, or a worker's guard.
    ratio: of the medians to those of one ledger, with the bootstrap's 5 and 95 %.
    """

    share: str
    harm: str
    callers_per_s: float
    workers: int
    model: str
    rollouts: int
    control_s: float
    control: float
    p95: float
    ratio: float
    low: float
    high: float
    either: float
    either_ratio: float


def rollback_rows(
    cell: tuple[int, Harm, float], rollouts: int, seed: int
) -> Iterator[RollbackRow]:
    """Measures one cell: all models with the same callers."""
    share_bps, harm, per_s = cell
    scene = Scene(per_s, share_bps, harm)
    number = math.ceil(harm.part * rollouts)
    seeds = [(seed, share_bps, HARMS.index(harm), index) for index in range(number)]
    parent = np.array([until_rollback_s(PARENT, scene, one) for one in seeds])
    for workers in WORKERS:
        every = {replace(PARENT, workers=workers): parent}
        for model in own_models(workers):
            every[model] = np.array([until_rollback_s(model, scene, one) for one in seeds])
        # A guard that stops the canary later than every model changes nothing.
        latest = np.max([*every.values()], axis=0)
        guarded = np.array(
            [
                until_abort_s(workers, scene, one, by_s)
                for one, by_s in zip(seeds, latest, strict=True)
            ]
        )
        parent_either = np.minimum(parent, guarded)
        for model, found in every.items():
            either = np.minimum(found, guarded)
            yield _rollback_row(scene, model, found, parent, either, parent_either)


def _rollback_row(
    scene: Scene,
    model: ProcessModel,
    found: Times,
    parent: Times,
    either: Times,
    parent_either: Times,
) -> RollbackRow:
    low, high = bootstrap_ratio(found, parent)
    exposed = scene.per_s * scene.share
    return RollbackRow(
        share=format_bps(scene.share_bps),
        harm=scene.harm.name,
        callers_per_s=scene.per_s,
        workers=model.workers,
        model=model.name,
        rollouts=len(found),
        control_s=_median(found),
        control=_median(found) * exposed,
        p95=_median(found, 0.95) * exposed,
        ratio=_median(found) / _median(parent),
        low=low,
        high=high,
        either=_median(either) * exposed,
        either_ratio=_median(either) / _median(parent_either),
    )


def _median(found: Times, share: float = 0.5) -> float:
    return float(np.quantile(found, share, method="higher"))


def bootstrap_ratio(found: Times, parent: Times) -> tuple[float, float]:
    """Returns the 5th and the 95th bootstrap percentile of the ratio of the medians.

    Draws rollouts in pairs, because both models saw the same callers.
    """
    drawn = np.random.default_rng(1).integers(0, len(found), (400, len(found)))
    over = np.quantile(found[drawn], 0.5, axis=1, method="higher")
    under = np.quantile(parent[drawn], 0.5, axis=1, method="higher")
    low, high = np.nanquantile(over / under, (0.05, 0.95), method="higher")
    return float(low), float(high)


@dataclass(frozen=True)
class StepRow:
    """The minutes until a healthy candidate leaves each step of the default policy."""

    callers_per_s: float
    workers: int
    model: str
    rollouts: int
    step_1_min: float
    step_5_min: float
    step_25_min: float
    ratio_1: float
    low: float
    high: float
    ratio_25: float


def step_rows(per_s: float, rollouts: int, seed: int) -> Iterator[StepRow]:
    """Measures one rate: all models with the same callers. A rollout takes a minute."""
    number = max(1, rollouts // 60)
    parent = np.zeros((1, 3))
    every = [PARENT, *chain.from_iterable(map(own_models, WORKERS))]
    for model in every:
        found = np.array([step_times(model, per_s, (seed, one)) for one in range(number)])
        if model.is_parent:
            parent = found
        minutes = [_median(found[:, step]) / 60.0 for step in range(3)]
        low, high = bootstrap_ratio(found[:, 0], parent[:, 0])
        yield StepRow(
            callers_per_s=per_s,
            workers=model.workers,
            model=model.name,
            rollouts=number,
            step_1_min=minutes[0],
            step_5_min=minutes[1],
            step_25_min=minutes[2],
            ratio_1=_median(found[:, 0]) / _median(parent[:, 0]),
            low=low,
            high=high,
            ratio_25=_median(found[:, 2]) / _median(parent[:, 2]),
        )


@dataclass(frozen=True)
class LossRow:
    """What `kill -9` of one worker loses. callers: first requests that no block counts.
    windows: callers whose window no block counts. seconds: of the worker's own traffic.
    """

    callers_per_s: float
    workers: int
    model: str
    callers: float
    windows: float
    seconds: float


def loss_rows(cell: tuple[int, float], rollouts: int, seed: int) -> Iterator[LossRow]:
    """Measures the loss of a worker that is killed after 15 minutes of traffic, at 1 %."""
    workers, per_s = cell
    number = max(1, rollouts // 20)
    own = ProcessModel(workers, is_parent=False)
    for model in (replace(PARENT, workers=workers), own):
        lost = np.array([lose_worker(model, per_s, (seed, one)) for one in range(number)])
        callers, windows = map(float, lost.mean(axis=0))
        seconds = windows * workers / per_s
        yield LossRow(per_s, workers, model.name, callers, windows, seconds)


Measure = Callable[[Any, int, int], Iterator[object]]
TABLES: Final[Mapping[str, tuple[Measure, Sequence[object]]]] = {
    "rollback": (
        rollback_rows,
        [
            *product(SHARES_BPS, HARMS, (CALLERS_PER_S,)),
            *product(SHARES_BPS[:1], HARMS[1:2], OTHER_RATES_PER_S),
        ],
    ),
    "steps": (step_rows, (STEP_RATE_PER_S,)),
    "loss": (loss_rows, [*product(WORKERS, (STEP_RATE_PER_S,))]),
}


def measured(cell: object, table: str, rollouts: int, seed: int) -> list[object]:
    measure, _ = TABLES[table]
    rows = []
    for row in measure(cell, rollouts, seed):
        print(row, file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rollouts", type=int, default=60, help="per cell")
    options.add_argument("--table", choices=TABLES, action="append", help="default: all")
    options.add_argument("--seed", type=int, default=5)
    chosen = options.parse_args()
    with ProcessPoolExecutor(2) as processes:
        for table in chosen.table or list(TABLES):
            _, cells = TABLES[table]
            measure = partial(measured, table=table, rollouts=chosen.rollouts, seed=chosen.seed)
            print_rows(table, [*chain.from_iterable(processes.map(measure, cells))])


if __name__ == "__main__":
    main()
