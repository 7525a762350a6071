"""Creates the file's providers and routes in the database, and lists the differences.

The file never changes an existing route, because that would swap a model without proof.
`swapproof config apply` lists the differences.
"""

from dataclasses import dataclass, replace
from typing import Final

from harness.app.configuration.model import Settings
from harness.frame.configuration.source_locations import parse_file
from harness.frame.cron import check_cron
from harness.frame.errors import InputError
from harness.frame.people.access import SYSTEM, Actor, Role
from harness.frame.records.transaction import Transaction
from harness.frame.suggestions import did_you_mean
from harness.operations.context import Context
from harness.providers.records import Providers, Targets
from harness.providers.registry import named_models, targets
from harness.providers.target import Provider
from harness.routing.control import data_class_checks, routes, vector_checks
from harness.routing.records.preload import Preload
from harness.routing.records.routes import Routing
from harness.routing.route_changes import CreateRoute
from harness.routing.route_settings import RouteSettings, Stakes
from harness.routing.settings import RouteSeed
from harness.routing.table import Route, RoutingTable

APPLY_STEP: Final = "`swapproof config apply`"


@dataclass(frozen=True, slots=True)
class SeedDifference:
    """A difference between file and database. next_step: the advice for the person who reads
    it.
    """

    subject: str  # `route support`
    found: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.found}; {self.next_step}"


@dataclass(frozen=True, slots=True)
class FileApplied:
    """The result of `apply_file`. not_taken: differences that remain."""

    changed: tuple[str, ...]  # providers that existed
    created: tuple[str, ...]  # routes
    not_taken: tuple[SeedDifference, ...]
    added: tuple[str, ...] = ()  # new providers


def apply_seed(ctx: Context, settings: Settings) -> list[str]:
    """Adds the file's new providers, prices and routes to the database. Returns descriptions of
    the additions. Raises NotFound for an unknown suite or provider.
    """
    added = []
    with ctx.store.read() as tx:
        known_routes = set(Routing(tx).table().routes)
        providers = set(Providers(tx).all())
    for name, provider in settings.providers.items():
        if name not in providers:
            targets.put_provider(ctx, SYSTEM, provider)
            added.append(f"provider {name}")
    added += _fill_prices(ctx)
    new = []
    for name, route in settings.routes.items():
        if name in known_routes:
            continue
        fault = _find_schedule_fault(route.settings)
        # The route serves without its candidates' schedule, because a faulty line must not stop
        # the route.
        new.append(
            replace(route, settings=replace(route.settings, candidates=None))
            if fault
            else route
        )
        added.append(f"route {name}, without candidates: {fault}" if fault else f"route {name}")
    _create_routes(ctx, SYSTEM, new)
    return added


def _find_schedule_fault(settings: RouteSettings) -> str:
    """Describes the fault of the candidates' cron expression; empty without a fault."""
    try:
        if settings.candidates is not None:
            check_cron(settings.candidates.every)
    except InputError as error:
        return str(error)
    return ""


def list_cold_fallback_routes(table: RoutingTable) -> list[str]:
    """Lists the routes whose fallbacks at another provider get no requests until the
    incumbent fails. Omits routes that send a share of requests to their fallbacks
    (`keep_warm_bps`), and routes whose requests have side effects.
    """

    def has_another_provider(route: Route) -> bool:
        has_high_stakes = route.settings.stakes is Stakes.HIGH
        answering_fallbacks = route.settings.capable if has_high_stakes else route.fallbacks
        incumbent_provider = table.targets[route.incumbent].provider
        return any(
            table.targets[id_].provider != incumbent_provider for id_ in answering_fallbacks
        )

    return [
        route.name
        for route in table.routes.values()
        if not (route.settings.keep_warm_bps or route.settings.side_effects)
        and has_another_provider(route)
    ]


