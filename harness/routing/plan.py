"""A route plan: the targets that may answer a request, in order, and the excluded ones. Pure.

A target's exclusion has the first reason that applies: data class, stakes, a missing key, a
switch, capabilities, an open breaker. `draw_keep_warm` sends a share of requests to fallbacks,
to test that they work.

The router makes one plan for each request; `router.request.dispatch` follows it.
`harness.routing.table` chose the arm before.
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
    # Why the router calls the target less or not at all, although the target did not fail.
    held: SendHold | None = None
    # The provider's pause only slows the target: a request may wait for its turn.
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


# These reasons exclude a target from every request, until an operator removes their cause.
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
        """Whether no target may answer now, but an excluded target may answer later (503 with
        Retry-After).
        """
        return not self.targets and any(
            excluded.because is ExclusionReason.OPEN for excluded in self.left_out
        )

    @property
    def unable(self) -> bool:
        """Tells whether no target may answer, and a missing capability is a cause.

        False if an open breaker or an operator's setting is a cause too, because then the same
        request may succeed later.
        """
        return (
            not self.targets
            and not (
                self.all_open
                or any(excluded.because in OPERATOR_REASONS for excluded in self.left_out)
            )
            and any(
                excluded.because is ExclusionReason.CAPABILITY for excluded in self.left_out
            )
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
        """The exclusion of `guest`; None if the plan has it. It counts as the guest's failure,
        unless a switch is the cause.
        """
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

    Args:
        now: monotonic seconds.
        slowdown: after its provider requested a pause; None without one.
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
    """Returns the target to try before the incumbent: the keep-warm target, or else the arm's
    target; None for neither.
    """
    arm_target = {Arm.CANARY: route.canary, Arm.HOLDBACK: route.holdback}.get(arm)
    return warm or (arm_target.target if arm_target is not None else None)


def order_targets(route: Route, guest: str | None) -> tuple[str, ...]:
    """Returns the targets in order: guest, incumbent, fallbacks. During a bake, the previous
    incumbent precedes the fallbacks.
    """
    guest_first = (guest,) if guest else ()
    previous_incumbent = (route.holdback.target,) if route.holdback else ()
    return tuple(
        dict.fromkeys(
            (
                *guest_first,
                route.incumbent,
                *previous_incumbent,
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

    Args:
        arm: the caller's arm, chosen before.
        needs: the capabilities that the request needs.
        around: health, switches and keys at this moment.
        warm: the fallback that `draw_keep_warm` selected for this request, or None.

    If every target is excluded, the request waits for a turn at a slowed target. Without a
    slowed target, a target that only an open breaker excludes may be the last resort.
    """
    guest = preferred_target(route, arm, warm)
    ordered = order_targets(route, guest)
    incapable = _list_incapable_fallbacks(route, guest)
    never_allowed = incapable | around.keyless | around.barred
    forced = _force_plan(route, [id_ for id_ in ordered if id_ not in never_allowed], around)
    targets: list[str] = []
    left_out: list[Excluded] = []
    for target in ordered:
        exclusion = _exclude_for_route(target, incapable, around) or _exclude_for_request(
            target, needs, around, forced
        )
        if exclusion is None:
            targets.append(target)
        else:
            left_out.append(exclusion)
    targets = targets or _list_targets_with_turns(left_out, around)
    last_resort = None if targets else _choose_last_resort(left_out, around)
    if last_resort is not None:
        targets = [last_resort]
    left_out = [excluded for excluded in left_out if excluded.target not in targets]
    plan_capabilities = tuple(
        around.capabilities.get(target, UNKNOWN_CAPABILITIES) for target in targets
    )
    return RoutePlan(
        incumbent=route.incumbent,
        guest=guest,
        targets=tuple(targets),
        left_out=tuple(left_out),
        last_resort=last_resort is not None,
        serialize_tools=must_serialize_tools(needs, plan_capabilities),
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

    Args:
        failures: of this request so far, in order; not empty.
        policy_fallback: whether the route tries the next target after a content filter's
            refusal.

    A target whose window was too small excludes later targets whose window is not larger.
    """
    last_failure = failures[-1]
    later = plan.targets[plan.targets.index(last_failure.target) + 1 :]
    if last_failure.unable:
        return next(iter(later), None)
    if last_failure.failure in CLIENT_FAILURES and last_failure.target == plan.guest:
        # The incumbent may accept a request that the guest refuses, so the router tries it
        # once.
        return plan.incumbent if plan.incumbent in later else None
    rule = FAILURE_RULES[last_failure.failure].next_target
    if rule is NextTarget.NO or (rule is NextTarget.IF_ROUTE_SAYS and not policy_fallback):
        return None
    too_small = [
        capabilities.get(failure.target, UNKNOWN_CAPABILITIES)
        for failure in failures
        if FAILURE_RULES[failure.failure].needs_larger_window and failure.target != plan.guest
    ]
    candidates = (
        target
        for target in later
        if all(
            capabilities.get(target, UNKNOWN_CAPABILITIES).larger_than(window)
            for window in too_small
        )
    )
    return next(candidates, None)


def _list_incapable_fallbacks(route: Route, guest: str | None) -> frozenset[str]:
    """Returns the fallbacks that high stakes exclude, because no person marked them as
    capable.
    """
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
    incapable: frozenset[str],
    context: PlanContext,
) -> Excluded | None:
    """Returns an exclusion that holds for every request of the route; None without one."""
    if target in context.barred:
        reason = "its provider may not see this route's class of data"
        return Excluded(target, ExclusionReason.DATA_CLASS, reason)
    if target in incapable:
        reason = "the stakes are high and it is not marked capable"
        return Excluded(target, ExclusionReason.STAKES, reason)
    return None


def _force_plan(
    route: Route,
    allowed: Sequence[str],
    context: PlanContext,
) -> ForcedPlan | None:
    """Returns the decision of the kill switches; None if no switch is in force."""
    if not context.switches:
        return None
    plan = [context.targets[name] for name in allowed]
    return decide_plan(context.switches, route.name, plan)


def _exclude_for_request(
    target: str,
    needs: Needs,
    context: PlanContext,
    forced: ForcedPlan | None,
) -> Excluded | None:
    """Returns an exclusion of this request at this moment; None if the target may answer."""
    if target in context.keyless:
        return Excluded(target, ExclusionReason.KEY, "its provider has no key")
    if forced is not None and target not in forced.kept:
        return Excluded(target, ExclusionReason.SWITCH, forced.reason)
    missing = missing_capabilities(
        needs, context.capabilities.get(target, UNKNOWN_CAPABILITIES)
    )
    if missing:
        return Excluded(target, ExclusionReason.CAPABILITY, f"lacks {', '.join(missing)}")
    availability = context.health.get(target, AVAILABLE)
    wait_s = availability.retry_in_s
    if wait_s > 0:
        reason = f"its circuit is open, or it asked for a pause: {math.ceil(wait_s)} s to go"
        return Excluded(target, ExclusionReason.OPEN, reason, wait_s, availability.held)
    return None


def _list_targets_with_turns(left_out: Sequence[Excluded], context: PlanContext) -> list[str]:
    """Lists the targets at which a request may wait for a turn."""
    return [
        excluded.target
        for excluded in left_out
        if excluded.held is SendHold.PAUSE
        and context.health.get(excluded.target, AVAILABLE).takes_turns
    ]


def _choose_last_resort(left_out: Sequence[Excluded], context: PlanContext) -> str | None:
    """Chooses the target with the oldest last failure among the targets that only an open
    breaker excludes.

    None if the setting is to fail fast. Never chooses a target during a pause that its provider
    requested.
    """
    if context.when_all_open is not WhenAllOpen.TRY:
        return None
    only_open = [
        excluded.target
        for excluded in left_out
        if excluded.because is ExclusionReason.OPEN
        and not context.health.get(excluded.target, AVAILABLE).keeps_pause
    ]

    def failed_at(target: str) -> float:
        at = context.health.get(target, AVAILABLE).failed_at
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

    The incumbent's provider gets requests anyway. The list omits the canary, and fallbacks that
    high stakes exclude.
    """
    fallback_by_provider: dict[str, str] = {}
    for fallback in route.fallbacks:
        settings = route.settings
        if fallback in settings.capable or settings.stakes is not Stakes.HIGH:
            fallback_by_provider.setdefault(provider_of[fallback], fallback)
    fallback_by_provider.pop(provider_of[route.incumbent], None)
    canary = route.canary.target if route.canary else None
    return tuple(id_ for id_ in fallback_by_provider.values() if id_ != canary)


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

    Args:
        key: the sticky key.

    A higher share keeps the selected keys, and selects further keys. The selection changes each
    day, so that no caller always gets a fallback.
    """
    if not targets or setting.side_effects or not setting.share_bps:
        return None
    width = BUCKETS // len(targets)
    index, position = divmod(
        hash_bucket(key, salt=f"keep-warm:{route}:{day.isoformat()}"), width
    )
    if index >= len(targets) or position >= setting.share_bps or not healthy(targets[index]):
        return None
    return targets[index]
