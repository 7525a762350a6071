"""Evidence paths: each guardrail's evidence after every block, and the combined evidence
(statistics.md §2.5), with the weights of the evidence (§2.11).

Each function computes all blocks at once, because Swapproof evaluates a rollout of a million
requests every few seconds.

During the warm-up, the candidate's times do not count: a newly started model answers slowly at
first (statistics.md §2.11). The warm-up excludes whole blocks, by count and admission time, so
that both arms lose the same period. Answers never decide which blocks count. Errors and all
other guardrails count from the first exposure on.

A path does not depend on alpha: `harness.gate.online.rollout_evidence` compares it with the
rollback level.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from itertools import accumulate
from operator import or_
from typing import Final, TypeVar

from harness.frame.errors import InputError
from harness.frame.formatting import add_seconds
from harness.gate.arrays import Floats, geometric_grid, log_mean_rows, np
from harness.gate.online.capped_sums import SUM_LEAST
from harness.gate.online.fisher import log_factors
from harness.gate.online.guardrails import (
    NO_SPLIT,
    FailureTally,
    Guardrail,
    GuardrailKind,
    guardrail_kind,
)
from harness.gate.online.observation import NeverSeen, ObservationBlock
from harness.gate.online.outcome import BY_OUTCOME
from harness.gate.online.usual_rate import limit_usual_rate, usual_bets
from harness.gate.online.worker_guard import HARM_GRID, arm_log_factor
from harness.gate.policy import CanaryPolicy

# Weights of the evidence, summing to 1 (statistics.md §2.11).
ERRORS_WEIGHT: Final = 0.7
LEAVING_WEIGHT: Final = 0.2
OTHERS_WEIGHT: Final = 0.1  # of all other guardrails together
RANK_STAKES: Final = geometric_grid(0.05, 0.95, 8)
SUM_STAKES: Final = tuple(stake / SUM_LEAST for stake in geometric_grid(0.05, 0.9, 8))
# Weights of SUM_STAKES for bets on a capped mean, proportional to their cubes: a cap of 20
# means makes every stake small, so the large stakes find harm sooner.
_CUBES: Final = tuple(stake**3 for stake in SUM_STAKES)
CAPPED_WEIGHTS: Final = tuple(cube / math.fsum(_CUBES) for cube in _CUBES)
# Weights of the ratios of HARM_GRID, summing to 1.
ODDS_WEIGHTS: Final = (0.003, 0.01, 0.305, 0.165, 0.11, 0.115, 0.25, 0.032, 0.01)
# The test uses the planned share for a block whose smaller arm expects fewer exposures than
# this.
FEWEST_EXPOSURES: Final = 1.0
_NO_FAILURES: Final = FailureTally(0, 0, 0, 0)
# Minimum number of exposures in a pool of returning callers.
_FEWEST_POOLED: Final = 20


def odds_grid(rho: float) -> tuple[float, ...]:
    """Lists the null's odds ratio, then the harmful ratios. Raises InputError unless rho is
    above 0 and finite.
    """
    if not 0.0 < rho < math.inf or math.isinf(rho * HARM_GRID[-1]):
        raise InputError(f"rho is an odds ratio above 0, not {rho:g}")
    return (rho, *(rho * harm for harm in HARM_GRID))


def distance_to_trip(log_e: float, limit: float) -> float:
    """Returns how near the evidence is to a rollback: 0 for no evidence, 1 for the rollback."""
    return min(1.0, max(0.0, log_e / limit))


def guardrail_weights(guardrails: Collection[Guardrail]) -> dict[Guardrail, float]:
    """Gives each guardrail its part of the evidence; the parts sum to 1.

    Errors get ERRORS_WEIGHT, leaving LEAVING_WEIGHT, and the others equal shares of
    OTHERS_WEIGHT. Errors also get the part of guardrails that are off. First requests and
    windows of callers are the two streams of errors: each gets half. A guardrail without
    observations keeps its weight and an e-value of 1.
    """
    others = [name for name in guardrails if name not in _WEIGHTED]
    leaves = Guardrail.LEAVING in guardrails
    errors = ERRORS_WEIGHT + (0.0 if others else OTHERS_WEIGHT)
    errors += 0.0 if leaves else LEAVING_WEIGHT
    streams = [name for name in ERROR_STREAMS if name in guardrails]
    own = {name: errors / len(streams) for name in streams}
    own[Guardrail.LEAVING] = LEAVING_WEIGHT
    return {
        name: own[name] if name in own else OTHERS_WEIGHT / len(others) for name in guardrails
    }


# The streams of evidence of errors: first requests, and windows of callers.
ERROR_STREAMS: Final = (Guardrail.ERRORS, Guardrail.CALLER_ERRORS)
_WEIGHTED: Final = frozenset({*ERROR_STREAMS, Guardrail.LEAVING})


def block_tally(block: ObservationBlock, guardrail: Guardrail) -> FailureTally | None:
    """Returns the counts of a guardrail of failures in a block.

    Errors exclude the exposures whose outcome is unknown. Returns None for a block without the
    guardrail.
    """
    if guardrail is Guardrail.ERRORS:
        return error_tally(block)
    return block.counts.get(guardrail)


def error_tally(block: ObservationBlock) -> FailureTally:
    """Returns a block's errors among the exposures whose outcome is known."""
    unknown = block.unknown_exposures
    return FailureTally(
        block.units - unknown.failures,
        block.canary_units - unknown.canary,
        block.failures,
        block.canary_failures,
    )


