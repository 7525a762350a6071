"""Makes a route's plans while all targets are well, and charges arms with failures.

The rules of a plan are in `harness.routing.plan`. `router.request.planner` makes
the plan for a request that needs more, or for a target that is not well.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.frame.errors import SnapshotInvalid
from harness.frame.failures import CLIENT_FAILURES, UNCHARGED, FailureClass
from harness.providers.models.capabilities import Endpoint, Needs
from harness.providers.target import DataClasses, is_at_least_as_strict
from harness.routing.plan import PlanContext, RoutePlan, plan_request
from harness.routing.table import Arm, Route, list_predicates
from router.snapshot.compiled import CompiledRoute


def build_plans(
    route: Route, context: PlanContext
) -> Mapping[Endpoint, Mapping[Arm, RoutePlan]]:
    """Returns the plans by endpoint and arm for a request without special needs."""
    return {
        endpoint: {arm: plan_request(route, arm, Needs(endpoint), context) for arm in Arm}
        for endpoint in Endpoint
    }


def find_incumbent_plan(full_plan: RoutePlan, plan: RoutePlan) -> RoutePlan:
    """Returns the incumbent's own plan; if a switch is in force, only its targets in `plan`."""
    if plan.forced is None:
        return full_plan
    return replace(
        full_plan,
        targets=tuple(target for target in full_plan.targets if target in plan.targets),
    )


def is_arm_charged(arm: Arm, failures: Sequence[FailureClass | None]) -> bool:
    """Returns whether the arm failed.

    If only the arm's target rejects a request, the arm is charged, unless it is the incumbent.
    If all targets reject the request, no arm is charged.

    Args:
        failures: the last failure of each target, the arm's own first, None for an answer.
    """
    own_failure = failures[0] if failures else None
    if own_failure is None or own_failure in UNCHARGED:
        return False
    if own_failure in CLIENT_FAILURES:
        return arm is not Arm.INCUMBENT and failures[-1] is None
    return True


log = logging.getLogger(__name__)


def compile_overrides(
    route: CompiledRoute,
    routes: Mapping[str, CompiledRoute],
    classes: DataClasses,
) -> CompiledRoute:
    """Compiles a route's overrides.

    Raises SnapshotInvalid for an override that names a missing route.
    """
    overrides = route.route.settings.overrides
    if not overrides:
        return route
    for kind, name in overrides.items():
        if name not in routes:
            raise SnapshotInvalid(
                f"route {route.route.name!r} names route {name!r} for {kind} requests, "
                "which does not exist; the last good revision keeps serving"
            )
    compiled = {
        kind: _build_override(route, routes[name], kind, classes)
        for kind, name in overrides.items()
    }
    return replace(route, overrides=compiled, predicates=list_predicates(overrides))


def _build_override(
    route: CompiledRoute,
    served: CompiledRoute,
    kind: str,
    classes: DataClasses,
) -> CompiledRoute:
    """Returns the other route with the requested route's name in answers, and its switches.

    Args:
        kind: the override's predicate.
    """
    kind_header = (b"x-swapproof-kind", kind.encode())
    data_class = route.route.settings.data_class
    served_class = served.route.settings.data_class
    if not is_at_least_as_strict(classes, served_class, than=data_class):
        log.warning(
            "route %s answers no requests of kind %s: route %s is not as strict as "
            "data_classes.%s",
            route.route.name,
            kind,
            served.route.name,
            data_class,
        )
        served = _block_route(served)
    switches = (
        replace(switch, route=served.route.name)
        for switch in route.switches
        if switch.route is not None
    )
    return replace(
        served,
        json_name=route.json_name,
        headers={arm: (*header, kind_header) for arm, header in served.headers.items()},
        switches=(*served.switches, *switches),
    )


def _block_route(route: CompiledRoute) -> CompiledRoute:
    """Returns the route without a target that may answer, so that it sends nothing
    anywhere.
    """
    all_targets = frozenset(route.upstreams)
    quiet_route = replace(route.route, canary=None, holdback=None)
    return replace(
        route,
        route=quiet_route,
        plans=build_plans(quiet_route, PlanContext(barred=all_targets)),
        warmed=(),
        shadow=None,
        judge=None,
        barred=all_targets,
    )
