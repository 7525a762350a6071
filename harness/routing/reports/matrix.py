"""Builds the provider matrix: each provider with its models, abilities, prices and health.

The matrix joins facts that other modules store: registry, catalogue, checks, alerts and
traffic. It calls no provider, so its health may be a day old.
`harness.providers.registry.registered_providers` checks providers, and `scorecard` has one
route's figures.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from harness.frame.alerts.alert import AlertKind
from harness.frame.alerts.records import Alerts
from harness.frame.plain_data import CamelCase
from harness.providers.kinds import PROVIDER_KINDS, ProviderGroup
from harness.providers.models.catalogue import (
    Ability,
    PriceOrigin,
    find_price_origin,
    kind_limitations,
    model_abilities,
)
from harness.providers.models.model_ends import KnownEnd
from harness.providers.records import Providers, Targets
from harness.providers.registry import credentials
from harness.providers.registry.end_facts import EndFacts, load_facts
from harness.providers.registry.registered_providers import list_recent_checks
from harness.providers.registry.targets import fill_prices
from harness.providers.target import (
    Price,
    Provider,
    Target,
    classes_of_provider,
)
from harness.routing.context import RoutingContext
from harness.routing.records.routes import Routing
from harness.routing.reports import scorecard

_TROUBLE_ALERTS: Final = frozenset(
    {
        AlertKind.BREAKER_OPEN,
        AlertKind.OUR_KEY,
        AlertKind.QUOTA,
        AlertKind.MODEL_UNKNOWN,
    }
)


class ProviderHealth(StrEnum):
    """Whether a provider answers, by the newest evidence. UNKNOWN: neither checked nor used
    lately.
    """

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class MatrixModel(CamelCase):
    """A model of a provider, with its abilities from registry, kind and catalogue."""

    model: str
    abilities: Mapping[str, Ability]  # by column
    context_window: int | None
    price: Price | None  # None if unknown
    price_origin: PriceOrigin | None  # None without a price
    end: KnownEnd
    p50_ms: float | None  # median latency in the last day on one of its routes
    routes: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRow(CamelCase):
    """A configured provider, or a kind that has no provider yet."""

    provider: str
    kind: str
    group: ProviderGroup
    configured: bool = False  # whether it is registered, with a key if it needs a key
    has_key: bool = False
    health: ProviderHealth = ProviderHealth.UNKNOWN
    health_because: str = "not configured"  # the evidence for `health`
    ill: str = ""  # the unhealthy provider or target; empty without one
    data_classes: Sequence[str] = ()  # the data classes that its models may see
    limitations: Sequence[str]
    repairs: Sequence[str] = ()  # fields that routers change because its targets refuse them
    models: Sequence[MatrixModel] = ()


def build_matrix(ctx: RoutingContext) -> Sequence[MatrixRow]:
    """Lists configured providers by name, then the kinds without a provider."""
    with ctx.store.read() as tx:
        providers = Providers(tx).all()
        targets = Targets(tx).all()
        table = Routing(tx).table()
        prices = {
            name: fill_prices(
                ctx, tx, provider, _list_models(provider, targets.values())
            ).prices
            for name, provider in providers.items()
        }
        ends = load_facts(
            ctx,
            tx,
            [
                Target(name, model)
                for name, provider in providers.items()
                for model in _list_models(provider, targets.values())
            ],
        )
    keys = {credential.name: credential for credential in credentials.list_credentials(ctx)}
    routes_by_target: dict[str, list[str]] = {}
    for name, route in sorted(table.routes.items()):
        for target in route.targets:
            routes_by_target.setdefault(target, []).append(name)
    speeds = scorecard.load_speeds(ctx, table.routes)
    health = _HealthEvidence(ctx, targets, speeds)
    rows = []
    for name, provider in providers.items():
        targets_of_provider = [target for target in targets.values() if target.provider == name]
        kind = PROVIDER_KINDS[provider.kind]
        state, evidence, ill_subject = health.assess(provider)
        row = MatrixRow(
            provider=name,
            kind=kind.name,
            group=kind.group,
            configured=not keys[name].lacks_key,
            has_key=keys[name].has_value,
            health=state,
            health_because=evidence,
            ill=ill_subject,
            data_classes=classes_of_provider(ctx.data_classes, name),
            limitations=kind_limitations(kind),
            repairs=health.learned(provider),
            models=_build_models(
                ctx,
                replace(provider, prices=prices[name]),
                targets_of_provider,
                routes_by_target,
                speeds,
                ends,
            ),
        )
        rows.append(row)
    configured = {provider.kind for provider in providers.values()}
    unconfigured = [
        MatrixRow(
            provider=kind.name,
            kind=kind.name,
            group=kind.group,
            limitations=kind_limitations(kind),
        )
        for kind in PROVIDER_KINDS.values()
        if kind.name not in configured and kind.group is not ProviderGroup.SIMULATED
    ]
    return [*rows, *unconfigured]


def _list_models(provider: Provider, targets: Iterable[Target]) -> list[str]:
    """Lists the models of a provider's configuration and of its registered targets."""
    registered = {target.model for target in targets if target.provider == provider.name}
    return sorted({*provider.models, *registered})


