"""Forms the next block of a rollout from its exposures, by admission and time alone.

A block begins with the earliest exposure that is in no block. It is full with
`ExposureRule.block_size` exposures at one share in one period. It also ends MAX_BLOCK_AGE_S
after its first exposure, and when a next step or a next period begins. Source: statistics.md
§2.1.
"""

from typing import Final

from harness.frame.formatting import add_seconds
from harness.gate.online.exposures import Exposure
from harness.gate.online.guardrails import ExposureRule
from harness.gate.online.reading.caller_order import (
    CallerOrder,
    FormedBlock,
    part_of,
    position_of,
)
from harness.gate.online.reading.seals import Position

# A block of a quiet route closes before it is full, so that its data do not wait for hours.
MAX_BLOCK_AGE_S: Final = 60.0


def form_block(order: CallerOrder, rule: ExposureRule, number: int) -> FormedBlock | None:
    """Forms the next block from the exposures that have arrived; None without an exposure.

    Exposures may still be missing: see `FormedBlock.ends_at`.
    """
    waiting = order.iter_waiting()
    first = next(waiting, None)
    if first is None:
        return None
    end = _find_time_end(order, first)
    step = order.find_step(position_of(first))
    exposures = [first]
    for exposure in waiting:
        if len(exposures) >= rule.block_size or position_of(exposure) >= end:
            break
        if part_of(exposure) == part_of(first):
            exposures.append(exposure)
    if len(exposures) >= rule.block_size:
        last = position_of(exposures[-1])
        end = last._replace(ticket=last.ticket + 1)
    return FormedBlock(
        number,
        tuple(exposures),
        end.admitted_at,
        end,
        ends_step=end == step,
        fewest_bps=order.find_fewest_bps(first.weight_bps, end),
    )


def _find_time_end(order: CallerOrder, first: Exposure) -> Position:
    """Finds the position before which the block ends if it does not become full."""
    position = position_of(first)
    aged = Position(add_seconds(first.admitted_at, MAX_BLOCK_AGE_S), "", 0)
    changes = (order.find_period_change(position), order.find_step(position))
    return min([aged, *(change for change in changes if change is not None)])
