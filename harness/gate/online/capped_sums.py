"""A bet on a capped mean finds harm in a few very dear or slow requests. Ranks hardly see it,
because a rank does not tell ten times as much from twice as much (statistics.md §2.21).

A guardrail of ranks with a cap makes one bet for each exposure of the smaller arm, besides its
rank. The caps come from the incumbent's traffic before the rollout, so the rollout's outcomes
cannot influence them. Blocks contain these bets like the bets of `limits`, and
`evidence_paths.sums_path` reads them. Pure.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, Self

from harness.gate.online.guardrails import Guardrail, draw_pairs

# The cap is this many times the incumbent's mean.
CAP_TIMES: Final = 20.0
# The least value of a bet is -SUM_LEAST, and its largest value 1.
SUM_LEAST: Final = 1.1


class CappedExposure(NamedTuple):
    """One exposure's arm and value, in seconds, tokens or US dollars.

    value: math.inf for an incumbent's exposure that is missing, or that the end cut short.
    """

    canary: bool
    value: float


class CappedTotals(NamedTuple):
    """Adds up the exposures of bets on a capped mean, by arm: for texts, not for decisions.

    Each block of a rollout with a cap has totals, also a block without exposures. They show
    that the guardrail's evidence is the mean of ranks and bets. canary_sum, control_sum: of the
    values up to the cap. canary_above, control_above: the parts of finite values above the cap.
    """

    cap: float
    canary: int
    control: int
    canary_sum: float
    control_sum: float
    canary_above: float
    control_above: float

    @classmethod
    def from_exposures(cls, exposures: Iterable[CappedExposure], cap: float) -> Self:
        numbers = {True: 0, False: 0}
        sums = {True: 0.0, False: 0.0}
        above = {True: 0.0, False: 0.0}
        for canary, value in exposures:
            numbers[canary] += 1
            sums[canary] += min(value, cap)
            if cap < value < math.inf:
                above[canary] += value - cap
        return cls(
            cap,
            numbers[True],
            numbers[False],
            sums[True],
            sums[False],
            above[True],
            above[False],
        )

    def plus(self, other: "CappedTotals") -> "CappedTotals":
        """Adds the exposures of another block, which has the same cap."""
        return CappedTotals(
            self.cap,
            self.canary + other.canary,
            self.control + other.control,
            self.canary_sum + other.canary_sum,
            self.control_sum + other.control_sum,
            self.canary_above + other.canary_above,
            self.control_above + other.control_above,
        )

    @property
    def means(self) -> tuple[float, float] | None:
        """Returns the canary's and the incumbent's capped mean; None if an arm has no
        exposures.
        """
        if not (self.canary and self.control):
            return None
        return self.canary_sum / self.canary, self.control_sum / self.control

    @property
    def ratio(self) -> float | None:
        """Divides the canary's capped mean by the incumbent's; None without both."""
        if self.means is None or not self.means[1]:
            return None
        return self.means[0] / self.means[1]

    def share_above(self, *, canary: bool) -> float:
        """Returns the part of an arm's finite values that is above the cap, from 0 to 1."""
        above, capped = (
            (self.canary_above, self.canary_sum)
            if canary
            else (self.control_above, self.control_sum)
        )
        return above / (above + capped) if above else 0.0

    @property
    def emptied(self) -> "CappedTotals":
        """Returns the totals of a block with this cap and without a bet."""
        return CappedTotals(self.cap, 0, 0, 0.0, 0.0, 0.0, 0.0)

    @property
    def fits(self) -> bool:
        """Tells whether the sums are possible."""
        return 0.0 < self.cap < math.inf and all(0 <= n < math.inf for n in self[1:])


def bet_on_sums(
    exposures: Sequence[CappedExposure],
    *,
    guardrail: Guardrail,
    tolerated: float,
    cap: float,
    block: tuple[str, str, int],
) -> tuple[float, ...]:
    """Returns bets that the canary's capped mean is at most `tolerated` times the incumbent's.

    Args:
        exposures: in the order of admission.
        block: see `rank_block`.

    A bet compares one exposure of the smaller arm with the mean of exposures of the larger arm,
    each of them used only once, so that the bets are independent. A bet is x - tolerated * x',
    as a part of the largest possible loss, tolerated * cap, and times SUM_LEAST.
    """
    capped = [(canary, min(value, cap)) for canary, value in exposures]
    scale = SUM_LEAST / (tolerated * cap)
    return tuple(
        min(1.0, max(-SUM_LEAST, scale * (canary - tolerated * control)))
        for canary, control in draw_pairs(capped, guardrail=guardrail, block=block)
    )