def guardrail_path(
    blocks: Sequence[ObservationBlock],
    guardrail: Guardrail,
    policy: CanaryPolicy,
) -> Floats:
    """Computes log e of one guardrail after each block."""
    kind = guardrail_kind(guardrail)
    if kind is GuardrailKind.RANKS:
        ranks = ranks_path([block.ranks.get(guardrail, ()) for block in blocks])
        return _average_with_sums(ranks, blocks, guardrail)
    if kind is GuardrailKind.SUMS:
        return sums_path([block.bets.get(guardrail, ()) for block in blocks])
    tallies = [block_tally(block, guardrail) for block in blocks]
    shares = [block.share for block in blocks]
    unplanned = _without_planned_share(blocks, guardrail)
    tolerated = policy.tolerated[guardrail]
    if guardrail in ERROR_STREAMS:
        rates = [block.usual_rates.get(guardrail, 0.0) for block in blocks]
        return errors_path(tallies, shares, unplanned, rates, tolerated)
    tallies = pool_returned(tallies, shares, unplanned)
    return counts_path(tallies, tolerated, shares=shares)


def _average_with_sums(
    ranks: Floats,
    blocks: Sequence[ObservationBlock],
    guardrail: Guardrail,
) -> Floats:
    """Averages the evidence of ranks and of bets on a capped mean, if the rollout has a cap."""
    if not any(guardrail in block.capped for block in blocks):
        return ranks
    bets = [block.bets.get(guardrail, ()) for block in blocks]
    return log_mean_rows([ranks, sums_path(bets, CAPPED_WEIGHTS)])


def errors_path(
    tallies: Sequence[FailureTally | None],
    shares: Sequence[float],
    unplanned: Sequence[bool],
    rates: Sequence[float],
    tolerated: float,
) -> Floats:
    """Computes log e of one stream of errors after each block.

    Evidence against the incumbent at the same time and against its usual rate must agree, so
    the lesser counts (intersection-union, Berger 1982).

    Args:
        unplanned: see `pool_returned`.
        rates: the usual rate for each block; 0 if unknown, and then the first evidence counts
            alone.
    """
    pooled = skip_incidents(pool_returned(tallies, shares, unplanned), shares)
    path = counts_path(pooled, tolerated, shares=shares)
    if not any(rates):
        return path
    return np.minimum(path, usual_path(skip_incidents(tallies, shares), rates, tolerated))


