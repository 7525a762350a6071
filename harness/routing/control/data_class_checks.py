"""Checks which providers may see a route's traffic or a suite's items.

The configuration's `data_classes` names the providers of each class; data without a class may
go to any provider. Callers check before each use, not only at the registration, because a
provider may lose its permission. Routers check again for each request (`harness.routing.plan`).
"""

from collections.abc import Iterable

from harness.frame.errors import NotAllowed, NotFound
from harness.frame.suggestions import did_you_mean
from harness.providers.target import Target
from harness.routing.context import RoutingContext
from harness.routing.records.routes import Routing
from harness.routing.route_settings import RouteSettings


def check_targets(
    ctx: RoutingContext,
    settings: RouteSettings,
    targets: Iterable[Target],
    *,
    route: str,
) -> None:
    """Checks that targets may see a route's data.

    Raises NotAllowed for the first target whose provider may not see the route's data class.
    Raises NotFound for a class that the configuration does not have.
    """
    _check(ctx, f"route {route!r} carries", settings.data_class, targets)


def check_suite(
    ctx: RoutingContext,
    suite: str,
    targets: Iterable[Target],
) -> None:
    """Checks that targets may see a suite's items. Raises the errors of `check_targets`."""
    _check(ctx, f"suite {suite!r} has", ctx.suites.data_class(suite), targets)


def _check(
    ctx: RoutingContext,
    subject: str,
    data_class: str,
    targets: Iterable[Target],
) -> None:
    if not data_class:
        return
    if data_class not in ctx.data_classes:
        hint = did_you_mean(data_class, ctx.data_classes, otherwise=".")
        raise NotFound(
            f"there is no data class {data_class!r}{hint} Name its providers under "
            "`data_classes:` in swapproof.yaml"
        )
    allowed = ctx.data_classes[data_class]
    for target in targets:
        if target.provider not in allowed:
            raise NotAllowed(
                f"{subject} {data_class} data, and provider {target.provider!r} of "
                f"{target.name} may not see it; allowed are "
                f"{', '.join(sorted(allowed)) or 'none'} (`data_classes:` in the file)"
            )


def find_refusal(
    ctx: RoutingContext,
    settings: RouteSettings,
    *targets: Target,
    route: str,
) -> str:
    """Returns the reason why a target may not see a route's data; empty if all may."""
    try:
        check_targets(ctx, settings, targets, route=route)
    except (NotAllowed, NotFound) as error:
        return str(error)
    return ""


def list_violations(ctx: RoutingContext) -> list[str]:
    """Lists the routes with a target that may not see their data, as sentences for people.

    The configuration can change under a route, so `swapproof doctor` checks all routes.
    """
    with ctx.store.read() as tx:
        table = Routing(tx).table()
    targets_by_route = (
        (
            name,
            route.settings,
            [table.targets[target] for target in sorted(route.targets)],
        )
        for name, route in sorted(table.routes.items())
    )
    refusals = (
        find_refusal(ctx, settings, *targets, route=name)
        for name, settings, targets in targets_by_route
    )
    return [refusal for refusal in refusals if refusal]