def _create_routes(
    ctx: Context,
    actor: Actor,
    requested: list[RouteSeed],
) -> None:
    """Creates the routes in one transaction. Routes may name one another, so a router must see
    all new routes at once.
    """
    # `_check_settings` adds the suites' present digests: a file that names a suite accepts its
    # content.
    new = [replace(route, settings=_check_settings(ctx, route)) for route in requested]
    if not new:
        return
    with ctx.store.write() as tx:
        for route in new:
            _create_route(ctx, tx, actor, route)
        for route in new:
            routes.check_overrides(ctx, tx, route.name)


def _check_settings(ctx: Context, route: RouteSeed) -> RouteSettings:
    try:
        return routes.check_settings(ctx, route.settings)
    except InputError as error:
        raise InputError(f"route {route.name}: {error}") from None


def _create_route(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    route: RouteSeed,
) -> None:
    incumbent = targets.register_target(ctx, tx, actor, route.incumbent)
    chain = [targets.register_target(ctx, tx, actor, fallback) for fallback in route.fallbacks]
    data_class_checks.check_targets(ctx, route.settings, [incumbent, *chain], route=route.name)
    vector_checks.check_vectors(ctx, tx, route.name, route.settings, incumbent, chain)
    routes.store_pins(ctx, tx, route.settings)
    fallbacks = tuple(target.id for target in chain)
    change = CreateRoute(route.name, incumbent.id, fallbacks, route.settings)
    reason = "seeded from the configuration file"
    routes.commit(tx, actor, change, 0, reason, action="route.create")


def _fill_prices(ctx: Context) -> list[str]:
    """Stores prices that a new catalogue has and stored providers lack. Returns
    descriptions.
    """
    with ctx.store.write() as tx:
        return [
            f"prices of provider {name}"
            for name, provider in Providers(tx).all().items()
            if targets.store_prices(
                ctx, tx, SYSTEM, provider, targets.list_used_models(ctx, tx, provider)
            )
        ]


def apply_providers(
    ctx: Context,
    actor: Actor,
    settings: Settings,
    reason: str = "",
) -> list[str]:
    """Applies the file's providers. Raises InputError for a new address without a reason."""
    with ctx.store.read() as tx:
        stored = Providers(tx).all()
        wanted_providers = {
            name: _add_prices(ctx, tx, provider, stored.get(name))
            for name, provider in settings.providers.items()
        }
    changed = [
        name
        for name, provider in wanted_providers.items()
        if not targets.has_same_values(ctx, stored.get(name), provider)
    ]
    for name in changed:
        targets.put_provider(ctx, actor, wanted_providers[name], reason)
    return changed


def _add_prices(
    ctx: Context,
    tx: Transaction,
    file_entry: Provider,
    stored: Provider | None,
) -> Provider:
    """Adds listed prices to a provider of the file, and stored prices that no list has: a
    person set them by a command.
    """
    filled = targets.add_missing_prices(ctx, tx, file_entry)
    stored_prices = stored.prices if stored else {}
    if not stored_prices.keys() - filled.prices.keys():
        return filled
    return replace(filled, prices={**stored_prices, **filled.prices})


def apply_file(
    ctx: Context,
    actor: Actor,
    settings: Settings,
    reason: str = "",
) -> FileApplied:
    """Applies the providers, and creates new routes. Does not change existing routes.

    Raises ConfigError, before a change, if a route names an unknown suite, policy or provider.
    """
    actor.require(Role.ADMIN)
    _check_names(ctx, settings)
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
    changed = apply_providers(ctx, actor, settings, reason)
    with ctx.store.read() as tx:
        known_routes = set(Routing(tx).table().routes)
        new = [route for name, route in settings.routes.items() if name not in known_routes]
        for target in (
            listed_target
            for route in new
            for listed_target in (route.incumbent, *route.fallbacks)
        ):
            named_models.require_listed(ctx, tx, target)
    _create_routes(ctx, actor, new)
    return FileApplied(
        tuple(name for name in changed if name in providers),
        tuple(route.name for route in new),
        tuple(list_seed_differences(ctx, settings)),
        tuple(name for name in changed if name not in providers),
    )


