"""Checks data classes (D8): which providers may ever see a route's traffic or a suite's items.
`check_targets`, `check_suite` and `check_address` raise NotAllowed, `find_refusal` says why,
and `list_violations` names routes that break what the file says now.

The configuration file says it (`data_classes: {personal: [local, azure-eu]}`), and it alone
says where such a provider is. Whatever brings a target to a route asks here, and again before
each step: docs/how-to/data-classes.md has every place. Routers ask by themselves, last of all.
"""

from collections.abc import Iterable

from harness.control.context import Context
from harness.domain.errors import NotAllowed, NotFound
from harness.domain.routing.table import RouteSettings
from harness.domain.routing.target import Target, classes_of_provider
from harness.domain.suggestions import did_you_mean


def check_targets(
    ctx: Context, settings: RouteSettings, targets: Iterable[Target], *, route: str
) -> None:
    """Checks that the provider of each target may see the route's class of data. Raises
    NotAllowed for one that may not, NotFound for an unknown class.
    """
    if not settings.data_class:
        return
    allowed = _allowed(ctx, settings.data_class)
    for target in targets:
        if target.provider not in allowed:
            raise NotAllowed(
                f"route {route!r} carries {settings.data_class} data, and provider "
                f"{target.provider!r} of {target.name} may not see it; allowed are "
                f"{', '.join(sorted(allowed)) or 'none'} (`data_classes:` in the file)"
            )


def check_suite(ctx: Context, suite: str, targets: Iterable[Target]) -> None:
    """Checks that the provider of each target may see the suite's class of data. Raises
    NotAllowed for one that may not, NotFound for an unknown class.
    """
    data_class = ctx.suites.data_class(suite)
    if not data_class:
        return
    allowed = _allowed(ctx, data_class)
    for target in targets:
        if target.provider not in allowed:
            raise NotAllowed(
                f"suite {suite!r} has {data_class} data, and provider {target.provider!r} of "
                f"{target.name} may not see it; allowed are "
                f"{', '.join(sorted(allowed)) or 'none'} (`data_classes:` in the file)"
            )


def find_refusal(ctx: Context, settings: RouteSettings, target: Target, *, route: str) -> str:
    """Why the target may not see the route's traffic, in words; empty if it may."""
    try:
        check_targets(ctx, settings, [target], route=route)
    except (NotAllowed, NotFound) as error:
        return str(error)
    return ""


def check_address(ctx: Context, provider: str, before: str, after: str) -> None:
    """Refuses a new address for a provider that may see a class of data: only the file changes
    it, or else a name that was cleared would stand for another place. Raises NotAllowed.
    """
    classes = classes_of_provider(ctx.data_classes, provider)
    if classes and after != before:
        raise NotAllowed(
            f"provider {provider!r} may see {', '.join(classes)} data where it is now: change "
            f"`providers.{provider}.api_base` in swapgate.yaml, beside `data_classes:`, then "
            "`swapgate config apply`"
        )


def list_violations(ctx: Context) -> list[str]:
    """Routes that carry what the file does not allow (any more), in words."""
    with ctx.store.read() as tx:
        table = tx.routing.table()
    found = []
    for name, route in sorted(table.routes.items()):
        used = [table.targets[target] for target in sorted(route.targets)]
        try:
            check_targets(ctx, route.settings, used, route=name)
        except (NotAllowed, NotFound) as error:
            found.append(str(error))
    return found


def _allowed(ctx: Context, data_class: str) -> frozenset[str]:
    try:
        return ctx.data_classes[data_class]
    except KeyError:
        hint = did_you_mean(data_class, ctx.data_classes, otherwise=".")
        raise NotFound(
            f"there is no data class {data_class!r}{hint} Name its providers under "
            "`data_classes:` in swapgate.yaml"
        ) from None
