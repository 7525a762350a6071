"""A route plan: the targets that may answer a request, in order, and the excluded ones. Pure.

The reason of an exclusion is the first that applies: data class, stakes, a missing key, a
switch, capabilities, an open breaker. `draw_keep_warm` sends a share of requests to fallbacks,
so that Swapgate knows that they work.

A plan is made once for each request and calls no target: `router.request.dispatch` follows it.
The arm was chosen before, in `harness.routing.table`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Final

from harness.frame.errors import InputError
from harness.frame.failures import (
    CLIENT_FAILURES,
    FAILURE_RULES,
    FailureClass,
    NextTarget,
)
from harness.providers.force import ForcedPlan, KillSwitch, decide_plan
from harness.providers.models.capabilities import (
    UNKNOWN_CAPABILITIES,
    Capabilities,
    Needs,
    missing_capabilities,
    must_serialize_tools,
)
from harness.providers.target import Target
from harness.routing.reliability.breaker import (
    Breaker,
    BreakerPolicy,
    WhenAllOpen,
    retry_in_s,
)
from harness.routing.reliability.slowdown import Slowdown
from harness.routing.route_settings import MAX_KEEP_WARM_BPS, Stakes
from harness.routing.table import BUCKETS, Arm, Route, hash_bucket


class SendHold(StrEnum):
    """Why the router does not call a target, although the target did not fail."""

    PAUSE = "pause"  # its provider requested a pause, which slows or stops requests
    QUOTA = "quota"  # its circuit opened because our quota is used up


@dataclass(frozen=True, slots=True)
class TargetAvailability:
    """Whether the router may call a target now, by its breaker and its provider's pauses."""

    retry_in_s: float = 0.0  # time until the router may call the target; 0 for now
    failed_at: float | None = None  # time of the last failure, in monotonic seconds
    pause_s: float = 0.0  # the rest of the pause that its provider requested
    # Why the router calls it less or not at all, if no failure of its own is the cause.
    held: SendHold | None = None
    # Its provider's pause only slows it: a request may wait for a turn.
    takes_turns: bool = False

    @property
    def keeps_pause(self) -> bool:
        return self.pause_s > 0 and not self.takes_turns


AVAILABLE = TargetAvailability()


@dataclass(frozen=True)
class PlanContext:
    """Everything that a plan depends on besides the route and the request."""

    # A target without an entry in capabilities and health has all capabilities and is healthy.
    capabilities: Mapping[str, Capabilities] = field(default_factory=dict)
    health: Mapping[str, TargetAvailability] = field(default_factory=dict)
    targets: Mapping[str, Target] = field(default_factory=dict)  # needed only to apply switches
    switches: Sequence[KillSwitch] = ()  # the switches in force
    keyless: frozenset[str] = frozenset()  # targets whose provider requires a key and has none
    # Targets whose provider may not see the route's data class.
    barred: frozenset[str] = frozenset()
    when_all_open: WhenAllOpen = WhenAllOpen.TRY


class ExclusionReason(StrEnum):
    """Why a target is excluded, in the order in which the reasons are tested."""

    DATA_CLASS = "data_class"
    STAKES = "stakes"
    KEY = "no_key"
    SWITCH = "switch"
    CAPABILITY = "capability"
    OPEN = "open"


# Only an operator can remove these reasons; they exclude a target from every request.
OPERATOR_REASONS: Final = (ExclusionReason.DATA_CLASS, ExclusionReason.KEY)


