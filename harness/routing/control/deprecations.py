"""Finds models in use that end within 90 days, have ended or are no longer listed.

The ends come from the catalogue, and missing models from the providers' stored lists. The
module only warns: it changes no route. The candidates that could take a model's place are
ranked by `harness.proposals.candidates.leaderboard`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.records.transaction import Transaction
from harness.providers.models.catalogue import Catalogue, CatalogueEntry
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.models.model_names import parse_model_name
from harness.providers.records import DiscoveredModels, Providers, Targets
from harness.providers.registry.targets import describe_price
from harness.providers.target import Price, Provider, Target
from harness.routing.context import RoutingContext
from harness.routing.records.routes import Routing
from harness.routing.route_changes import find_rollback_target
from harness.routing.table import Route, RoutingTable

ALERT_AHEAD: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Successor:
    """A newer model of the same family that could take an ending model's place.

    price: in US dollars per million tokens; None if unknown. context_window: tokens.
    """

    name: str  # `provider/model`, at the ending model's provider
    price: Price | None
    context_window: int | None
    end_date: date | None


@dataclass(frozen=True, slots=True)
class Deprecation:
    """A model that ends, has ended or is no longer listed, with its uses."""

    target: str  # its id
    name: str
    end_date: date  # the announced end, or the day when the provider stopped listing it
    days: int  # days until the end; 0 or less if the model has ended
    uses: tuple[str, ...]  # its uses, such as `incumbent of chat`
    price: Price | None = None
    successor: Successor | None = None  # None if no later model of the family has its abilities
    unlisted: bool = False  # no end is announced, but its provider no longer lists it

    @property
    def over(self) -> bool:
        return self.days <= 0

    @property
    def text(self) -> str:
        day = self.end_date.isoformat()
        if self.unlisted:
            return f"{self.name} has been missing from its provider's list since {day}"
        if self.over:
            return f"{self.name} ended on {day}"
        return f"{self.name} ends on {day}, in {self.days} days"


def find_deprecations(
    used: Iterable[tuple[Target, Sequence[str]]],
    providers: Mapping[str, Provider],
    known: Catalogue,
    today: date,
    gone: Iterable[DiscoveredModel] = (),  # models that providers no longer list
) -> tuple[Deprecation, ...]:
    """Finds the ending models among `used`, the earliest end first. Pure.

    An announced end counts once it is at most ALERT_AHEAD away. Otherwise a model counts if its
    provider has stopped listing it at its present address.

    used: targets, each with its uses for people. providers: by name. known: the catalogue.
    """
    gone_on = {
        (model.provider, model.model, model.source): model.gone_at.date()
        for model in gone
        if model.gone_at
    }
    found = []
    for target, uses in used:
        provider = providers.get(target.provider)
        if provider is None:
            continue
        entry = known.find(provider.kind, target.model)
        ends = entry.end_date if entry else None
        announced = ends is not None and ends - today <= ALERT_AHEAD
        end_date = (
            ends
            if announced
            else gone_on.get((target.provider, target.model, provider.api_base))
        )
        if end_date is None:
            continue
        follows = find_successor(entry, known, today) if entry else None
        successor = None
        if follows is not None:
            name = f"{provider.name}/{follows.model}"
            price = provider.prices.get(follows.model, follows.price)
            successor = Successor(name, price, follows.context_window, follows.end_date)
        deprecation = Deprecation(
            target=target.id,
            name=target.name,
            end_date=end_date,
            days=(end_date - today).days,
            uses=tuple(uses),
            price=provider.prices.get(target.model, entry.price if entry else None),
            successor=successor,
            unlisted=not announced,
        )
        found.append(deprecation)
    return tuple(sorted(found, key=lambda ending: (ending.end_date, ending.name)))


def find_successor(
    entry: CatalogueEntry,
    known: Iterable[CatalogueEntry],
    today: date,
) -> CatalogueEntry | None:
    """Finds the newest model of the family with the same abilities that ends later."""
    # A successor that ends within ALERT_AHEAD would need a successor itself.
    last = max(today + ALERT_AHEAD, entry.end_date or today)
    rank = parse_model_name(entry.model).rank
    fits = [
        (parse_model_name(other.model).rank, other.model, other)
        for other in known
        if other.kind == entry.kind
        and other.family == entry.family
        and parse_model_name(other.model).rank > rank
        and entry.has <= other.has
        and (entry.context_window or 0) <= (other.context_window or 0)
        and (other.end_date is None or other.end_date > last)
    ]
    return max(fits, key=lambda fit: fit[:2])[2] if fits else None


ENDS = AlertKind.MODEL_ENDS
ENDED = AlertKind.MODEL_ENDED


def list_deprecations(
    ctx: RoutingContext,
    table: RoutingTable | None = None,
    *,
    ways_back: bool = True,
) -> Sequence[Deprecation]:
    """Lists the models in use that end within 90 days or have ended, earliest end first.

    ways_back: also count models that only a rollback would restore, as in use.
    """
    with ctx.store.read() as tx:
        former = _list_ways_back(tx) if ways_back else {}
        used = _used(ctx, table or Routing(tx).table(), former)
        gone = DiscoveredModels(tx).gone()
        today = ctx.clock.now().date()
        return find_deprecations(used, Providers(tx).all(), ctx.catalogue, today, gone)


def list_endings(
    ctx: RoutingContext,
    used: Iterable[Target],
    providers: Mapping[str, Provider],
) -> Sequence[Deprecation]:
    """Finds the endings of given targets, whether or not a route uses them."""
    today = ctx.clock.now().date()
    with ctx.store.read() as tx:
        gone = DiscoveredModels(tx).gone()
    unused = [(target, ()) for target in used]
    return find_deprecations(unused, providers, ctx.catalogue, today, gone)


def update_deprecation_alerts(
    ctx: RoutingContext,
    shortlist: Callable[[str], str] = lambda _target: "",
) -> None:
    """Opens an alert for each ending model in use, and resolves the alerts of others.

    A model that has ended gets another kind of alert than a model that will end.
    """
    # shortlist: describes the measured models that could replace a target, by its id.
    found = list_deprecations(ctx)
    notices = {
        (ENDED if e.over else ENDS, e.target): _notice(e, shortlist(e.target)) for e in found
    }
    alerts.update_alerts(ctx, (ENDS, ENDED), notices)


def _list_ways_back(tx: Transaction) -> Mapping[str, Target]:
    """Lists the targets that a rollback by hand would restore, by route."""
    known = Targets(tx).all()
    found = {}
    for name in Routing(tx).names():
        former = find_rollback_target(Routing(tx).history(name))
        if former is not None and former in known:
            found[name] = known[former]
    return found


def _used(
    ctx: RoutingContext,
    table: RoutingTable,
    ways_back: Mapping[str, Target],
) -> Sequence[tuple[Target, Sequence[str]]]:
    """Lists targets and judges in use, each with its uses."""
    by_id: dict[str, Target] = {}
    uses: dict[str, list[str]] = {}
    for name, route in sorted(table.routes.items()):
        for id_, role in _roles(route):
            by_id[id_] = table.targets[id_]
            uses.setdefault(id_, []).append(f"{role} of {name}")
        if (former := ways_back.get(name)) is not None:
            by_id[former.id] = former
            uses.setdefault(former.id, []).append(f"way back of {name}")
        for suite in route.settings.suites:
            if (judge := ctx.judges.get(suite.suite)) is not None:
                by_id[judge.id] = judge
                uses.setdefault(judge.id, []).append(
                    f"judge of suite {suite.suite}, for {name}"
                )
    return [(by_id[id_], use) for id_, use in uses.items()]


def _roles(route: Route) -> Sequence[tuple[str, str]]:
    """Lists a route's targets with their roles."""
    roles = [(route.incumbent, "incumbent")]
    if route.canary:
        roles.append((route.canary.target, "canary"))
    if route.holdback:
        roles.append((route.holdback.target, "holdback"))
    return [
        *roles,
        *((fallback, "fallback") for fallback in route.fallbacks),
    ]


def _notice(ending: Deprecation, shortlist: str) -> alerts.AlertNotice:
    return alerts.AlertNotice(
        f"target {ending.name}",
        ending.text,
        f"It is {'; '.join(ending.uses)}. It costs {describe_price(ending.price)}. "
        f"{_next(ending)}{shortlist and f' {shortlist}'}",
    )


def _next(ending: Deprecation) -> str:
    to = ending.successor
    if to is None:
        return (
            "Swapgate knows no newer model of its family with the same abilities: choose one."
        )
    window = f", a window of {to.context_window} tokens" if to.context_window else ""
    return f"Proposed successor: {to.name}, at {describe_price(to.price)}{window}."