def skip_incidents(
    tallies: Sequence[FailureTally | None], shares: Sequence[float]
) -> list[FailureTally | None]:
    """Leaves out the blocks with so many failures that more than half of the incumbent's
    exposures failed, even if every canary exposure failed.

    Such a block proves nothing about the candidate. It would hide later harm in the comparison
    at the same time, and in an incident of both arms it would be evidence against the usual
    rate for the rest of the rollout. The block's sizes and failures decide, and not the arms of
    the failures, so the evidence stays valid. The evidence against the usual rate stays valid
    too: more failures of the canary only raise the factor that is left out. A small block with
    a planned share has no sizes of arms, so it stays.
    """
    return [
        None
        if tally is not None
        and tally.units * min(share, 1.0 - share) >= FEWEST_EXPOSURES
        and 2 * (tally.failures - tally.canary) > tally.units - tally.canary
        else tally
        for tally, share in zip(tallies, shares, strict=True)
    ]


def usual_path(
    tallies: Sequence[FailureTally | None],
    rates: Sequence[float],
    tolerated: float = 1.0,
) -> Floats:
    """Computes log e of harm against the usual rate after each block (statistics.md §2.20).

    Args:
        rates: the usual rate for each block; a block without one has the factor 1.

    The incumbent's failures in earlier blocks may lower it (`limit_usual_rate`).
    """
    factors = np.zeros((len(tallies), len(HARM_GRID)))
    exposures = 0
    failures = 0
    for place, (tally, rate) in enumerate(zip(tallies, rates, strict=True)):
        if tally is None or not rate:
            continue
        bets = usual_bets(limit_usual_rate(rate, exposures, failures), tolerated, HARM_GRID)
        fine = tally.canary - tally.canary_failures
        factors[place] = [tally.canary_failures * bet.failed + fine * bet.fine for bet in bets]
        exposures += tally.units - tally.canary
        failures += tally.failures - tally.canary_failures
    return _mean_of_products(factors)


def _without_planned_share(
    blocks: Sequence[ObservationBlock], guardrail: Guardrail
) -> list[bool]:
    """Tells for each block whether the arms' exposures may not have the planned shares.

    The guardrails leave out limited requests and other requests of unknown outcome. If one arm
    has more of them, the planned share would blame the other arm. So the first unknown outcome
    ends the use of the planned share for the rest of the rollout.
    """
    if guardrail in BY_OUTCOME:
        return [True] * len(blocks)
    unknown = accumulate((_has_unknown(block, guardrail) for block in blocks), or_)
    return [out or not block.is_never_seen for out, block in zip(unknown, blocks, strict=True)]


def _has_unknown(block: ObservationBlock, guardrail: Guardrail) -> bool:
    """Tells whether a guardrail leaves exposures of a block out, because of their outcomes."""
    if guardrail is not Guardrail.CALLER_ERRORS:
        return block.unknown_exposures != NO_SPLIT
    tally = block.counts.get(guardrail)
    return tally is not None and tally.units != block.counted.failures


def pool_returned(
    tallies: Sequence[FailureTally | None],
    shares: Sequence[float],
    unplanned: Sequence[bool],
) -> list[FailureTally | None]:
    """Merges small blocks without planned shares until a pool allows a comparison of the arms.
    Returns None for a block that waits for later blocks.

    Args:
        unplanned: whether the block's arms may not have the planned shares.

    An arm may influence which callers return, and some guardrails leave exposures out by their
    outcome (`outcome.BY_OUTCOME`). Only counts and shares decide how many blocks form a pool,
    never an arm's answers.
    """
    pooled_tallies: list[FailureTally | None] = []
    pool = _NO_FAILURES
    pooled_share = 0.0
    for tally, share, is_unplanned in zip(tallies, shares, unplanned, strict=True):
        smaller = min(share, 1.0 - share)
        if (
            tally is None
            or not is_unplanned
            or not 0.0 < tally.units * smaller < FEWEST_EXPOSURES
        ):
            pooled_tallies.append(tally)
            continue
        if share != pooled_share:
            pool = _NO_FAILURES
            pooled_share = share
        pool = FailureTally(
            pool.units + tally.units,
            pool.canary + tally.canary,
            pool.failures + tally.failures,
            pool.canary_failures + tally.canary_failures,
        )
        if pool.units < _FEWEST_POOLED or pool.units * smaller < FEWEST_EXPOSURES:
            pooled_tallies.append(None)
            continue
        pooled_tallies.append(pool)
        pool = _NO_FAILURES
    return pooled_tallies


