"""Makes of a route the targets that planning uses, its plans for each endpoint and arm when all
targets are well, and the incumbent's plan; says whether an arm is charged with a request's
failures. Pure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.domain.reliability.failures import CLIENT_FAILURES, UNCHARGED, FailureClass
from harness.domain.routing.capabilities import Endpoint, Needs
from harness.domain.routing.plan import (
    ChainLink,
    PlanContext,
    RoutePlan,
    RouteTargets,
    plan_request,
)
from harness.domain.routing.table import Arm, OnContentPolicy, Route


def route_targets(route: Route) -> RouteTargets:
    settings = route.settings
    return RouteTargets(
        name=route.name,
        incumbent=route.incumbent,
        canary=route.canary.target if route.canary else None,
        holdback=route.holdback.target if route.holdback else None,
        chain=tuple(
            ChainLink(fallback, fallback in settings.capable) for fallback in route.fallbacks
        ),
        stakes=settings.stakes,
        policy_fallback=settings.on_content_policy is OnContentPolicy.FALLBACK,
    )


def build_plans(
    targets: RouteTargets, around: PlanContext
) -> Mapping[Endpoint, Mapping[Arm, RoutePlan]]:
    return {
        endpoint: {arm: plan_request(targets, arm, Needs(endpoint), around) for arm in Arm}
        for endpoint in Endpoint
    }


def incumbent_plan(well: RoutePlan, plan: RoutePlan) -> RoutePlan:
    """Returns the incumbent's own plan; where a switch rules, what it left of it in `plan`."""
    if plan.forced is None:
        return well
    return replace(
        well, targets=tuple(target for target in well.targets if target in plan.targets)
    )


def is_arm_charged(arm: Arm, failures: Sequence[FailureClass | None]) -> bool:
    """Tells whether the assigned arm failed, whatever answered in the end.

    failures: the last one of each target that was asked, the arm's own first, None for the one
    that answered. A guest that alone rejects a request is charged; a request that no target
    takes charges no arm, nor does one that refers to what another provider has made.
    """
    own = failures[0] if failures else None
    if own is None or own in UNCHARGED:
        return False
    if own in CLIENT_FAILURES:
        return arm is not Arm.INCUMBENT and failures[-1] is None
    return True
