"""Ranking places a block's canary values among the incumbent's values (statistics.md §2.4).

`rank_block` makes of one guardrail's values (latency, tokens, cost) one rank in (0, 1) for each
scored unit; ranks are uniform when the arms are alike. Chance is seeded by the block's stored
name. Where the canary has most of the traffic, as in a bake, the roles are exchanged: each
scored value of the control is placed among fresh canary values, and 1 - u is kept, which is
uniform just as well, and high where the canary's values are.
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
    """Holds one unit's arm and value. value None: it failed, or never ended, and is worse than
    any value.

    observed: the value as it was, where `value` is what it is compared with
    (`prompt_cache`).
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

    controls: from the same time window, each used once. tie_breaker: U, uniform on (0, 1).
    Uniform when canary and control are alike.
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
    """The ranks of one guardrail in one block that is complete.

    values: of all units that the guardrail applies to, in the order of admission. tolerated: a
    ratio; canary values are divided by it. block: its rollout, worker and sequence, which are
    the seed: they are stored with it, so that who was compared with whom was not chosen by
    outcome. Canary values and their controls are drawn by the seed: since arms were drawn too,
    the ranks are independent and uniform when the arms are alike, whatever the time of day did.
    Raises InputError for values that are not finite, or negative.
    """
    for value in values:
        if value.value is not None and not 0.0 <= value.value < math.inf:
            raise InputError(f"{guardrail.value} of a unit is {value.value}: not an amount")
    # Only `random()` is the same in every version of Python.
    draw = Random(":".join((*map(str, block), guardrail.value)))  # noqa: S311
    canaries = _drawn([_worst(v) / tolerated for c, v, _ in values if c], draw)
    controls = _drawn([_worst(v) for c, v, _ in values if not c], draw)
    # By the arms' sizes, which were fixed before any answer.
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