def combined_path(paths: Mapping[Guardrail, Floats]) -> Floats:
    """Computes the log of the weighted mean of the guardrails' e-values. A product would count
    dependent data twice.
    """
    weight = guardrail_weights(paths)
    rows = [path + math.log(weight[guardrail]) for guardrail, path in paths.items()]
    # The mean of n terms times n is their sum.
    return log_mean_rows(rows) + math.log(len(rows))


def counts_path(
    tallies: Sequence[FailureTally | None],
    tolerated: float = 1.0,
    *,
    shares: Sequence[float] = (),
    weights: Sequence[float] = ODDS_WEIGHTS,
) -> Floats:
    """Computes log e of harm after each block; None for a block without this guardrail.

    Args:
        shares: planned share of keys in the canary, for each block; 0 or an empty sequence if
            arms were not assigned at random.
        weights: of the ratios of HARM_GRID; empty for equal weights.
    """
    odds = odds_grid(tolerated)
    nothing = (0.0,) * len(HARM_GRID)
    if not any(tallies):
        return _uncounted_path(len(tallies))
    factors = [
        nothing
        if tally is None
        else planned_factors(tally.failures, tally.canary_failures, share, tolerated)
        if 0.0 < tally.units * min(share, 1.0 - share) < FEWEST_EXPOSURES
        else log_factors(
            tally.units,
            tally.canary,
            tally.failures,
            tally.canary_failures,
            odds=odds,
        )
        for tally, share in zip(tallies, shares or [0.0] * len(tallies), strict=True)
    ]
    logs = np.array(factors, dtype=np.float64).reshape(-1, len(HARM_GRID))
    return _mean_of_products(logs, weights)


# Cached, because most guardrails have no observations; read-only, because callers share it.
@lru_cache(maxsize=1_024)
def _uncounted_path(blocks: int) -> Floats:
    path = _mean_of_products(np.zeros((blocks, len(HARM_GRID))))
    path.setflags(write=False)
    return path


@lru_cache(maxsize=1_024)
def _unranked_path(blocks: int) -> Floats:
    path = _mean(np.zeros((blocks, len(RANK_STAKES))))
    path.setflags(write=False)
    return path


@lru_cache(maxsize=65_536)
def planned_factors(
    failures: int,
    canary_failures: int,
    share: float,
    tolerated: float,
) -> tuple[float, ...]:
    """Computes a small block's log factors: each failing exposure is in the canary with the
    planned share as probability, independent of the other exposures (statistics.md §2.11).
    """
    null = max(1.0, tolerated)  # an odds ratio bounds a rate ratio only above 1
    return tuple(
        canary_failures * arm_log_factor(null * harm, null, share, canary=True)
        + (failures - canary_failures) * arm_log_factor(null * harm, null, share, canary=False)
        for harm in HARM_GRID
    )


def ranks_path(ranks: Sequence[Sequence[float]]) -> Floats:
    """Computes log e of harm after each block's ranks."""
    if not any(map(len, ranks)):
        return _unranked_path(len(ranks))
    leans = 2.0 * np.array([u for rank in ranks for u in rank], dtype=np.float64) - 1.0
    # A stored rank that is NaN counts as the worst rank, so that it cannot hide other ranks.
    leans = np.clip(np.where(np.isnan(leans), 1.0, leans), -1.0, 1.0)
    factors = np.log1p(leans[:, None] * np.array(RANK_STAKES))
    ends = list(accumulate(len(rank) for rank in ranks))
    start = np.zeros((1, len(RANK_STAKES)))
    after_each = np.cumsum(np.concatenate([start, factors]), axis=0)
    return _mean(after_each[ends])


def sums_path(
    bets: Sequence[Sequence[float]],
    weights: Sequence[float] = (),
) -> Floats:
    """Computes log e of harm after each block's bets on a mean.

    Args:
        bets: values y in [-SUM_LEAST, 1], whose mean is at most 0 if the canary is within its
            margin.
        weights: of SUM_STAKES; empty for equal weights.

    The evidence is the weighted mean over SUM_STAKES of the products of 1 + stake · y
    (Waudby-Smith and Ramdas 2024). A stored value that is NaN counts as 0, so that it changes
    nothing.
    """
    values = np.array([y for block in bets for y in block], dtype=np.float64)
    values = np.clip(np.where(np.isnan(values), 0.0, values), -SUM_LEAST, 1.0)
    factors = np.log1p(values[:, None] * np.array(SUM_STAKES))
    ends = list(accumulate(len(block) for block in bets))
    start = np.zeros((1, len(SUM_STAKES)))
    return _mean(np.cumsum(np.concatenate([start, factors]), axis=0)[ends], weights)


