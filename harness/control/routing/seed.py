"""Puts the configuration file's providers and routes into the database at every start
(`apply_seed`): those that are missing there, and prices that were unknown.
`list_seed_differences` says where the file differs from the database, for `doctor`;
`apply_providers` (`swapgate config apply`) makes the database's providers what the file says.
"""

from dataclasses import replace

from harness.control import audit
from harness.control.context import Context
from harness.control.providers import provider_secrets
from harness.control.routing import data_class_checks, routes, targets
from harness.domain.operations.access import SYSTEM, Actor
from harness.domain.routing.route_changes import CreateRoute
from harness.domain.routing.table import Route, RouteSettings
from harness.domain.settings import RouteSeed, Settings
from harness.ports import Transaction


def apply_seed(ctx: Context, settings: Settings) -> list[str]:
    """Returns what was added, in words. Raises NotFound for an unknown suite or provider."""
    added = [
        f"encryption of {name}'s headers"
        for name in provider_secrets.encrypt_stored_headers(ctx)
    ]
    with ctx.store.read() as tx:
        known, providers = set(tx.routing.table().routes), set(tx.providers.all())
    for name, provider in settings.providers.items():
        if name not in providers:
            targets.put_provider(ctx, SYSTEM, provider)
            added.append(f"provider {name}")
    added += _fill_prices(ctx)
    new = [route for name, route in settings.routes.items() if name not in known]
    # With the digests of its suites: the file's word accepts what they hold now.
    new = [replace(route, settings=routes.check_settings(ctx, route.settings)) for route in new]
    if new:
        # At once: one may name another as an override, and no router sees half of them.
        with ctx.store.write() as tx:
            for route in new:
                _create(ctx, tx, route)
            for route in new:
                routes.check_overrides(ctx, tx, route.name)
    return [*added, *(f"route {route.name}" for route in new)]


def _create(ctx: Context, tx: Transaction, route: RouteSeed) -> None:
    now = ctx.clock.now()
    first = targets.register_target(ctx, tx, SYSTEM, route.incumbent)
    chain = [targets.register_target(ctx, tx, SYSTEM, fallback) for fallback in route.fallbacks]
    data_class_checks.check_targets(ctx, route.settings, [first, *chain], route=route.name)
    routes.store_pins(ctx, tx, route.settings)
    change = CreateRoute(
        route.name, first.id, tuple(target.id for target in chain), route.settings
    )
    revision = tx.routing.commit(
        change,
        expected_version=0,
        actor=SYSTEM.name,
        reason="seeded from the configuration file",
        now=now,
    )
    audit.record(
        ctx,
        tx,
        SYSTEM,
        "route.create",
        f"route {route.name}",
        {"revision": revision, "reason": "configuration file"},
    )


def _fill_prices(ctx: Context) -> list[str]:
    """Prices that were unknown when a model was registered, and that the catalogue has now."""
    with ctx.store.read() as tx:
        known = tx.providers.all()
        lacking = [
            provider
            for provider in known.values()
            if targets.with_prices(ctx, tx, provider) != provider
        ]
    for provider in lacking:
        targets.put_provider(ctx, SYSTEM, provider)
    return [f"prices of provider {provider.name}" for provider in lacking]


def apply_providers(
    ctx: Context, actor: Actor, settings: Settings, reason: str = ""
) -> list[str]:
    """Make the database's providers what the file says. Returns the names of the changed.

    Raises InputError without a reason to move one that a route uses.
    """
    with ctx.store.read() as tx:
        known = tx.providers.all()
        changed = [
            name
            for name, provider in settings.providers.items()
            if not targets.same(ctx, known.get(name), targets.with_prices(ctx, tx, provider))
        ]
    for name in changed:
        targets.put_provider(ctx, actor, settings.providers[name], reason)
    return changed


def list_seed_differences(ctx: Context, settings: Settings) -> list[str]:
    """Where the file says something else than the database, which rules."""
    found = []
    with ctx.store.read() as tx:
        table, providers = tx.routing.table(), tx.providers.all()
        wanted_providers = {
            name: targets.with_prices(ctx, tx, provider)
            for name, provider in settings.providers.items()
        }
    for name, provider in wanted_providers.items():
        if name in providers and not targets.same(ctx, providers[name], provider):
            found.append(
                f"provider {name}: the file differs from the database; "
                "`swapgate config apply` takes the file's"
            )
    for name, wanted in settings.routes.items():
        route = table.routes.get(name)
        if route is None:
            found.append(f"route {name}: in the file, not in the database")
        elif wanted.incumbent.target.id != route.incumbent:
            serving = table.targets[route.incumbent].name
            found.append(
                f"route {name}: the file says {wanted.incumbent.provider}/"
                f"{wanted.incumbent.model}, the database {serving}"
            )
        if route is not None:
            found += _otherwise(wanted, route)
    return found


def _otherwise(wanted: RouteSeed, route: Route) -> list[str]:
    """Chain and settings: people change them with `swapgate route fallback` and `settings`."""
    said = []
    if tuple(fallback.target.id for fallback in wanted.fallbacks) != route.fallbacks:
        said.append("fallbacks")
    fields = RouteSettings.__dataclass_fields__
    ours, theirs = wanted.settings, route.settings
    said += [name for name in fields if getattr(ours, name) != getattr(theirs, name)]
    if not said:
        return []
    words = (
        f"route {route.name}: file and database differ in {', '.join(said)}; "
        "`swapgate route settings` and `swapgate route fallback` change the database"
    )
    return [words]
