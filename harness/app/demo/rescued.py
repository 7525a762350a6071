"""Reads from the router's own records which target answered when another target failed, for the
callers of a lost provider and of a candidate that failed in its canary.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from harness.frame.formatting import format_latency, format_quantity
from harness.operations.context import Context
from harness.providers.target import Target
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from harness.routing.reliability.failover import Failover
from harness.routing.table import Arm


@dataclass(frozen=True, slots=True)
class BackupAnswers:
    """A route's requests during the demo."""

    answered: int  # answered by one of the route's fallbacks
    failed: int  # the caller got an error


def count_backup_answers(ctx: Context, route: str, since: datetime) -> BackupAnswers:
    with ctx.store.read() as tx:
        fallbacks = Routing(tx).table().routes[route].fallbacks
        minutes = Observations(tx).traffic(since=since, route=route)
    return BackupAnswers(
        answered=sum(minute.requests for minute in minutes if minute.target in fallbacks),
        failed=sum(minute.failed for minute in minutes),
    )


@dataclass(frozen=True, slots=True)
class RescuedCallers:
    """The requests that the candidate failed, and their other answers."""

    failing: int  # requests that the candidate failed
    rescued: int  # of these, the incumbent's answers
    unanswered: int  # requests of the canary whose caller got an error
    wait_s: float | None  # median time until the router left the candidate

    @property
    def all_rescued(self) -> bool:
        """Returns whether the candidate failed, and each caller got the incumbent's answer."""
        return self.failing > 0 and self.rescued == self.failing and not self.unanswered

    def describe(self, candidate: str, incumbent: str) -> str:
        wait = format_latency(self.wait_s)
        return (
            f"{candidate} failed {format_quantity(self.failing, 'request')}; {incumbent} "
            f"answered {self.rescued:,} of them, after {wait} in the median; "
            f"{format_quantity(self.unanswered, 'caller')} got an error"
        )


def count_rescued_callers(
    ctx: Context,
    route: str,
    *,
    candidate: Target,
    incumbent: Target,
    since: datetime,
    failovers: Iterable[Failover] = (),
) -> RescuedCallers:
    """Counts the callers of a route's canary whose candidate failed.

    Args:
        failovers: of the route, for the median time.
    """
    with ctx.store.read() as tx:
        minutes = Observations(tx).traffic(since=since, route=route)
    canary = [minute for minute in minutes if minute.arm == Arm.CANARY]
    waits_s = [step.latency_ms / 1000 for step in failovers if step.target == candidate.name]
    return RescuedCallers(
        failing=sum(minute.charged for minute in canary),
        # The record of a failed request has the target that the router called last.
        rescued=sum(m.charged - m.failed for m in canary if m.target == incumbent.id),
        unanswered=sum(minute.failed for minute in canary),
        wait_s=median(waits_s) if waits_s else None,
    )