def _mean_of_products(factors: Floats, weights: Sequence[float] = ODDS_WEIGHTS) -> Floats:
    return _mean(np.cumsum(factors, axis=0), weights)


def _mean(products: Floats, weights: Sequence[float] = ()) -> Floats:
    """Returns the log of the weighted mean.

    Args:
        weights: summing to 1; empty for equal weights.
    """
    rows = list(products.T)
    if weights:
        number = len(weights)
        rows = [row + math.log(number * w) for row, w in zip(rows, weights, strict=True)]
    return log_mean_rows(rows) + 0.0


TIMES: Final = frozenset(
    {
        Guardrail.LATENCY,
        Guardrail.TIME_TO_FIRST_TOKEN,
        Guardrail.INTER_TOKEN_LATENCY,
    }
)


def skip_warm_up(
    blocks: Iterable[ObservationBlock], policy: CanaryPolicy
) -> list[ObservationBlock]:
    """Returns the blocks in the order of number; blocks of the warm-up lose their times.

    Args:
        blocks: of the whole rollout.

    A router's warm-up restarts at each share of the steps. All routers warm up until the
    candidate has `cold_exposures`. The first ranks after the warm-up are removed too, because
    their values may be ranked against values of the warm-up.
    """
    kept_blocks: list[ObservationBlock] = []
    ends: dict[_Place, datetime] = {}
    # By place, which ranks may still include values of the warm-up. False: the ranks of all
    # exposures. True: the ranks of never-seen keys.
    tainted: dict[_Place, set[bool]] = {}
    seen_exposures = 0
    for block in sorted(blocks, key=lambda block: block.number):
        if block.late_of:
            # Late outcomes have no times, and would look like a block of the warm-up.
            kept_blocks.append(block)
            continue
        place = (block.worker, block.weight_bps)
        never_seen = block.never_seen
        if policy.warm_up_s and block.canary_units and place[1] <= policy.steps[-1].weight_bps:
            ends.setdefault(place, add_seconds(block.closed_at, policy.warm_up_s))
        is_warm_up = seen_exposures < policy.cold_exposures or block.opened_at < ends.get(
            place, block.opened_at
        )
        seen_exposures += block.canary_units
        if is_warm_up:
            tainted[place] = {False, True}
        tainted_ranks = tainted.get(place, set())
        changed = block
        if never_seen is not None and True in tainted_ranks and _has_times(never_seen):
            changed = replace(
                changed,
                never_seen=replace(
                    never_seen,
                    ranks=None if never_seen.ranks is None else _drop_times(never_seen.ranks),
                    bets=None if never_seen.bets is None else _drop_times(never_seen.bets),
                ),
            )
            tainted_ranks -= set() if is_warm_up else {True}
        if False in tainted_ranks and _has_times(block):
            changed = replace(
                changed,
                ranks=_drop_times(block.ranks),
                bets=_drop_times(block.bets),
                levels=_drop_times(block.levels),
                capped={
                    name: totals.emptied if name in TIMES else totals
                    for name, totals in block.capped.items()
                },
            )
            tainted_ranks -= set() if is_warm_up else {False}
        kept_blocks.append(changed)
    return kept_blocks


_Place = tuple[str, int]  # (router, share of traffic in basis points)
_Values = TypeVar("_Values")


def _has_times(measured: ObservationBlock | NeverSeen) -> bool:
    return not TIMES.isdisjoint((*(measured.ranks or ()), *(measured.bets or ())))


def _drop_times(by_guardrail: Mapping[Guardrail, _Values]) -> dict[Guardrail, _Values]:
    return {name: values for name, values in by_guardrail.items() if name not in TIMES}
