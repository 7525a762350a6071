"""Simulates canaries that last for days: routes with few exposures a day, and callers who come
back, to several routers that start again (statistics.md §2.12).

`simulate_days` gives a rollout's blocks as routers would report them, with or without a key
ledger; `exposures_to_rollback` lets the product decide on them. `CASES` are the rows of
the table "days" of `benchmarks.canary`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from harness.domain.canary.key_ledger import KeyClaim, KeyHistory, claim_keys, page_of
from harness.domain.canary.observation import NeverSeen, ObservationBlock
from harness.domain.proposals.policy import CanaryPolicy
from harness.gate.online.rollout_evidence import collect_evidence

START: Final = datetime(2026, 3, 1, tzinfo=UTC)
BLOCK: Final = 100
# As a policy has it by default.
CARRIED: Final = CanaryPolicy()

Flags = np.ndarray


@dataclass(frozen=True)
class DailyTraffic:
    """Callers of a route: some come every day, others on one day alone."""

    regulars: int
    newcomers: int  # of each day
    days: int
    share: float  # of the canary
    candidate: float  # failure rate
    rate: float = 0.01  # the same, with the incumbent
    sticky: float = 0.0  # share of the callers whose requests always fail, with either
    counts: int = 1  # how often a caller is met in a day: by routers, and after restarts
    restarted: int = 0  # of the days: those on which he is met once more

    @property
    def exposures(self) -> int:
        """Canary units in all days, each caller of a day counted once."""
        return round((self.regulars + self.newcomers) * self.days * self.share)


# 20 exposures a day at 1 %, all of callers who were never there before.
SMALL: Final = DailyTraffic(0, 2000, 14, 0.01, 0.05)
# Half of the callers come every day, to two routers that start again on three of 30 days.
BUSY: Final = DailyTraffic(100, 100, 30, 0.5, 0.005, 0.005, 0.02, counts=2, restarted=3)


def exposures_to_rollback(
    traffic: DailyTraffic, policy: CanaryPolicy, seed: Sequence[int]
) -> float:
    """Canary units until the rollback; inf for none within the days."""
    blocks = list(simulate_days(traffic, seed, ledger=True))
    found = collect_evidence(blocks, policy)
    return math.inf if found.block is None else float(found.exposures)


def simulate_days(
    traffic: DailyTraffic, seed: Sequence[int], *, ledger: bool
) -> Iterator[ObservationBlock]:
    """The blocks of a rollout, day by day. ledger: whether routers ask one; without, who is met
    twice counts twice.
    """
    rng = np.random.default_rng(seed)
    keys = traffic.regulars + traffic.newcomers * traffic.days
    canary = rng.random(keys) < traffic.share
    always = rng.random(keys) < traffic.sticky
    fails = np.where(always, 1.0, np.where(canary, traffic.candidate, traffic.rate))
    pages: dict[int, bytes] = {}
    number = 0
    for day in range(1, traffic.days + 1):
        met = _met(traffic, day, rng)
        for begin in range(0, len(met), BLOCK):
            units = met[begin : begin + BLOCK]
            failed = rng.random(len(units)) < fails[units]
            history = np.zeros(len(units), dtype=int)
            if ledger:
                # Of 16 keys each: fewer than of fingerprints, and so the quicker.
                prints = [int(key) // 16 << 32 | int(key) for key in units]
                known = {page: pages[page] for page in set(map(page_of, prints)) & pages.keys()}
                changed, found = claim_keys(known, KeyClaim("r", day, prints))
                pages |= changed
                history = np.array(found)
            counted = history != KeyHistory.COUNTED
            if not counted.any():
                continue
            number += 1
            new = history == KeyHistory.NEVER_SEEN
            all_counted, of_new = (_tally(c, canary[units], failed) for c in (counted, new))
            never_seen = NeverSeen(*of_new) if ledger else None
            yield _block(traffic, number, day, all_counted, never_seen)


def _met(traffic: DailyTraffic, day: int, rng: np.random.Generator) -> np.ndarray:
    """Who is met on a day, in order; whose count is the first is chance."""
    first = traffic.regulars + (day - 1) * traffic.newcomers
    here = [*range(traffic.regulars), *range(first, first + traffic.newcomers)]
    # The restarts are spread over the days.
    every = traffic.days // traffic.restarted if traffic.restarted else traffic.days + 1
    counts = traffic.counts * (2 if day % every == 0 else 1)
    return np.concatenate([rng.permutation(here) for _ in range(counts)])


def _tally(chosen: Flags, canary: Flags, failed: Flags) -> tuple[int, int, int, int]:
    parts = (chosen, chosen & canary, chosen & failed, chosen & failed & canary)
    units, in_canary, failures, canary_failures = (int(part.sum()) for part in parts)
    return units, in_canary, failures, canary_failures


def _block(
    traffic: DailyTraffic,
    number: int,
    day: int,
    tally: tuple[int, int, int, int],
    never_seen: NeverSeen | None,
) -> ObservationBlock:
    at = START + timedelta(days=day - 1)
    units, canary_units, failures, canary_failures = tally
    return ObservationBlock(
        rollout="r",
        worker="w",
        sequence=number,
        weight_bps=round(traffic.share * 10_000),
        units=units,
        canary_units=canary_units,
        failures=failures,
        canary_failures=canary_failures,
        missing=0,
        opened_at=at,
        closed_at=at,
        number=number,
        period=day,
        never_seen=never_seen,
    )
