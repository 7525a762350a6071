"""The split of a route whose requests another gateway sends. Swapproof decides the shares, and
the gateway picks a model for each request. A `SplitDriver` calls one gateway; the other code is
pure.

Nothing here decides a share: the routing table does. The drivers of LiteLLM and flagd are in
`harness.app.gateways`, which also turns outcomes into observations.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from harness.frame.formatting import format_bps
from harness.providers.force import KillSwitch, active_switches, decide_plan
from harness.providers.target import Target
from harness.routing.table import BUCKETS, Arm, Canary, Route

# Shares in basis points, by target id, or by the gateway's name for a model that is no target.
Split = Mapping[str, int]
# A route's targets, by the route's name.
DrivenTargets = Mapping[str, Collection[Target]]

# In records of a gateway's driver, the worker's name begins with one of these prefixes.
LITELLM_WORKER: Final = "litellm-"
FLAGD_WORKER: Final = "flagd-"
# Swapproof misses a request that the gateway logs later than this after the request's start.
LONGEST_LOG_DELAY: Final = timedelta(minutes=11)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request that a gateway logged.

    caller: the request's session; Swapproof counts all requests of one session as one caller.
    target: the id of the target that the gateway tried first; None if it does not name one.
    failed: whether that target failed. answered: whether the caller got an answer, perhaps
    after a retry or a fallback.
    """

    id: str
    route: str
    caller: str
    target: str | None
    started_at: datetime
    failed: bool
    answered: bool
    why: str
    latency_s: float
    input_tokens: int
    output_tokens: int


class SplitDriver(Protocol):
    """Reads and sets the shares at one gateway, and reads the outcomes of its requests.

    Each method raises UpstreamError if the gateway does not answer, or refuses.
    """

    def begin_look(self) -> None:
        """Reads the gateway's state. The other methods use it until the next call."""
        ...

    def read_split(self, route: str, targets: Collection[Target]) -> Split:
        """Returns the shares in force; empty if the gateway does not have the route."""
        ...

    def set_split(
        self,
        route: str,
        targets: Collection[Target],
        split: Split,
    ) -> None:
        """Makes the gateway use these shares.

        Args:
            split: in basis points, with a sum of 10 000.
        """
        ...

    def read_outcomes(self, since: datetime, driven: DrivenTargets) -> Iterable[Outcome]:
        """Returns the logged requests of the driven routes that began at `since` or later.

        May return a request twice, or an earlier request; the calling code counts each id once.
        """
        ...


def planned_split(route: Route) -> Split:
    """Returns the table's shares, in basis points with a sum of 10 000.

    The routing table gives a share only to a proven target. A gateway that picks a model for
    each request cannot apply an audience, so no caller gets the candidate of such a canary.
    """
    trial = route.experiment
    if trial is None or (route.canary is not None and trial.audience is not None):
        return {route.incumbent: BUCKETS}
    return {
        route.incumbent: BUCKETS - trial.weight_bps,
        trial.target: trial.weight_bps,
    }


def allowed_split(
    targets: Mapping[str, Target],
    route: Route,
    switches: Iterable[KillSwitch],
    now: datetime,
) -> Split:
    """Returns the table's shares after the kill switches.

    Args:
        targets: by id.

    A share that a switch forbids goes to the first target that the switches still allow.
    Targets without a share are left out.
    """
    split = Counter[str]()
    live = active_switches(switches, now)
    for target, bps in planned_split(route).items():
        ids = dict.fromkeys((target, route.incumbent, *route.fallbacks))
        forced_plan = decide_plan(live, route.name, [targets[id_] for id_ in ids])
        split[forced_plan.kept[0] if forced_plan else target] += bps
    return {target: bps for target, bps in split.items() if bps}


def describe_change(
    had: Split,
    has: Split,
    names: Mapping[str, str],
) -> str:
    """Describes each share that differs.

    Args:
        names: the targets' names, by id.
    """
    return ", ".join(
        f"{names.get(target, target)} has {format_bps(has.get(target, 0))} instead of "
        f"{format_bps(had.get(target, 0))}"
        for target in {**had, **has}
        if had.get(target, 0) != has.get(target, 0)
    )


class TrustedTime(NamedTuple):
    """A period in which the gateway had this trial's shares at each check.

    trial: None without a canary, and while a kill switch moves an arm.
    """

    incumbent: str
    trial: Canary | None
    since: datetime
    until: datetime

    def find_arm(self, target: str) -> Arm | None:
        """Returns the arm of the target with this id; None if it is in neither arm."""
        if self.trial is not None and target == self.trial.target:
            return Arm.HOLDBACK if self.trial.control else Arm.CANARY
        return Arm.INCUMBENT if target == self.incumbent else None

    @property
    def candidate(self) -> str:
        """The target whose failures count: the candidate, or without a trial the incumbent."""
        trial = self.trial
        return self.incumbent if trial is None or trial.control else trial.target


def confirm_time(
    times: Sequence[TrustedTime],
    now: TrustedTime,
    settles: timedelta | None,
) -> Sequence[TrustedTime]:
    """Extends the last period to now. After a change, adds a period that begins once the change
    has settled.

    Args:
        now: the newest check of the gateway.
        settles: time for a change to settle; None without a change.

    Drops periods that ended more than twice LONGEST_LOG_DELAY before now, so that the list
    stays short.
    """
    recent_times = [time for time in times if time.until > now.until - 2 * LONGEST_LOG_DELAY]
    if settles is None and recent_times:
        return [
            *recent_times[:-1],
            recent_times[-1]._replace(until=max(recent_times[-1].until, now.until)),
        ]
    begins = now.until + (settles or timedelta())
    return [*recent_times, now._replace(since=begins, until=begins)]


def find_time(times: Sequence[TrustedTime], started_at: datetime) -> TrustedTime | None:
    """Returns the period in which a request started; None outside all periods. A slow request
    counts at the share of its start.
    """
    return next(
        (time for time in times if time.since <= started_at < time.until),
        None,
    )


def find_start(times: Sequence[TrustedTime], found: TrustedTime) -> datetime:
    """Returns the start of the first period of the same rollout."""
    rollout = found.trial and found.trial.rollout
    return next(t.since for t in times if (t.trial and t.trial.rollout) == rollout)
