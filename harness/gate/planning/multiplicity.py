"""Multiplicity rules bound false passes over suites and proposals: Holm's test, the alpha of
each repeated look and of each of several candidates, the risk summed over proposals, and what a
budget leaves of alpha.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from harness.gate.suite_plan import SuitePlan, SuiteRole

# The rule by which looks share alpha: the first has it whole, all together 1.5 times as much.
FIRST_FULL: Final = "first_full"
ALL_LOOKS: Final = 1.5

# A candidate that would be shown by a chance below it makes room for the others.
FUTILITY: Final = 0.05
MIN_ALPHA: Final = 1e-6  # an alpha below it cannot be reached by any suite


def false_pass_risk(plans: Iterable[SuitePlan]) -> float:
    """Returns how often at most an unworthy candidate passes all of these plans. A guard suite
    cannot pass a candidate, so its alpha does not count. Source: intersection-union, Berger
    1982.
    """
    return max((p.alpha for p in plans if p.role is not SuiteRole.GUARD), default=0.0)


def total_risk(risks: Iterable[float]) -> float:
    """Returns how often at most one of them passes by luck, whatever their dependence."""
    return min(1.0, math.fsum(risks))


def ration_alpha(alpha: float, spent: float, budget: float | None) -> float:
    """Returns its own alpha, at most half of what is left: the sum never passes the budget."""
    return alpha if budget is None else min(alpha, max(0.0, budget - spent) / 2)


def share_alpha(plan: SuitePlan, candidates: int) -> SuitePlan:
    """Returns the plan with its part of alpha, where several candidates are proposed together:
    Bonferroni's inequality, which holds for any dependence (statistics.md §1.16).
    """
    if candidates == 1:
        return plan
    alone = plan.combine is None and plan.role is not SuiteRole.GUARD
    return replace(
        plan,
        alpha=plan.alpha / candidates,
        candidates=candidates,
        # A guard goes on: it may still find harm. So do suites that are judged together.
        futility=FUTILITY if alone else 0.0,
    )


def holm_test(p_values: Sequence[float], alpha: float) -> tuple[bool, ...]:
    """Decides which superiority suites are shown, where one suffices. Source: Holm 1979."""
    shown = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(order):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        shown[index] = True
    return tuple(shown)


def spend_alpha(alpha: float, look: int) -> float:
    """Computes what the `look`-th proposal, counted from 1, may spend (statistics.md §1.8)."""
    if look < 1:
        raise ValueError(f"looks are counted from 1, not {look}")
    return alpha if look == 1 else alpha / (look * (look + 1))
