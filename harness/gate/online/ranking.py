"""Ranking places a block's canary values among the incumbent's values (statistics.md §2.4).

`rank_block` turns one guardrail's values (latency, tokens, cost) into one rank in (0, 1) for
each scored unit; ranks are uniform if the arms are alike. The block's stored name seeds the
draws. If the canary has most of the traffic, as in a bake, the roles are exchanged: the
function ranks control values among canary values and keeps 1 - u, which is also uniform, and
high for high canary values.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, NamedTuple

from harness.frame.errors import InputError
from harness.gate.online.guardrails import ArmLevels, Guardrail

MIN_CONTROLS: Final = 9
MAX_CONTROLS: Final = 99


class MeasuredUnit(NamedTuple):
    """Holds one unit's arm and value. value None: the unit failed, or never ended, and ranks as
    worse than any value.

    observed: the measured value, if `value` is adjusted for the comparison (`prompt_cache`).
    """

    canary: bool
    value: float | None
    observed: float | None = None


@dataclass(frozen=True, slots=True)
class BlockRanks:
    # In (0, 1), for each scored unit of the smaller arm; high for high canary values.
    u: tuple[float, ...]
    level: ArmLevels | None


def rank_among(value: float, controls: Sequence[float], tie_breaker: float) -> float:
    """Ranks the value among the controls, in [0, 1]: `(less + U·(equal + 1))/(K + 1)`.

    controls: from the same time window, each one used once. tie_breaker: U, uniform on (0, 1).
    The rank is uniform if canary and control are alike.
    """
    ordered = sorted(controls)
    below = bisect_left(ordered, value)
    equal = bisect_right(ordered, value) - below
    return (below + tie_breaker * (equal + 1)) / (len(ordered) + 1)


def scored_count(fewer: int, more: int) -> int:
    if not fewer or not more:
        return 0
    return fewer // math.ceil(MIN_CONTROLS * fewer / more)


def rank_block(
    values: Sequence[MeasuredUnit],
    *,
    guardrail: Guardrail,
    tolerated: float,
    block: tuple[str, str, int],
) -> BlockRanks:
    """Ranks one guardrail's values in one complete block.

    values: of all units to which the guardrail applies, in the order of admission. tolerated: a
    ratio that divides canary values. block: rollout, worker and sequence. They are stored and
    seed the draw of canary values and controls, so that outcomes cannot influence the pairing.
    Because arms are assigned at random, the ranks of equal arms are independent and uniform at
    any time of day. Raises InputError for a value that is negative or not finite.
    """
    for value in values:
        if value.value is not None and not 0.0 <= value.value < math.inf:
            raise InputError(
                f"{guardrail.value} of a unit is {value.value}: it must be finite, >= 0"
            )
    # Only `random()` is the same in every version of Python.
    draw = Random(":".join((*map(str, block), guardrail.value)))  # noqa: S311
    canaries = _drawn([_worst(v) / tolerated for c, v, _ in values if c], draw)
    controls = _drawn([_worst(v) for c, v, _ in values if not c], draw)
    # By the arms' sizes, which are fixed before any answer.
    exchanged = len(canaries) > len(controls)
    fewer, more = (controls, canaries) if exchanged else (canaries, controls)
    wanted = scored_count(len(fewer), len(more))
    if not wanted:
        return BlockRanks((), None)
    size = min(MAX_CONTROLS, len(more) // wanted)
    ranks = (
        rank_among(value, more[index * size : (index + 1) * size], draw.random())
        for index, value in enumerate(fewer[:wanted])
    )
    return BlockRanks(
        tuple(1.0 - u if exchanged else u for u in ranks),
        mean_levels(
            (unit.canary, unit.value if unit.observed is None else unit.observed)
            for unit in values
        ),
    )


def _worst(value: float | None) -> float:
    return math.inf if value is None else value


def _drawn(values: list[float], draw: Random) -> list[float]:
    keys = [draw.random() for _ in values]
    return [values[index] for index in sorted(range(len(values)), key=keys.__getitem__)]


def mean_levels(values: Iterable[tuple[bool, float | None]]) -> ArmLevels | None:
    logs: dict[bool, list[float]] = {True: [], False: []}
    for canary, value in values:
        if value and value > 0.0:
            logs[canary].append(math.log(value))
    if not (logs[True] and logs[False]):
        return None
    means = {arm: math.exp(math.fsum(log) / len(log)) for arm, log in logs.items()}
    return ArmLevels(means[True], means[False])
