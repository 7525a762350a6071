"""A canary's reach is how many of its route's requests the candidate answered in the last hour:
who changes a canary's share by hand sees how many users that concerns.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from harness.control.context import Context
from harness.domain.canary.rollout import Rollout, RolloutSignal
from harness.domain.formatting import format_bps, format_number
from harness.domain.routing.table import BUCKETS

WINDOW: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class CanaryReach:
    """Counts the requests of a canary's route in the last hour."""

    candidate: str  # its name
    answered: int  # by the candidate
    requests: int  # of the whole route

    def describe(self, weight_bps: int | None) -> str:
        """Says it in words. weight_bps: the candidate's share after an act; None where that
        changes no share.
        """
        if not self.requests:
            return "No request of this route was recorded in the last hour."
        text = (
            f"In the last hour {self.candidate} answered {self.answered:,} of this route's "
            f"{self.requests:,} requests"
        )
        if weight_bps is None:
            return f"{text}."
        if not weight_bps:
            return f"{text}; after this it answers none."
        reached = format_number(self.requests * weight_bps / BUCKETS, 2)
        return f"{text}; at {format_bps(weight_bps)} it would have been about {reached}."


def load_reach(ctx: Context, rollout: Rollout, candidate: str) -> CanaryReach:
    """Counts the last hour's requests. candidate: its name."""
    since = ctx.clock.now() - WINDOW
    with ctx.store.read() as tx:
        traffic = tx.observations.traffic(since=since, route=rollout.route)
    answered = [minute for minute in traffic if minute.target == rollout.candidate]
    return CanaryReach(
        candidate,
        sum(minute.requests for minute in answered),
        sum(minute.requests for minute in traffic),
    )


def find_share_after(rollout: Rollout, signal: RolloutSignal) -> int | None:
    """Finds the candidate's share after a signal, in basis points; None where it stays."""
    kept = rollout.policy.bake_bps if rollout.policy.bake_s else 0
    match signal:
        case RolloutSignal.ABORT:
            return 0
        case RolloutSignal.PROMOTE:
            return BUCKETS - kept
        case RolloutSignal.FINISH:
            return BUCKETS
        case RolloutSignal.ADVANCE if not rollout.last_step:
            return rollout.policy.steps[rollout.step + 1].weight_bps
        case _:
            return None