@dataclass(frozen=True, slots=True)
class Excluded:
    """One target that may not answer this request, and why."""

    target: str
    because: ExclusionReason
    reason: str  # for people, without the target's name
    retry_in_s: float = 0.0  # above 0 only for OPEN
    held: SendHold | None = None  # only for OPEN; None if the target's failures are the cause


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """The plan of one request. `targets` and `left_out` together are the route's targets."""

    incumbent: str
    guest: str | None  # the target before the incumbent (`preferred_target`)
    targets: tuple[str, ...]  # ids in order; empty if no target may answer
    left_out: tuple[Excluded, ...]
    # Whether the router calls the one target in `targets` although its breaker is open. The
    # result then does not change the breaker.
    last_resort: bool = False
    serialize_tools: bool = False  # see `must_serialize_tools`
    # The answer continues the request's last turn (`Needs.prefill`).
    prefill: bool = False
    # The deciding switch's result. It is set even if the route keeps its plan.
    forced: ForcedPlan | None = None

    @property
    def all_open(self) -> bool:
        """Whether no target may answer now, but one may later: 503 with Retry-After."""
        return not self.targets and any(
            e.because is ExclusionReason.OPEN for e in self.left_out
        )

    @property
    def unable(self) -> bool:
        """Tells whether no target may answer, and a missing capability is a cause.

        False if an open breaker or an operator's setting is a cause too, because then the same
        request may succeed later.
        """
        return (
            not self.targets
            and not (self.all_open or any(e.because in OPERATOR_REASONS for e in self.left_out))
            and any(e.because is ExclusionReason.CAPABILITY for e in self.left_out)
        )

    @property
    def refuses(self) -> bool:
        """Whether a switch, a missing key or a data class leaves no target to call.
        False if the targets' circuits are open and no switch excludes another target.
        """
        reasons = {excluded.because for excluded in self.left_out}
        is_refusal = ExclusionReason.SWITCH in reasons or ExclusionReason.OPEN not in reasons
        return not self.targets and not self.unable and is_refusal

    @property
    def retry_after_s(self) -> int | None:
        """Seconds until the earliest probe, at least 1; None unless `all_open`."""
        waits = [
            excluded.retry_in_s
            for excluded in self.left_out
            if excluded.because is ExclusionReason.OPEN
        ]
        return max(1, math.ceil(min(waits))) if self.all_open else None

    @property
    def guest_left_out(self) -> Excluded | None:
        """Why the plan excludes `guest`. The guest's failure, unless a switch is the cause."""
        return next(
            (excluded for excluded in self.left_out if excluded.target == self.guest),
            None,
        )


def target_availability(
    breaker: Breaker,
    now: float,
    policy: BreakerPolicy,
    slowdown: Slowdown | None = None,
) -> TargetAvailability:
    """Returns when the router may call a target.

    now: monotonic seconds. slowdown: after its provider requested a pause; None without one.
    """
    circuit_s = retry_in_s(breaker, now, policy)
    pause_s = slowdown.rest_s(now) if slowdown is not None else 0.0
    wait_s = slowdown.wait_s(now) if slowdown is not None else 0.0
    held = None
    if circuit_s > 0.0:
        held = SendHold.QUOTA if breaker.because is FailureClass.QUOTA else None
    elif slowdown is not None:
        held = SendHold.PAUSE
    return TargetAvailability(
        max(circuit_s, wait_s),
        breaker.failed_at,
        pause_s,
        held,
        takes_turns=slowdown is not None and not slowdown.exhausted,
    )


def preferred_target(
    route: Route,
    arm: Arm,
    warm: str | None = None,
) -> str | None:
    """The target to try before the incumbent: the keep-warm target, or the arm's target."""
    own = {Arm.CANARY: route.canary, Arm.HOLDBACK: route.holdback}.get(arm)
    return warm or (own.target if own is not None else None)


def order_targets(route: Route, guest: str | None) -> tuple[str, ...]:
    """Orders the targets. During a bake, the previous incumbent precedes the fallbacks."""
    first = (guest,) if guest else ()
    before = (route.holdback.target,) if route.holdback else ()
    return tuple(
        dict.fromkeys(
            (
                *first,
                route.incumbent,
                *before,
                *route.fallbacks,
            )
        )
    )


