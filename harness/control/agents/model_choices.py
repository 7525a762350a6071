"""Reads the model that a client names: a route, `auto` for a route, or a literal model, whose
name is resolved as everywhere.
"""

from collections.abc import Sequence

from harness.control.context import Context
from harness.control.providers import model_lookup
from harness.domain.agents.model_choice import (
    ModelChoice,
    literal_choice,
    parse_routed_choice,
)
from harness.domain.errors import NotFound
from harness.domain.routing.kill_switch import KillSwitch


def read_model_choice(
    ctx: Context, text: str, *, standing: Sequence[KillSwitch] = ()
) -> ModelChoice:
    """Raises NotFound for a name that neither a route nor a configured provider has, InputError
    for an `auto` without its route. standing: switches of the environment and the file.
    """
    with ctx.store.read() as tx:
        routes = frozenset(tx.routing.table().routes)
    routed = parse_routed_choice(text, routes, default_route=ctx.agents.auto_route)
    if routed is not None:
        return routed
    resolution = model_lookup.resolve_model(ctx, text.strip(), standing=standing)
    if resolution.target is None:
        named = ", ".join(sorted(routes)[:10]) or "none"
        raise NotFound(
            f"model: nobody serves {text[:100]!r} ({resolution.reason}); routes are: {named}",
            code="model_not_found",
        )
    return literal_choice(text, resolution.target)
