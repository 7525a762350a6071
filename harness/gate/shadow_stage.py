"""The shadow stage before a canary decides what comes next, from its pairs alone: start or go
on mirroring, open the canary, reject, or hold. Pure.

The canary opens only with the policy's number of pairs. If the budget is spent before, the
stage holds. Harm is an anytime-valid sign test for each check that only one side's answer
passed (`check_log_e`), averaged over all checks, at the policy's own level.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from harness.domain.formatting import format_percent, format_usd
from harness.domain.proposals.policy import ShadowStagePolicy
from harness.domain.shadow import ShadowCheck
from harness.gate.arrays import log_mean

# Of false alarms, over all checks and the whole life of a shadow.
SHADOW_ALPHA: Final = 0.05
THETAS: Final = (0.55, 0.6, 0.7, 0.8, 0.9, 0.97)


def check_log_e(lost: int, won: int) -> float:
    """Returns the log e-value of one check. lost: pairs that only the incumbent held. won: only
    the candidate.
    """
    return log_mean(
        [lost * math.log(2 * theta) + won * math.log(2 * (1 - theta)) for theta in THETAS]
    )


def combined_log_e(discordant: Mapping[str, tuple[int, int]]) -> float:
    """The mean of the checks' e-values: they see the same pairs, and are not independent.

    A check that no pair was asked for yet has its weight, and an e-value of 1.
    """
    seen = [check_log_e(*counts) for counts in discordant.values()]
    return log_mean([*seen, *[0.0] * (len(ShadowCheck) - len(seen))])


def is_harm(log_e_all: float, alpha: float = SHADOW_ALPHA) -> bool:
    return log_e_all >= -math.log(alpha)


def share_of_level(log_e_value: float, alpha: float = SHADOW_ALPHA) -> float:
    """How near the evidence is to the level of harm, 0 to 1 and beyond."""
    return max(0.0, log_e_value / -math.log(alpha))


# Money is summed in floating point.
ROUNDING_USD: Final = 1e-9


class ShadowMove(StrEnum):
    START = "start"
    MIRROR = "mirror"  # it goes on as it is
    OPEN = "open"  # the canary, at its first step
    REJECT = "reject"
    HOLD = "hold"  # a person looks


@dataclass(frozen=True, slots=True)
class ShadowStageState:
    """Sums up all shadows of one proposal."""

    pairs: int = 0
    # By check, callers whose first pair only the incumbent held, and only the candidate.
    lost_won: Mapping[str, tuple[int, int]] | None = None
    spent_usd: float = 0.0  # of the policy's money
    mirroring: bool = False  # one of them is live
    stopped: str = ""  # who ended the control plane's own and why, empty unless a person did
    obstacle: str = ""  # why none can be started now

    @property
    def log_e(self) -> float:
        return combined_log_e(self.lost_won or {})


@dataclass(frozen=True, slots=True)
class ShadowStageDecision:
    """What a shadow stage does next, and why."""

    move: ShadowMove
    reason: str
    log_e: float
    distance: float  # of the evidence of harm, 1 at the level
    left_usd: float  # of the policy's money


def decide_shadow_stage(
    policy: ShadowStagePolicy, state: ShadowStageState
) -> ShadowStageDecision:
    """Decides the next move. Harm comes first, however many pairs or dollars are left."""
    log_e = state.log_e
    distance = share_of_level(log_e, policy.alpha)
    left_usd = max(0.0, policy.max_cost_usd - state.spent_usd)
    move, reason = _choose(policy, state, left_usd, _evidence(distance))
    return ShadowStageDecision(move, reason, log_e, distance, left_usd)


def _choose(
    policy: ShadowStagePolicy, state: ShadowStageState, left_usd: float, evidence: str
) -> tuple[ShadowMove, str]:
    counted = f"{state.pairs:,} of {policy.min_pairs:,} compared pairs"
    if is_harm(state.log_e, policy.alpha):
        return (
            ShadowMove.REJECT,
            f"In its shadow the candidate was worse: {_worst(state)}. {evidence}",
        )
    if state.pairs >= policy.min_pairs:
        return ShadowMove.OPEN, f"{counted}, and nothing speaks against it. {evidence}"
    money = f"{format_usd(state.spent_usd)} of {format_usd(policy.max_cost_usd)} spent"
    if state.mirroring:
        return ShadowMove.MIRROR, f"{counted}, {money}. {evidence}"
    if why := _why_none(state, left_usd):
        return ShadowMove.HOLD, f"The canary stays shut: {why}. {counted}, {money}. {evidence}"
    return ShadowMove.START, f"{counted}, {money}."


def _why_none(state: ShadowStageState, left_usd: float) -> str:
    """Why nothing more is mirrored; empty if something can be."""
    if left_usd <= ROUNDING_USD:
        return "the money for its shadow is spent"
    return state.stopped or state.obstacle


def _evidence(distance: float) -> str:
    return f"Evidence that it is worse: {format_percent(distance, 0)} of the level."


def _worst(state: ShadowStageState) -> str:
    lost_won = state.lost_won or {}
    name = max(lost_won, key=lambda check: lost_won[check][0] - lost_won[check][1])
    lost, won = lost_won[name]
    return f"{lost:,} callers where only the incumbent held {name}, {won:,} where only it did"
