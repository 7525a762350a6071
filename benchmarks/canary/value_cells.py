"""The cells of sums and of usual rates, as tables with goals.

Each table uses the simulation of its calibration test in `tests/simulation`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np

from benchmarks.canary.rows import BenchmarkCell, Limits, cell
from harness.frame.formatting import format_percent
from tests.support.canary import raised_sums, uneven_errors
from tests.support.canary.uneven_errors import BURSTS, RATE, SIZE, STEADY, evenly

SUMS_CAP: Final = 2_500
INCIDENT: Final = 12  # blocks
# By the candidate's failure rate: blocks of the simulation, and the goal of the median.
EVEN_HARM: Final = {0.02: (6_000, 1_450), 0.05: (800, 130), 0.2: (200, 15)}


def sums(rollouts: int, seed: int) -> Iterator[BenchmarkCell]:
    """Measures costs and times whose mean few requests raise, at a share of 25 %."""
    number = max(5, rollouts // 8)
    for place, (case, (harm, median)) in enumerate(raised_sums.HARM.items()):
        most = round(1.5 * median)
        seeds = ([seed, place, index] for index in range(number))
        found = [raised_sums.exposures(harm, most, one) for one in seeds]
        yield cell("sums", case, most, found, Limits(median=median))
    for place, (case, equal) in enumerate(raised_sums.TOLERATED.items(), 100):
        seeds = ([seed, place, index] for index in range(number))
        found = [raised_sums.exposures(equal, SUMS_CAP, one) for one in seeds]
        yield cell("sums", f"just tolerated: {case}", SUMS_CAP, found, Limits(most=0.05))


def usual_rates(rollouts: int, seed: int) -> Iterator[BenchmarkCell]:
    """Measures failures in minutes of their own, even harm, and harm after an incident."""
    half = range(max(5, rollouts // 2))
    for share in (0.01, 0.05, 0.25):
        canaries = share * SIZE
        found = [
            canaries * uneven_errors.equal_beside_bursts(share, 1.0, BURSTS, [seed, 0, n])
            for n in half
        ]
        case = f"equal, the incumbent in bursts, at {format_percent(share)}"
        yield cell("time", case, 2_000, found, Limits(most=0.05))
    for rate, (blocks, median) in EVEN_HARM.items():
        found = [_find_even_harm(rate, blocks, [seed, blocks, n]) for n in half]
        case = f"{format_percent(rate)} errors, evenly"
        yield cell("time", case, blocks, found, Limits(median=median))
    found = [
        0.05 * SIZE * uneven_errors.burst_of_candidate(0.05, [seed, 1, n])
        for n in range(rollouts)
    ]
    yield cell("time", "the candidate fails for 35 s", 200, found, Limits(least=0.6))
    for share in (0.01, 0.05):
        found = [uneven_errors.harm_after_incident(share, INCIDENT, [seed, 2, n]) for n in half]
        case = f"5 % errors after an incident of 1,200 callers, at {format_percent(share)}"
        yield cell("time", case, 600, found, Limits(median=150))


def _find_even_harm(rate: float, blocks: int, seed: list[int]) -> float:
    """Counts exposures until errors roll back, at a share of 1 %; inf for never."""
    rng = np.random.default_rng(seed)
    tallies = uneven_errors.simulate(
        0.01, evenly(rate)(rng, blocks), evenly(RATE)(rng, blocks), rng
    )
    return uneven_errors.blocks_to_rollback(tallies, 0.01, STEADY)


VALUE_TABLES: Final[Mapping[str, Callable[[int, int], Iterator[BenchmarkCell]]]] = {
    "sums": sums,
    "time": usual_rates,
}
