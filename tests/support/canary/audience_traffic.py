"""Simulates a canary whose audience puts staff first, as the router assigns and counts callers.

`place_caller` decides each caller, and the router's own ledger makes the blocks. Staff never
fail. The other callers are the same with and without an audience, so both can be compared in
pairs (statistics.md §2.22).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np

from harness.canary.first_callers import FIRST_ALPHA
from harness.frame.people.audience import (
    Audience,
    AudienceRule,
    CallerClaims,
    CallerSet,
    CallerSource,
    StepAudience,
)
from harness.gate.arrays import Floats
from harness.gate.online.evidence_paths import counts_path, error_tally, usual_path
from harness.gate.online.guardrails import ExposureRule, FailureTally
from harness.gate.online.observation import ObservationBlock
from harness.gate.online.outcome import ANSWERED, ExposureOutcome, OutcomeKind, OutcomeReason
from harness.gate.online.uncounted import UncountedReason
from harness.routing.table import Arm, Canary, Route, place_caller
from router.recording.ledger import Ledger
from tests.support.canary.conversations import LIMIT

SHARE_BPS: Final = 500
AUDIENCE: Final = Audience(first=(CallerSet(CallerSource.USER, prefixes=("staff-",)),))
FAILED: Final = ExposureOutcome(OutcomeKind.FAILED, OutcomeReason.PROVIDER)
START: Final = datetime(2026, 1, 1, tzinfo=UTC)
PAUSE_S: Final = 0.5  # between two callers that are no staff


@dataclass(frozen=True)
class StaffScene:
    """A route with staff. staff: callers of the staff for each other caller.

    rule: whether an audience puts the staff first; without one, the share draws them like all
    callers. control, canary: failure rates of the callers that are no staff.
    """

    staff: float = 0.0
    rule: bool = True
    control: float = 0.01
    canary: float = 0.05


def exposures(scene: StaffScene, *, most: int, seed: Sequence[int]) -> float:
    """Counts the canary's exposures that are no staff until errors end it; inf for never within
    `most` exposures.
    """
    blocks = simulate_blocks(scene, most * 10_000 // SHARE_BPS, seed)
    tallies = [error_tally(block) for block in blocks]
    path = counts_path(tallies, shares=[SHARE_BPS / 10_000] * len(tallies))
    over = np.flatnonzero(path >= LIMIT)
    if not len(over):
        return math.inf
    counted = sum(tally.canary for tally in tallies[: over[0] + 1])
    drawn_staff = 0.0 if scene.rule else scene.staff / (1.0 + scene.staff)
    return counted * (1.0 - drawn_staff)


def simulate_blocks(
    scene: StaffScene, others: int, seed: Sequence[int]
) -> Sequence[ObservationBlock]:
    """Simulates the blocks of the comparison.

    Args:
        others: callers that are no staff.
    """
    rng = np.random.default_rng(seed)
    fails = rng.random(others)
    staff_rng = np.random.default_rng([*seed, 1])
    staff = staff_rng.poisson(scene.staff, others)
    steps = (StepAudience(1, AUDIENCE),) if scene.rule else ()
    rule = ExposureRule(began_s=START.timestamp(), audiences=steps)
    route = Route("r", 1, "t_old", Canary("t_new", SHARE_BPS, f"salt-{seed}", "r-1", rule))
    ledger = Ledger("r-1", "w", replace(rule, audiences=()))
    for number in range(others):
        now_s = number * PAUSE_S
        at = START + timedelta(seconds=now_s)
        _count(ledger, route, f"other-{number}", fails[number], scene, (now_s, at))
        for place in range(staff[number]):
            _count(ledger, route, f"staff-{number}-{place}", 1.0, scene, (now_s, at))
    end_s = others * PAUSE_S
    return ledger.close(end_s, START + timedelta(seconds=end_s))


def _count(
    ledger: Ledger,
    route: Route,
    user: str,
    chance: float,
    scene: StaffScene,
    time: tuple[float, datetime],
) -> None:
    """Counts a caller's first request. It fails if `chance` is below its model's rate."""
    now_s, at = time
    place = place_caller(route, CallerClaims("", (user,)), f"user:{user}")
    canary = place.arm is Arm.CANARY
    if place.rule is AudienceRule.FIRST:
        reason = UncountedReason.AUDIENCE
        ledger.note_uncounted(reason, canary=canary, weight_bps=SHARE_BPS, now=now_s, at=at)
        return
    exposure = ledger.admit(user, canary=canary, weight_bps=SHARE_BPS, now=now_s, at=at)
    if exposure is not None:
        is_bad = chance < (scene.canary if canary else scene.control)
        ledger.finish(exposure, outcome=FAILED if is_bad else ANSWERED, now=now_s)


def first_callers_path(rate: float, usual: float, callers: int, seed: Sequence[int]) -> Floats:
    """Simulates log e of first callers that fail at `rate`, caller by caller."""
    failed = np.random.default_rng(seed).random(callers) < rate
    tallies = [FailureTally(1, 1, int(one), int(one)) for one in failed]
    return usual_path(tallies, [usual] * callers)


def callers_to_pause(rate: float, usual: float, callers: int, seed: Sequence[int]) -> float:
    """Counts the first callers until the canary pauses; inf for never."""
    path = first_callers_path(rate, usual, callers, seed)
    over = np.flatnonzero(path >= -math.log(FIRST_ALPHA))
    return float(over[0] + 1) if len(over) else math.inf
