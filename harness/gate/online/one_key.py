"""No single client key can end or save a rollout by what its callers do (statistics.md §2.18).

Callers decide about leaving and feedback, and one client can send any number of caller names. A
client that knows a caller's arm also decides about the caller's later requests. So their
evidence of harm must reach the rollback level also without any one client key: the least of the
e-values without a key counts, and the minimum of e-processes is an e-process. If all counted
requests have one key, its callers alone decide, and the explanation says so.

The reverse can't be evidence: the largest of the e-values without a key is no e-process. So a
step holds if the canary would be rolled back without a key that sends much of the traffic.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from harness.gate.arrays import Floats, np
from harness.gate.online.evidence_paths import block_tally
from harness.gate.online.guardrails import FailureTally, Guardrail
from harness.gate.online.observation import ObservationBlock

# The most client keys of `ObservationBlock.by_key`.
MAX_BLOCK_KEYS: Final = 32
# The guardrails that callers decide.
CALLER_DECIDED: Final = (Guardrail.LEAVING, Guardrail.FEEDBACK, Guardrail.CALLER_ERRORS)
# The most keys whose removal is tried. Keys with more bad exposures of the canary come first.
MAX_KEYS_TRIED: Final = 32
# A key with this part of a guardrail's exposures counts as the only key.
SOLE_PART: Final = 0.99
# A key may save a canary if it has this part of a guardrail's exposures, or of the control's
# bad exposures.
SAVING_PART: Final = 0.10


def without_key(
    block: ObservationBlock,
    key: str,
    guardrail: Guardrail,
) -> ObservationBlock:
    """Returns the block without a client key's exposures of a guardrail."""
    counts = _subtract_key(block.counts, block.by_key, key, guardrail)
    new = block.never_seen
    if new is not None and new.counts is not None:
        by_key = block.by_key if new.by_key is None else new.by_key
        new = replace(new, counts=_subtract_key(new.counts, by_key, key, guardrail))
    return replace(block, counts=counts, never_seen=new)


def _subtract_key(
    counts: Mapping[Guardrail, FailureTally],
    by_key: Mapping[str, Mapping[Guardrail, FailureTally]],
    key: str,
    guardrail: Guardrail,
) -> Mapping[Guardrail, FailureTally]:
    tally = counts.get(guardrail)
    own = by_key.get(key, {}).get(guardrail)
    if tally is None or own is None:
        return counts
    canary = max(0, tally.canary - own.canary)
    control = max(0, tally.units - tally.canary - own.units + own.canary)
    bad_canary = min(canary, max(0, tally.canary_failures - own.canary_failures))
    bad_control = tally.failures - tally.canary_failures
    bad_control -= own.failures - own.canary_failures
    bad_control = min(control, max(0, bad_control))
    # The tally keeps its kind: the missing outcomes among the failures are read later.
    left = replace(
        tally,
        units=canary + control,
        canary=canary,
        failures=bad_canary + bad_control,
        canary_failures=bad_canary,
    )
    return {**counts, guardrail: left}


def sum_by_key(
    blocks: Sequence[ObservationBlock], guardrail: Guardrail
) -> dict[str, FailureTally]:
    """Adds up a guardrail's counts by client key, as far as the blocks record keys."""
    sums: dict[str, Counter[str]] = {}
    for block in blocks:
        for key, tallies in block.by_key.items():
            if (tally := tallies.get(guardrail)) is not None:
                sums_of_key = sums.setdefault(key, Counter())
                sums_of_key["units"] += tally.units
                sums_of_key["canary"] += tally.canary
                sums_of_key["failures"] += tally.failures
                sums_of_key["canary_failures"] += tally.canary_failures
    return {
        key: FailureTally(n["units"], n["canary"], n["failures"], n["canary_failures"])
        for key, n in sums.items()
    }


def sole_key(blocks: Sequence[ObservationBlock], guardrail: Guardrail) -> str:
    """Returns the client key of all exposures of a guardrail, or of nearly all (`SOLE_PART`);
    empty if there are several.
    """
    exposures = sum(tally.units for block in blocks if (tally := block_tally(block, guardrail)))
    sums = sum_by_key(blocks, guardrail)
    return next(
        (
            key
            for key, tally in sums.items()
            if exposures and tally.units >= SOLE_PART * exposures
        ),
        "",
    )


PathOf = Callable[[Sequence[ObservationBlock]], Floats]


def least_path(
    blocks: Sequence[ObservationBlock],
    guardrail: Guardrail,
    path: Floats,
    path_of: PathOf,
) -> Floats:
    """Returns the least log e of a guardrail after each block, without any one client key.

    Args:
        path: with all keys.
        path_of: computes the guardrail's path of changed blocks.
    """
    sole = sole_key(blocks, guardrail)
    sums = sum_by_key(blocks, guardrail)
    harming = [key for key, tally in sums.items() if tally.canary_failures and key != sole]
    harming.sort(key=lambda key: (-sums[key].canary_failures, key))
    for key in harming[:MAX_KEYS_TRIED]:
        path = np.minimum(
            path,
            path_of([without_key(block, key, guardrail) for block in blocks]),
        )
    return path


def saving_keys(blocks: Sequence[ObservationBlock], guardrail: Guardrail) -> list[str]:
    """Returns the client keys that could hide harm of a guardrail: see `SAVING_PART`."""
    tallies = [tally for block in blocks if (tally := block_tally(block, guardrail))]
    exposures = sum(tally.units for tally in tallies)
    bad = sum(tally.failures - tally.canary_failures for tally in tallies)
    sole = sole_key(blocks, guardrail)
    return sorted(
        key
        for key, tally in sum_by_key(blocks, guardrail).items()
        if key != sole
        and (
            tally.units >= SAVING_PART * exposures
            or tally.failures - tally.canary_failures >= SAVING_PART * max(1, bad)
        )
    )


def count_keys(
    counts: Mapping[str, Mapping[Guardrail, FailureTally]], most: int
) -> dict[str, dict[Guardrail, FailureTally]]:
    """Keeps the keys that matter most: half with the most bad canary exposures, half with the
    most exposures. Drops keys with one good exposure, unless a key is the only one.
    """
    if len(counts) > 1:
        counts = {key: tallies for key, tallies in counts.items() if _matters(tallies)}

    def place(key: str, name: str) -> tuple[int, str]:
        return -sum(getattr(tally, name) for tally in counts[key].values()), key

    half = most // 2
    harmful = sorted(counts, key=lambda key: place(key, "canary_failures"))[:half]
    rest = sorted(set(counts) - set(harmful), key=lambda key: place(key, "units"))
    kept = {*harmful, *rest[: most - len(harmful)]}
    return {key: dict(counts[key]) for key in sorted(kept)}


def _matters(tallies: Mapping[Guardrail, FailureTally]) -> bool:
    return any(tally.failures or tally.units > 1 for tally in tallies.values())
