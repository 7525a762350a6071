"""A model's name, resolved among the providers that there are now."""

from collections.abc import Sequence

from harness.control.context import Context
from harness.domain.resolution import Resolution, resolve
from harness.domain.switches import Switch, in_force


def of(ctx: Context, name: str, *, standing: Sequence[Switch] = ()) -> Resolution:
    """standing: switches of the environment and the file, beside the stored ones."""
    with ctx.store.read() as tx:
        providers = tx.providers.all()
        switches = (*standing, *tx.switches.not_lifted())
    # A name belongs to no route: only a switch over all of them says anything about it.
    for_all = [each for each in in_force(switches, ctx.clock.now()) if each.route is None]
    return resolve(
        name,
        providers,
        catalogue=ctx.catalogue,
        forced=for_all[0].force if for_all else None,
    )
