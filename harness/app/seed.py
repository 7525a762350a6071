"""Creates the file's providers and routes in the database, and lists the differences.

After its creation a route belongs to the database: the file never changes it, because that
would swap a model without proof. `swapgate config apply` says what differs.
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
from harness.routing.control import data_class_checks, routes, vector_checks
from harness.routing.records.preload import Preload
from harness.routing.records.routes import Routing
from harness.routing.route_changes import CreateRoute
from harness.routing.route_settings import RouteSettings, Stakes
from harness.routing.settings import RouteSeed
from harness.routing.table import Route, RoutingTable

APPLY_STEP: Final = "`swapgate config apply`"


@dataclass(frozen=True, slots=True)
class SeedDifference:
    """A difference between file and database. next_step: what a person can do about it."""

    subject: str  # `route support`
    found: str
    next_step: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.found}; {self.next_step}"


@dataclass(frozen=True, slots=True)
class FileApplied:
    """The result of `apply_file`. not_taken: differences that remain."""

    changed: tuple[str, ...]  # providers
    created: tuple[str, ...]  # routes
    not_taken: tuple[SeedDifference, ...]


def apply_seed(ctx: Context, settings: Settings) -> list[str]:
    """Returns descriptions of the additions. Raises NotFound for an unknown suite or
    provider.
    """
    added = []
    with ctx.store.read() as tx:
        known = set(Routing(tx).table().routes)
        providers = set(Providers(tx).all())
    for name, provider in settings.providers.items():
        if name not in providers:
            targets.put_provider(ctx, SYSTEM, provider)
            added.append(f"provider {name}")
    added += _fill_prices(ctx)
    new = []
    for name, route in settings.routes.items():
        if name in known:
            continue
        fault = _schedule_fault(route.settings)
        # The route serves without candidates, because a faulty line must stop nothing else.
        new.append(
            replace(route, settings=replace(route.settings, candidates=None))
            if fault
            else route
        )
        added.append(f"route {name}, without candidates: {fault}" if fault else f"route {name}")
    _create_all(ctx, SYSTEM, new)
    return added


def _schedule_fault(settings: RouteSettings) -> str:
    """Describes the fault of a candidate schedule's times; empty without one."""
    try:
        if settings.candidates is not None:
            check_cron(settings.candidates.every)
    except InputError as error:
        return str(error)
    return ""


def list_not_warm(table: RoutingTable) -> list[str]:
    """Lists the routes whose fallbacks at another provider get no requests until the incumbent
    fails.

    Leaves out routes that keep a share warm, and routes whose requests have side effects.
    """

    def has_another_provider(route: Route) -> bool:
        high = route.settings.stakes is Stakes.HIGH
        warmed = route.settings.capable if high else route.fallbacks
        own = table.targets[route.incumbent].provider
        return any(table.targets[id_].provider != own for id_ in warmed)

    return [
        route.name
        for route in table.routes.values()
        if not (route.settings.keep_warm_bps or route.settings.side_effects)
        and has_another_provider(route)
    ]


def _create_all(
    ctx: Context,
    actor: Actor,
    wanted: list[RouteSeed],
) -> None:
    """Creates the routes in one transaction: they may name one another, so a router must see
    all of them or none.
    """
    # `_check` adds the suites' present digests: a file that names a suite accepts its content.
    new = [replace(route, settings=_check(ctx, route)) for route in wanted]
    if not new:
        return
    with ctx.store.write() as tx:
        for route in new:
            _create(ctx, tx, actor, route)
        for route in new:
            routes.check_overrides(ctx, tx, route.name)


def _check(ctx: Context, route: RouteSeed) -> RouteSettings:
    try:
        return routes.check_settings(ctx, route.settings)
    except InputError as error:
        raise InputError(f"route {route.name}: {error}") from None


def _create(
    ctx: Context,
    tx: Transaction,
    actor: Actor,
    route: RouteSeed,
) -> None:
    first = targets.register_target(ctx, tx, actor, route.incumbent)
    chain = [targets.register_target(ctx, tx, actor, fallback) for fallback in route.fallbacks]
    data_class_checks.check_targets(ctx, route.settings, [first, *chain], route=route.name)
    vector_checks.check_vectors(ctx, tx, route.name, route.settings, first, chain)
    routes.store_pins(ctx, tx, route.settings)
    fallbacks = tuple(target.id for target in chain)
    change = CreateRoute(route.name, first.id, fallbacks, route.settings)
    why = "seeded from the configuration file"
    routes.commit(tx, actor, change, 0, why, action="route.create")


