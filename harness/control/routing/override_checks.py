"""Overrides (D6) against the whole table: what they name is there, and as strict."""

from collections.abc import Iterator

from harness.control.context import Context
from harness.domain.errors import SwapgateError
from harness.domain.routing.overrides import override_errors
from harness.domain.routing.table import RoutingTable
from harness.ports import Transaction


def check_overrides(ctx: Context, tx: Transaction, name: str) -> None:
    """Of the route's overrides as they are in `tx`, and of those that name it.

    Raises InputError for one that names its own route, NotFound for one that names none,
    NotAllowed where its data class is not as strict.
    """
    table = tx.routing.table()
    for route, other, error in _override_faults(ctx, table):
        if name in (route, other):
            raise error


def list_override_violations(ctx: Context) -> list[str]:
    """Overrides that the file does not allow (any more), in words."""
    with ctx.store.read() as tx:
        table = tx.routing.table()
    return [str(error) for _, _, error in _override_faults(ctx, table)]


def _override_faults(
    ctx: Context, table: RoutingTable
) -> Iterator[tuple[str, str, SwapgateError]]:
    """Route, the route that its override names, and the fault."""
    carried = {name: each.settings.data_class for name, each in table.routes.items()}
    for name, route in sorted(table.routes.items()):
        overrides = route.settings.overrides
        for kind, error in override_errors(name, overrides, carried, ctx.data_classes):
            yield name, overrides[kind], error