def _check_names(ctx: Context, settings: Settings) -> None:
    """Checks the names in the file's routes. Raises ConfigError with the place of the fault."""
    if settings.source is None:
        return
    with ctx.store.read() as tx:
        providers = {*Providers(tx).all(), *settings.providers}
    document = parse_file(settings.source)
    for name, route in settings.routes.items():
        route_settings = route.settings
        named_values = [
            (("policy",), "policy", route_settings.policy, ctx.policies),
            *(
                (("suites", number), "suite", route_suite.suite, ctx.suites.names())
                for number, route_suite in enumerate(route_settings.suites)
            ),
            (
                ("incumbent",),
                "provider",
                route.incumbent.provider,
                providers,
            ),
            *(
                (
                    ("fallbacks", number),
                    "provider",
                    fallback.provider,
                    providers,
                )
                for number, fallback in enumerate(route.fallbacks)
            ),
        ]
        for path, kind, name_in_file, valid_names in named_values:
            if name_in_file not in valid_names:
                listed_names = f"; there are: {', '.join(sorted(valid_names)) or 'none'}"
                hint = did_you_mean(name_in_file, valid_names, otherwise=listed_names)
                fault = f"there is no {kind} {name_in_file!r}{hint}"
                raise document.error(("routes", name, *path), fault)


def list_seed_differences(ctx: Context, settings: Settings) -> list[SeedDifference]:
    """Lists the file's providers and routes that differ from the database. Ignores
    providers and routes that only the database has.
    """
    differences = []
    with ctx.store.read() as tx:
        Preload(tx).routes(settings.routes)
        stored = {name: Routing(tx).route(name) for name in settings.routes}
        names = {id_: target.name for id_, target in Targets(tx).all().items()}
        providers = Providers(tx).all()
        wanted_providers = {
            name: _add_prices(ctx, tx, provider, providers.get(name))
            for name, provider in settings.providers.items()
        }
    for name, provider in wanted_providers.items():
        # Ignores prices that Swapproof read from the provider's list, and that the file lacks.
        unpriced = settings.providers[name]
        if name in providers and not any(
            targets.has_same_values(ctx, providers[name], file_entry)
            for file_entry in (provider, unpriced)
        ):
            finding = "the file differs from the database"
            next_step = f"{APPLY_STEP} applies the file"
            differences.append(SeedDifference(f"provider {name}", finding, next_step))
    for name, file_entry in settings.routes.items():
        route = stored[name]
        if route is None:
            finding = "in the file, not in the database"
            next_step = f"{APPLY_STEP} creates it"
            differences.append(SeedDifference(f"route {name}", finding, next_step))
            continue
        if file_entry.incumbent.id != route.incumbent:
            differences.append(_describe_model_difference(file_entry, names[route.incumbent]))
        differences += _describe_settings_difference(file_entry, route)
    return differences


def _describe_model_difference(file_route: RouteSeed, serving: str) -> SeedDifference:
    """Describes that the file has another incumbent than the database, for example after a
    swap.
    """
    model = f"{file_route.incumbent.provider}/{file_route.incumbent.model}"
    return SeedDifference(
        f"route {file_route.name}",
        f"the file has {model}, the database {serving}",
        f"the database applies: write {serving} into the file, or propose the swap with "
        f"`swapproof proposal create {file_route.name} {model}`",
    )


def _describe_settings_difference(file_route: RouteSeed, route: Route) -> list[SeedDifference]:
    """Describes all settings that differ, as one difference. Empty for equal settings."""
    names = []
    if tuple(fallback.id for fallback in file_route.fallbacks) != route.fallbacks:
        names.append("fallbacks")
    file_settings = file_route.settings
    stored_settings = route.settings
    fields = RouteSettings.__dataclass_fields__
    names += [
        name
        for name in fields
        # The file has no entry for `proven`, which the control process writes.
        if name != "proven" and getattr(file_settings, name) != getattr(stored_settings, name)
    ]
    finding = f"file and database differ in {', '.join(names)}"
    next_step = "`swapproof route settings` and `swapproof route fallback` change the database"
    return [SeedDifference(f"route {route.name}", finding, next_step)] if names else []
