"""A design fixes a comparison before the first score is known: claim, allowed loss, items,
alpha, and how alpha is split between early promotion and the final test (statistics.md §1.2).
"""

import math
from dataclasses import dataclass

from harness.domain.errors import InputError
from harness.domain.evals.suite_plan import (
    QUALITY_CLAIMS,
    Claim,
    PrimaryCombination,
    SuitePlan,
    UnseenLoss,
)

EARLY_SHARE = 0.2
FINAL_SHARE = 0.8
# The rejection is a safety with its own 5 %: it cannot cause a false promotion.
REJECT_LOG_E = math.log(20.0)


@dataclass(frozen=True, slots=True)
class Design:
    """Fixes what one comparison has to show, and when (statistics.md §1.2).

    Raises InputError for a margin or alpha outside (0, 1) and for n_max below 1.
    """

    claim: Claim  # about the scores, superior or non_inferior
    margin: float  # allowed loss, a share of 1
    n_max: int  # items
    alpha: float = 0.05
    # Whether it may be shown before n_max; otherwise the test there has the whole alpha
    # (statistics.md §1.7).
    early: bool = True
    unit: str = "item"  # what n_max counts
    # Mean number of items of a unit, where units are clusters (statistics.md §1.12).
    cluster_size: float | None = None
    unseen: UnseenLoss = UnseenLoss.WHOLE

    def __post_init__(self) -> None:
        if self.claim not in QUALITY_CLAIMS:
            raise InputError(f"{self.claim.value} is no claim about scores alone")
        if not 0.0 < self.margin < 1.0:
            raise InputError(f"the margin is between 0 and 1, not {self.margin:g}")
        if not 0.0 < self.alpha < 1.0:
            raise InputError(f"alpha is between 0 and 1, not {self.alpha:g}")
        if self.n_max < 1:
            raise InputError(f"a comparison needs at least 1 item, not {self.n_max}")

    @property
    def theta0(self) -> float:
        """The null is that the mean difference is at most this."""
        return 0.0 if self.claim is Claim.SUPERIOR else -self.margin

    @property
    def alpha1(self) -> float:
        """Returns the error spent on early promotion."""
        return EARLY_SHARE * self.alpha if self.early else 0.0

    @property
    def alpha2(self) -> float:
        """Returns the error spent on the test at n_max."""
        return FINAL_SHARE * self.alpha if self.early else self.alpha

    @property
    def bets_for(self) -> float:
        """The log e-value that the bets aim at."""
        return math.log(1.0 / (EARLY_SHARE * self.alpha))

    @property
    def promote_at(self) -> float:
        """Returns the log e-value that promotes early; infinity where nothing may."""
        return self.bets_for if self.early else math.inf


def design_from_plan(plan: SuitePlan) -> Design:
    return Design(
        claim=plan.claim.quality,
        margin=plan.margin,
        n_max=plan.n_max,
        alpha=plan.alpha,
        early=plan.combine is not PrimaryCombination.ANY,
        unit=plan.unit,
        cluster_size=plan.planned_items / plan.n_max if plan.cluster else None,
        unseen=plan.unseen,
    )
