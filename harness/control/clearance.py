"""Data classes (D8): which providers may ever see a route's traffic.

The configuration file says it (`data_classes: {personal: [local, azure-eu]}`). Whatever brings
a target to a route asks here: creating it, its settings, its chain (and so keep-warm, which
draws from the chain), a proposal (and so canary and evals), going back.
"""

import difflib
from collections.abc import Iterable

from harness.control.context import Context
from harness.domain.errors import NotAllowed, NotFound
from harness.domain.routing import RouteSettings
from harness.domain.targets import Target


def check(
    ctx: Context, settings: RouteSettings, targets: Iterable[Target], *, route: str
) -> None:
    """Raises NotAllowed for a target whose provider may not, NotFound for an unknown class."""
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
    """Its data go to no provider that may not see their class. Raises as `check`."""
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


def violations(ctx: Context) -> list[str]:
    """Routes that carry what the file does not allow (any more), in words."""
    with ctx.store.read() as tx:
        table = tx.routing.table()
    found = []
    for name, route in sorted(table.routes.items()):
        used = [table.targets[each] for each in sorted(route.targets)]
        try:
            check(ctx, route.settings, used, route=name)
        except (NotAllowed, NotFound) as error:
            found.append(str(error))
    return found


def _allowed(ctx: Context, data_class: str) -> frozenset[str]:
    try:
        return ctx.data_classes[data_class]
    except KeyError:
        near = difflib.get_close_matches(data_class, ctx.data_classes, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise NotFound(
            f"there is no data class {data_class!r}{hint} Name its providers under "
            "`data_classes:` in swapgate.yaml"
        ) from None