def _build_models(
    ctx: RoutingContext,
    provider: Provider,
    targets: Iterable[Target],
    routes_by_target: Mapping[str, Sequence[str]],
    speeds: Mapping[str, float],
    ends: EndFacts,
) -> Sequence[MatrixModel]:
    """Builds the rows of a provider's models: of its registered targets and its configuration.

    Args:
        provider: with all known and listed prices.
        targets: the provider's targets.
        routes_by_target: names of routes by target id.
        speeds: medians in ms by target id.
        ends: the facts about the models' ends.
    """
    now = ctx.clock.now()
    ids_by_model: dict[str, list[str]] = {name: [] for name in provider.models}
    for target in targets:
        ids_by_model.setdefault(target.model, []).append(target.id)
    rows = []
    for model, ids in sorted(ids_by_model.items()):
        entry = ctx.catalogue.find(provider.kind, model)
        price = provider.prices.get(model)
        capabilities = provider.abilities(model)
        rows.append(
            MatrixModel(
                model=model,
                abilities=model_abilities(
                    PROVIDER_KINDS[provider.kind], capabilities, entry, price
                ),
                context_window=capabilities.context_window
                or (entry.context_window if entry else None),
                price=price,
                price_origin=find_price_origin(price, entry, ctx.catalogue) if price else None,
                end=ends.report(Target(provider.name, model), now).known,
                p50_ms=next((speeds[id_] for id_ in ids if id_ in speeds), None),
                routes=sorted({name for id_ in ids for name in routes_by_target.get(id_, ())}),
            )
        )
    return rows


class _HealthEvidence:
    """The evidence of providers' health, loaded once for all rows."""

    def __init__(
        self,
        ctx: RoutingContext,
        targets: Mapping[str, Target],
        speeds: Mapping[str, float],
    ) -> None:
        with ctx.store.read() as tx:
            open_alerts = Alerts(tx).list(open_only=True)
        self._alerts = [alert for alert in open_alerts if alert.kind in _TROUBLE_ALERTS]
        self._repairs = [
            alert for alert in open_alerts if alert.kind is AlertKind.LEARNED_REPAIR
        ]
        self._answered = {targets[speed].provider for speed in speeds}
        self._targets = targets
        self._check = list_recent_checks(ctx)

    def learned(self, provider: Provider) -> list[str]:
        """Lists the repairs that routers learned for the provider's targets, as titles of open
        alerts.
        """
        start = f"target {provider.name}/"
        return sorted(alert.title for alert in self._repairs if alert.subject.startswith(start))

    def assess(self, provider: Provider) -> tuple[ProviderHealth, str, str]:
        """Returns health, its evidence, and the unhealthy provider or target.

        An open alert of a router precedes the last check, and a failed check precedes answered
        requests.
        """
        target_names = [e.name for e in self._targets.values() if e.provider == provider.name]
        # Routers' alerts have these subjects (`router.health.worker_alerts`).
        names = {
            f"provider {provider.name}",
            *(f"target {target}" for target in target_names),
        }
        for alert in self._alerts:
            if alert.subject in names:
                ill = alert.subject.partition(" ")[2]
                return ProviderHealth.UNHEALTHY, f"alert: {alert.title}", ill
        last_check = self._check.get(provider.name)
        if last_check is not None and not last_check.ok:
            evidence = f"the check of {last_check.at:%F %H:%M} UTC"
            return ProviderHealth.UNHEALTHY, evidence, provider.name
        if provider.name in self._answered:
            return (
                ProviderHealth.HEALTHY,
                "it answered requests in the last day",
                "",
            )
        if last_check is not None:
            return (
                ProviderHealth.HEALTHY,
                f"the check of {last_check.at:%F %H:%M} UTC",
                "",
            )
        return (
            ProviderHealth.UNKNOWN,
            "not checked yet: `swapproof doctor`",
            "",
        )