def plan_request(
    route: Route,
    arm: Arm,
    needs: Needs,
    around: PlanContext,
    warm: str | None = None,
) -> RoutePlan:
    """Plans a request.

    arm: the caller's arm, chosen before. needs: the capabilities that the request needs.
    around: health, switches and keys at this moment. warm: the fallback that keep-warm drew for
    this request; else None.

    If every target is excluded, requests wait for a turn at the slowed ones. Without a slowed
    target, a target that only an open breaker excludes may be a last resort.
    """
    guest = preferred_target(route, arm, warm)
    ordered = order_targets(route, guest)
    beneath = _beneath_the_stakes(route, guest)
    out_anyway = beneath | around.keyless | around.barred
    forced = _force_plan(route, [id_ for id_ in ordered if id_ not in out_anyway], around)
    targets: list[str] = []
    left_out: list[Excluded] = []
    for target in ordered:
        out = _exclude_for_route(target, beneath, around) or _exclude_for_request(
            target, needs, around, forced
        )
        if out is None:
            targets.append(target)
        else:
            left_out.append(out)
    targets = targets or _taking_turns(left_out, around)
    last = None if targets else _last_resort(left_out, around)
    if last is not None:
        targets = [last]
    left_out = [excluded for excluded in left_out if excluded.target not in targets]
    has = tuple(around.capabilities.get(target, UNKNOWN_CAPABILITIES) for target in targets)
    return RoutePlan(
        incumbent=route.incumbent,
        guest=guest,
        targets=tuple(targets),
        left_out=tuple(left_out),
        last_resort=last is not None,
        serialize_tools=must_serialize_tools(needs, has),
        prefill=needs.prefill,
        forced=forced,
    )


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """The last failure of a request at one target.

    unable: the router could not express the request in the target's protocol.
    """

    target: str
    failure: FailureClass
    unable: bool = False


def next_target(
    plan: RoutePlan,
    failures: Sequence[FailedAttempt],
    capabilities: Mapping[str, Capabilities],
    *,
    policy_fallback: bool = False,
) -> str | None:
    """Returns the target to call next; None if the client gets the last failure.

    failures: of this request so far, the last one last; not empty.
    policy_fallback: whether the route tries the next target after a content filter's refusal.

    A target whose window was too small excludes later targets whose window is not larger.
    """
    last = failures[-1]
    later = plan.targets[plan.targets.index(last.target) + 1 :]
    if last.unable:
        return next(iter(later), None)
    if last.failure in CLIENT_FAILURES and last.target == plan.guest:
        # The incumbent may accept a request that the guest refuses, so it is tried once.
        return plan.incumbent if plan.incumbent in later else None
    rule = FAILURE_RULES[last.failure].next_target
    if rule is NextTarget.NO or (rule is NextTarget.IF_ROUTE_SAYS and not policy_fallback):
        return None
    small = [
        capabilities.get(failure.target, UNKNOWN_CAPABILITIES)
        for failure in failures
        if FAILURE_RULES[failure.failure].needs_larger_window and failure.target != plan.guest
    ]
    fitting = (
        id_
        for id_ in later
        if all(
            capabilities.get(id_, UNKNOWN_CAPABILITIES).larger_than(window) for window in small
        )
    )
    return next(fitting, None)


def _beneath_the_stakes(route: Route, guest: str | None) -> frozenset[str]:
    """Lists the fallbacks that high stakes exclude: those not marked capable."""
    if route.settings.stakes is not Stakes.HIGH:
        return frozenset()
    arms = {route.incumbent}
    if route.holdback is not None:
        arms.add(route.holdback.target)
    if route.canary is not None and guest == route.canary.target:
        arms.add(guest)
    return frozenset(route.fallbacks) - frozenset(route.settings.capable) - arms


def _exclude_for_route(
    target: str,
    beneath: frozenset[str],
    around: PlanContext,
) -> Excluded | None:
    """Returns an exclusion that holds for every request of the route; None without one."""
    if target in around.barred:
        why = "its provider may not see this route's class of data"
        return Excluded(target, ExclusionReason.DATA_CLASS, why)
    if target in beneath:
        why = "the stakes are high and it is not marked capable"
        return Excluded(target, ExclusionReason.STAKES, why)
    return None


def _force_plan(
    route: Route,
    allowed: Sequence[str],
    around: PlanContext,
) -> ForcedPlan | None:
    """Returns the decision of the kill switches; None if no switch is in force."""
    if not around.switches:
        return None
    plan = [around.targets[name] for name in allowed]
    return decide_plan(around.switches, route.name, plan)


