"""The warm-up takes the times of a candidate's first units out of the evidence: a model that
was just started answers slowly, which says nothing of how it will serve (statistics.md §2.11).

Blocks are left out whole, so that both arms lose the same moments, and by earlier blocks'
counts alone: no time decides what is counted. Errors and all other guardrails count from the
first unit on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from harness.domain.canary.guardrails import Guardrail
from harness.domain.canary.observation import ObservationBlock

TIMES: Final = frozenset(
    {Guardrail.LATENCY, Guardrail.TIME_TO_FIRST_TOKEN, Guardrail.INTER_TOKEN_LATENCY}
)


def skip_warm_up(blocks: Sequence[ObservationBlock], units: int) -> list[ObservationBlock]:
    """Returns the blocks, those before the candidate's `units`-th unit without their times.

    blocks: of the whole rollout, in the order of number.
    """
    found: list[ObservationBlock] = []
    seen = 0
    for block in blocks:
        found.append(_without_times(block) if seen < units else block)
        seen += block.canary_units
    return found


def _without_times(block: ObservationBlock) -> ObservationBlock:
    new = block.never_seen
    if new is not None and new.ranks is not None:
        new = replace(new, ranks=_no_times(new.ranks))
    if TIMES.isdisjoint(block.ranks) and new == block.never_seen:
        return block
    return replace(
        block,
        never_seen=new,
        ranks=_no_times(block.ranks),
        levels={name: level for name, level in block.levels.items() if name not in TIMES},
    )


def _no_times(
    ranks: Mapping[Guardrail, tuple[float, ...]],
) -> dict[Guardrail, tuple[float, ...]]:
    return {name: ranks[name] for name in ranks if name not in TIMES}