def _fill_prices(ctx: Context) -> list[str]:
    """Adds known prices to stored providers that lack them. Returns descriptions."""
    with ctx.store.read() as tx:
        known = Providers(tx).all().values()
        lacking = [one for one in known if targets.add_missing_prices(ctx, tx, one) != one]
    for provider in lacking:
        targets.put_provider(ctx, SYSTEM, provider)
    return [f"prices of provider {provider.name}" for provider in lacking]


def apply_providers(
    ctx: Context,
    actor: Actor,
    settings: Settings,
    reason: str = "",
) -> list[str]:
    """Applies the file's providers. Raises InputError for a new address without a reason."""
    with ctx.store.read() as tx:
        known = Providers(tx).all()
        changed = [
            name
            for name, provider in settings.providers.items()
            if not targets.has_same_values(
                ctx, known.get(name), targets.add_missing_prices(ctx, tx, provider)
            )
        ]
    for name in changed:
        targets.put_provider(ctx, actor, settings.providers[name], reason)
    return changed


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
    changed = apply_providers(ctx, actor, settings, reason)
    with ctx.store.read() as tx:
        known = set(Routing(tx).table().routes)
        new = [route for name, route in settings.routes.items() if name not in known]
        for wanted in (one for route in new for one in (route.incumbent, *route.fallbacks)):
            named_models.require_listed(ctx, tx, wanted)
    _create_all(ctx, actor, new)
    return FileApplied(
        tuple(changed),
        tuple(route.name for route in new),
        tuple(list_seed_differences(ctx, settings)),
    )


def _check_names(ctx: Context, settings: Settings) -> None:
    """Checks the names in the file's routes. Raises ConfigError with the place of the fault."""
    if settings.source is None:
        return
    with ctx.store.read() as tx:
        providers = {*Providers(tx).all(), *settings.providers}
    document = parse_file(settings.source)
    for name, route in settings.routes.items():
        own = route.settings
        named = [
            (("policy",), "policy", own.policy, ctx.policies),
            *(
                (("suites", number), "suite", used.suite, ctx.suites.names())
                for number, used in enumerate(own.suites)
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
        for path, kind, text, known in named:
            if text not in known:
                there = f"; there are: {', '.join(sorted(known)) or 'none'}"
                hint = did_you_mean(text, known, otherwise=there)
                fault = f"there is no {kind} {text!r}{hint}"
                raise document.error(("routes", name, *path), fault)


def list_seed_differences(ctx: Context, settings: Settings) -> list[SeedDifference]:
    """Lists providers and routes that the file and the database have differently.

    Does not list what only the database has.
    """
    found = []
    with ctx.store.read() as tx:
        Preload(tx).routes(settings.routes)
        stored = {name: Routing(tx).route(name) for name in settings.routes}
        names = {id_: target.name for id_, target in Targets(tx).all().items()}
        providers = Providers(tx).all()
        wanted_providers = {
            name: targets.add_missing_prices(ctx, tx, provider)
            for name, provider in settings.providers.items()
        }
    for name, provider in wanted_providers.items():
        # Ignores prices that Swapgate read from the provider's list and the file does not have.
        own = settings.providers[name]
        if name in providers and not any(
            targets.has_same_values(ctx, providers[name], wanted) for wanted in (provider, own)
        ):
            what = "the file differs from the database"
            step = f"{APPLY_STEP} applies the file"
            found.append(SeedDifference(f"provider {name}", what, step))
    for name, wanted in settings.routes.items():
        route = stored[name]
        if route is None:
            what = "in the file, not in the database"
            step = f"{APPLY_STEP} creates it"
            found.append(SeedDifference(f"route {name}", what, step))
            continue
        if wanted.incumbent.id != route.incumbent:
            found.append(_other_model(wanted, names[route.incumbent]))
        found += _other_settings(wanted, route)
    return found


def _other_model(wanted: RouteSeed, serving: str) -> SeedDifference:
    """The file has the route's first model; later, proposals may have swapped it."""
    model = f"{wanted.incumbent.provider}/{wanted.incumbent.model}"
    return SeedDifference(
        f"route {wanted.name}",
        f"the file has {model}, the database {serving}",
        f"the database applies: write {serving} into the file, or propose the swap with "
        f"`swapgate proposal create {wanted.name} {model}`",
    )


def _other_settings(wanted: RouteSeed, route: Route) -> list[SeedDifference]:
    """Lists the settings that differ as one difference. Empty for equal settings."""
    names = []
    if tuple(fallback.id for fallback in wanted.fallbacks) != route.fallbacks:
        names.append("fallbacks")
    ours = wanted.settings
    theirs = route.settings
    fields = RouteSettings.__dataclass_fields__
    names += [name for name in fields if getattr(ours, name) != getattr(theirs, name)]
    what = f"file and database differ in {', '.join(names)}"
    step = "`swapgate route settings` and `swapgate route fallback` change the database"
    return [SeedDifference(f"route {route.name}", what, step)] if names else []
