"""The cells that expose a wrong rule of the canary, as tables with goals.

Each table uses the simulation of its calibration test in `tests/simulation`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count, product
from typing import Any, Final

import numpy as np

from benchmarks.canary.rows import BenchmarkCell, Limits, cell, share_cell
from harness.frame.formatting import format_bps, format_number, format_percent
from harness.gate.online.evidence_paths import counts_path
from harness.gate.online.fisher import ALARM_LOG_E, worst_log_srm
from harness.gate.online.guardrails import Guardrail
from harness.gate.online.observation import ObservationBlock
from tests.support.canary import late_feedback
from tests.support.canary.audience_traffic import StaffScene, callers_to_pause
from tests.support.canary.audience_traffic import exposures as exposures_with
from tests.support.canary.conversations import LIMIT, Conversations, exposures
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
            found = [_is_harm(one) for one in simulate(equal, max(5, rollouts // 2))]
            case = f"{under_way}, equal, running conversations fail {words}"
            yield share_cell("handover", case, REQUESTS, found, Limits(most=0.05))
        harmful = replace(half, new=0.01, running=0.05, harm=2.0)
        found = [_is_harm(one) for one in simulate(harmful, few)]
        case = f"{under_way}, twice as bad"
        yield share_cell("handover", case, REQUESTS, found, Limits(least=0.75))
    moved = count_moved(CONVERSATIONS, (0, 100, 500))
    ends = [True] * moved + [False] * (CONVERSATIONS - moved)
    yield share_cell("handover", "leaves the incumbent at a step", 0, ends, Limits(most=0.0))


# Exposures until the rollback: the goal of the median for harm at the first turn alone.
FIRST_TURN: Final = {1.0: 3, 0.2: 15, 0.05: 130, 0.02: 1450}
# The same for harm from the third turn on, in callers whose window is known.
THIRD_TURN: Final = {1.0: 4, 0.2: 30, 0.05: 260}
CAPS: Final = {1.0: 30, 0.2: 200, 0.05: 1_500, 0.02: 6_000}
LOOP: Final = Conversations(turns=40, pause_s=0.0)
EQUAL: Final = {
    "equal, 40 requests without a pause": LOOP,
    "equal, in half the time": replace(LOOP, times=0.5),
    "equal, in twice the time": replace(LOOP, times=2.0),
    "equal, callers stop at a failure": replace(LOOP, stops=True),
    "equal, callers stop at a failure, in half the time": replace(LOOP, stops=True, times=0.5),
    "equal, callers retry after a failure": replace(LOOP, retries=True),
    "equal, callers retry, in twice the time": replace(LOOP, retries=True, times=2.0),
    "equal, a step every 10 minutes": Conversations(turns=40, steps_s=600.0),
}
# Blocks that are assigned while a window is open: 12 minutes at a caller a second.
LATE: Final = 7


def later_turns(rollouts: int, seed: int) -> Iterator[BenchmarkCell]:
    """Measures windows: harm at the first turn or from the third on, and equal candidates."""
    cells = count()

    def detect(what: Conversations, most: int, number: int, **how: Any) -> list[float]:
        cell_ = next(cells)
        seeds = ([seed, cell_, index] for index in range(number))
        return [exposures(what, most=most, seed=one, **how) for one in seeds]

    few = max(5, rollouts // 4)
    for rate, median in FIRST_TURN.items():
        what = Conversations(canary=rate, turns=40, share_bps=100, to_turn=1)
        number = few if rate < 0.05 else rollouts
        found = detect(what, CAPS[rate], number, late=LATE)
        case = f"{format_percent(rate)} errors at the first of 40 turns"
        yield cell("turns", case, CAPS[rate], found, Limits(median=median))
    for rate, median in THIRD_TURN.items():
        what = Conversations(canary=rate, from_turn=3, share_bps=100)
        found = detect(what, CAPS[rate], few)
        case = f"{format_percent(rate)} errors from the third of 5 turns on"
        yield cell("turns", case, CAPS[rate], found, Limits(median=median))
        what = replace(what, reaching=0.2)
        most = 6 * CAPS[rate]
        found = detect(what, most, few, counted="reached")
        limits = Limits(median=4 * median)
        yield cell("turns", f"{case}, which a fifth of the callers reach", most, found, limits)
    for (name, what), share_bps in product(EQUAL.items(), (500, 2_500)):
        number = max(5, rollouts // 2)
        found = detect(replace(what, share_bps=share_bps), 1_000, number, late=LATE)
        case = f"{name}, at {format_bps(share_bps)}"
        yield cell("turns", case, 1_000, found, Limits(most=0.05))


def feedback(rollouts: int, seed: int) -> Iterator[BenchmarkCell]:
    """Measures feedback on answers of other lengths, with a median delay of 60 s."""
    most = late_feedback.EXPOSURES
    for words, times, limits in (
        (1 / 2, 1.0, Limits(most=0.05)),
        (1 / 3, 1.0, Limits(most=0.05)),
        (2.0, 2.0, Limits(least=0.95)),
    ):
        seeds = ([seed, round(60 * words), index] for index in range(max(5, rollouts // 2)))
        found = [late_feedback.exposures(words, times, seed=one) for one in seeds]
        case = f"{times:g} × as disliked, {format_number(words, 2)} × as long"
        yield cell("feedback", case, most, found, limits)


# Staff for each other caller, and the most exposures of a rollout.
STAFF: Final = 0.25
AUDIENCE_CAP: Final = 600
FIRST_CALLERS: Final = 400


def audiences(rollouts: int, seed: int) -> Iterator[BenchmarkCell]:
    """Measures a canary whose staff never fails, while 5 % of the other callers fail, and
    pauses by first callers that fail.

    The share of the other callers until the rollback must be as without an audience.
    """
    number = max(5, rollouts // 4)
    found = {}
    goal = Limits(median=160)
    for words, scene, limits in (
        ("no staff, no audience", StaffScene(rule=False), goal),
        ("a fifth is staff, who are first", StaffScene(staff=STAFF), goal),
        ("a fifth is staff, whom the share draws", StaffScene(STAFF, rule=False), Limits()),
    ):
        seeds = ([seed, index] for index in range(number))
        found[words] = [exposures_with(scene, most=AUDIENCE_CAP, seed=one) for one in seeds]
        yield cell("audience", words, AUDIENCE_CAP, found[words], limits)
    plain, first, _ = found.values()
    later = [with_ > 1.1 * without for with_, without in zip(first, plain, strict=True)]
    case = "a tenth more exposures than without an audience"
    yield share_cell("audience", case, AUDIENCE_CAP, later, Limits(most=0.05))
    goals = {0.02: Limits(most=0.005), 0.2: Limits(median=40), 1.0: Limits(median=5)}
    for rate, limits in goals.items():
        seeds = ([seed, round(1_000 * rate), index] for index in range(rollouts))
        paused = [callers_to_pause(rate, 0.02, FIRST_CALLERS, one) for one in seeds]
        case = f"first callers, {format_percent(rate)} fail, usually 2 %"
        yield cell("audience", case, FIRST_CALLERS, paused, limits)


def _is_harm(blocks: list[ObservationBlock]) -> bool:
    """Tells whether errors of first requests alone end a rollout by the default policy."""
    path = counts_path(
        [block.counts[Guardrail.ERRORS] for block in blocks],
        shares=[block.weight_bps / 10_000 for block in blocks],
    )
    return bool(path.max() >= LIMIT)


CELL_TABLES: Final[Mapping[str, Callable[[int, int], Iterator[BenchmarkCell]]]] = {
    "handover": handovers,
    "turns": later_turns,
    "feedback": feedback,
    "audience": audiences,
}
