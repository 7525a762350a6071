"""Multiplicity rules bound false passes over suites and proposals: Holm's test, the alpha of
repeated looks and of several candidates, the risk summed over proposals, and the alpha that a
budget leaves.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from harness.gate.suite_plan import SuitePlan, SuiteRole

# The rule by which looks share alpha: the first has all of it, all together 1.5 times as much.
FIRST_FULL: Final = "first_full"
ALL_LOOKS: Final = 1.5

# A candidate whose chance of being shown is lower than this stops, to make room.
FUTILITY: Final = 0.05
MIN_ALPHA: Final = 1e-6  # no suite can reach a smaller alpha


def false_pass_risk(plans: Iterable[SuitePlan]) -> float:
    """Returns the maximum probability that an unworthy candidate passes all of these plans. A
    guard suite cannot pass a candidate, so its alpha does not count. Source:
    intersection-union, Berger 1982.
    """
    return max((p.alpha for p in plans if p.role is not SuiteRole.GUARD), default=0.0)


def total_risk(risks: Iterable[float]) -> float:
    """Returns the maximum probability that any passes by luck, for any dependence."""
    return min(1.0, math.fsum(risks))


def ration_alpha(alpha: float, spent: float, budget: float | None) -> float:
    """Returns alpha, but at most half of the remaining budget, so that it is never exceeded."""
    return alpha if budget is None else min(alpha, max(0.0, budget - spent) / 2)


def share_alpha(plan: SuitePlan, candidates: int) -> SuitePlan:
    """Returns the plan with its part of alpha, if several candidates are proposed together.
    Uses Bonferroni's inequality, which holds for any dependence (statistics.md §1.16).
    """
    if candidates == 1:
        return plan
    alone = plan.combine is None and plan.role is not SuiteRole.GUARD
    return replace(
        plan,
        alpha=plan.alpha / candidates,
        candidates=candidates,
        # A guard continues, because it may still find harm. So do suites that are judged
        # together.
        futility=FUTILITY if alone else 0.0,
    )


def holm_test(p_values: Sequence[float], alpha: float) -> tuple[bool, ...]:
    """Decides which superiority suites are shown if one suffices. Source: Holm 1979."""
    shown = [False] * len(p_values)
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(order):
        if p_values[index] > alpha / (len(p_values) - rank):
            break
        shown[index] = True
    return tuple(shown)


def spend_alpha(alpha: float, look: int) -> float:
    """Computes the alpha of the `look`-th proposal, counted from 1 (statistics.md §1.8)."""
    if look < 1:
        raise ValueError(f"looks are counted from 1, not {look}")
    return alpha if look == 1 else alpha / (look * (look + 1))
