"""Compiles a route's overrides (D6): for each kind of request that another route answers, a
copy of that route with the asked route's name and kill switches. An override that names no
route is refused; one that is less strict about data answers nothing.

Nothing of the other route is left out: its canary, chain, stakes and shadow, and its name in
all records.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace

from harness.domain.errors import SnapshotInvalid
from harness.domain.routing.overrides import RequestKind
from harness.domain.routing.plan import PlanContext
from harness.domain.routing.target import DataClasses, is_at_least_as_strict
from router.snapshot.compiled import CompiledRoute
from router.snapshot.route_plans import build_plans, route_targets

log = logging.getLogger(__name__)


def compile_overrides(
    route: CompiledRoute, routes: Mapping[str, CompiledRoute], classes: DataClasses
) -> CompiledRoute:
    """Puts a route's overrides in place. Raises SnapshotInvalid for one that names no route."""
    named = route.route.settings.overrides
    if not named:
        return route
    for kind, other in named.items():
        if other not in routes:
            raise SnapshotInvalid(
                f"route {route.route.name!r} names route {other!r} for {kind.value} requests, "
                "and there is none; the last good revision goes on serving"
            )
    found = {
        kind: _in_place_of(route, routes[other], kind, classes) for kind, other in named.items()
    }
    return replace(route, overrides=found)


def _in_place_of(
    route: CompiledRoute, served: CompiledRoute, kind: RequestKind, classes: DataClasses
) -> CompiledRoute:
    """`served` for requests of `route`: its targets, canary, limits and name in all records.

    `model` in answers is what was asked for, and switches of what was asked hold as well.
    """
    told = (b"x-swapgate-kind", kind.value.encode())
    data_class, own = route.route.settings.data_class, served.route.settings.data_class
    if not is_at_least_as_strict(classes, own, than=data_class):
        log.warning(
            "route %s answers nothing of kind %s: route %s is not as strict as data_classes.%s",
            route.route.name,
            kind.value,
            served.route.name,
            data_class,
        )
        served = _shut(served)
    switches = (
        replace(switch, route=served.route.name)
        for switch in route.switches
        if switch.route is not None
    )
    return replace(
        served,
        json_name=route.json_name,
        headers={arm: (*header, told) for arm, header in served.headers.items()},
        switches=(*served.switches, *switches),
    )


def _shut(route: CompiledRoute) -> CompiledRoute:
    """The route with every target barred, and without canary, shadow and judge."""
    all_ = frozenset(route.upstreams)
    quiet = replace(route.route, canary=None, holdback=None)
    targets, around = route_targets(quiet), PlanContext(barred=all_)
    return replace(
        route,
        route=quiet,
        targets=targets,
        plans=build_plans(targets, around),
        warmed=(),
        shadow=None,
        judge=None,
        barred=all_,
    )