def _exclude_for_request(
    target: str,
    needs: Needs,
    around: PlanContext,
    forced: ForcedPlan | None,
) -> Excluded | None:
    """Returns an exclusion of this request at this moment; None if the target may answer."""
    if target in around.keyless:
        return Excluded(target, ExclusionReason.KEY, "its provider has no key")
    if forced is not None and target not in forced.kept:
        return Excluded(target, ExclusionReason.SWITCH, forced.reason)
    lacks = missing_capabilities(needs, around.capabilities.get(target, UNKNOWN_CAPABILITIES))
    if lacks:
        return Excluded(target, ExclusionReason.CAPABILITY, f"lacks {', '.join(lacks)}")
    available = around.health.get(target, AVAILABLE)
    wait_s = available.retry_in_s
    if wait_s > 0:
        reason = f"its circuit is open, or it asked for a pause: {math.ceil(wait_s)} s to go"
        return Excluded(target, ExclusionReason.OPEN, reason, wait_s, available.held)
    return None


def _taking_turns(left_out: Sequence[Excluded], around: PlanContext) -> list[str]:
    """Lists the targets at which a request may wait for a turn."""
    return [
        excluded.target
        for excluded in left_out
        if excluded.held is SendHold.PAUSE
        and around.health.get(excluded.target, AVAILABLE).takes_turns
    ]


def _last_resort(left_out: Sequence[Excluded], around: PlanContext) -> str | None:
    """Chooses a target that only an open breaker excludes, the one whose last failure is
    oldest.

    None if the setting is to fail fast. A pause that a provider requested is kept.
    """
    if around.when_all_open is not WhenAllOpen.TRY:
        return None
    only_open = [
        excluded.target
        for excluded in left_out
        if excluded.because is ExclusionReason.OPEN
        and not around.health.get(excluded.target, AVAILABLE).keeps_pause
    ]

    def failed_at(target: str) -> float:
        at = around.health.get(target, AVAILABLE).failed_at
        return -math.inf if at is None else at

    return min(only_open, key=failed_at, default=None)


@dataclass(frozen=True, slots=True)
class KeepWarm:
    """How many requests keep fallbacks warm. Raises InputError above 10 %."""

    # Share of the route's requests for each warmed target (1 % is 100); 0 switches it off.
    share_bps: int = 100
    side_effects: bool = False  # whether tools have side effects; then fallbacks get no request

    def __post_init__(self) -> None:
        if not 0 <= self.share_bps <= MAX_KEEP_WARM_BPS:
            raise InputError(
                f"keep_warm: the share is 0 to {MAX_KEEP_WARM_BPS} bps (10 %), not "
                f"{self.share_bps}"
            )


def keep_warm_targets(route: Route, provider_of: Mapping[str, str]) -> tuple[str, ...]:
    """Lists the fallbacks to keep warm: one for each provider except the incumbent's.

    Requests of users warm the incumbent's provider anyway. Excludes the canary, and fallbacks
    that high stakes exclude.
    """
    first: dict[str, str] = {}
    for fallback in route.fallbacks:
        settings = route.settings
        if fallback in settings.capable or settings.stakes is not Stakes.HIGH:
            first.setdefault(provider_of[fallback], fallback)
    first.pop(provider_of[route.incumbent], None)
    canary = route.canary.target if route.canary else None
    return tuple(id_ for id_ in first.values() if id_ != canary)


def draw_keep_warm(
    key: str,
    *,
    route: str,
    day: date,
    targets: Sequence[str],
    healthy: Callable[[str], bool],
    setting: KeepWarm,
) -> str | None:
    """Selects the fallback that answers a request; None for almost all requests.

    key: the sticky key. A higher share keeps the selected keys, and selects more. The selection
    changes each day, so that no caller always meets a fallback.
    """
    if not targets or setting.side_effects or not setting.share_bps:
        return None
    width = BUCKETS // len(targets)
    slot, place = divmod(hash_bucket(key, salt=f"keep-warm:{route}:{day.isoformat()}"), width)
    if slot >= len(targets) or place >= setting.share_bps or not healthy(targets[slot]):
        return None
    return targets[slot]
