"""Finds models in use that end within 90 days, have ended or are no longer listed.

The catalogue announces ends, and the providers' stored lists show missing models. The module
only warns: it changes no route. `harness.proposals.candidates.leaderboard` ranks the models
that could take a model's place.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.records.transaction import Transaction
from harness.providers.models.catalogue import Catalogue
from harness.providers.models.model_match import DiscoveredModel
from harness.providers.models.successors import ALERT_AHEAD, find_successor
from harness.providers.records import DiscoveredModels, Providers, Targets
from harness.providers.target import Price, Provider, Target, format_price
from harness.providers.target_price import describe_missing, read_price
from harness.routing.context import RoutingContext
from harness.routing.records.routes import Routing
from harness.routing.route_changes import find_rollback_target
from harness.routing.table import Route, RoutingTable


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
    catalogue: Catalogue,
    today: date,
    unlisted_models: Iterable[DiscoveredModel] = (),  # models that providers no longer list
) -> tuple[Deprecation, ...]:
    """Finds the ending models among used targets, the earliest end first. Pure.

    A model ends if its announced end is at most ALERT_AHEAD away. Without such an end, it
    counts as ended if its provider stopped listing it at its present address.

    used: targets, each with its uses for people. providers: by name.
    """
    unlisted_since = {
        (model.provider, model.model, model.source): model.gone_at.date()
        for model in unlisted_models
        if model.gone_at
    }
    deprecations = []
    for target, uses in used:
        provider = providers.get(target.provider)
        if provider is None:
            continue
        entry = catalogue.find(provider.kind, target.model)
        announced_end = entry.end_date if entry else None
        is_near = announced_end is not None and announced_end - today <= ALERT_AHEAD
        end_date = (
            announced_end
            if is_near
            else unlisted_since.get((target.provider, target.model, provider.api_base))
        )
        if end_date is None:
            continue
        successor_entry = find_successor(entry, catalogue, today) if entry else None
        successor = None
        if successor_entry is not None:
            name = f"{provider.name}/{successor_entry.model}"
            price = read_price(providers, name, successor_entry.price).price
            successor = Successor(
                name, price, successor_entry.context_window, successor_entry.end_date
            )
        deprecation = Deprecation(
            target=target.id,
            name=target.name,
            end_date=end_date,
            days=(end_date - today).days,
            uses=tuple(uses),
            price=read_price(providers, target.name, entry.price if entry else None).price,
            successor=successor,
            unlisted=not is_near,
        )
        deprecations.append(deprecation)
    return tuple(sorted(deprecations, key=lambda ending: (ending.end_date, ending.name)))


ENDS = AlertKind.MODEL_ENDS
ENDED = AlertKind.MODEL_ENDED


def list_deprecations(
    ctx: RoutingContext,
    table: RoutingTable | None = None,
    *,
    with_rollback_targets: bool = True,
) -> Sequence[Deprecation]:
    """Lists the models in use that end within 90 days or have ended, earliest end first.

    with_rollback_targets: also count models that only a rollback would restore, as in use.
    """
    with ctx.store.read() as tx:
        rollback_targets = _list_rollback_targets(tx) if with_rollback_targets else {}
        targets_with_uses = _list_uses(ctx, table or Routing(tx).table(), rollback_targets)
        unlisted_models = DiscoveredModels(tx).gone()
        today = ctx.clock.now().date()
        return find_deprecations(
            targets_with_uses, Providers(tx).all(), ctx.catalogue, today, unlisted_models
        )


def list_endings(
    ctx: RoutingContext,
    used: Iterable[Target],
    providers: Mapping[str, Provider],
) -> Sequence[Deprecation]:
    """Finds the endings of given targets, whether or not a route uses them."""
    today = ctx.clock.now().date()
    with ctx.store.read() as tx:
        unlisted_models = DiscoveredModels(tx).gone()
    targets_without_uses = [(target, ()) for target in used]
    return find_deprecations(
        targets_without_uses, providers, ctx.catalogue, today, unlisted_models
    )


def update_deprecation_alerts(
    ctx: RoutingContext,
    shortlist: Callable[[str], str] = lambda _target: "",
) -> None:
    """Opens an alert for each ending model in use, and resolves the alerts of other models.

    A model that has ended gets another kind of alert than a model that will end.
    """
    # shortlist: describes the measured models that could replace a target. It takes the
    # target's id.
    deprecations = list_deprecations(ctx)
    notices = {
        (ENDED if deprecation.over else ENDS, deprecation.target): _build_notice(
            deprecation, shortlist(deprecation.target)
        )
        for deprecation in deprecations
    }
    alerts.update_alerts(ctx, (ENDS, ENDED), notices)


def _list_rollback_targets(tx: Transaction) -> Mapping[str, Target]:
    """Lists the targets that a rollback by hand would restore, by route."""
    targets = Targets(tx).all()
    rollback_targets = {}
    for name in Routing(tx).names():
        former = find_rollback_target(Routing(tx).history(name))
        if former is not None and former in targets:
            rollback_targets[name] = targets[former]
    return rollback_targets


def _list_uses(
    ctx: RoutingContext,
    table: RoutingTable,
    rollback_targets: Mapping[str, Target],
) -> Sequence[tuple[Target, Sequence[str]]]:
    """Lists targets and judges in use, each with its uses."""
    targets: dict[str, Target] = {}
    uses: dict[str, list[str]] = {}
    for name, route in sorted(table.routes.items()):
        for target_id, role in _list_roles(route):
            targets[target_id] = table.targets[target_id]
            uses.setdefault(target_id, []).append(f"{role} of {name}")
        if (rollback_target := rollback_targets.get(name)) is not None:
            targets[rollback_target.id] = rollback_target
            uses.setdefault(rollback_target.id, []).append(f"way back of {name}")
        for suite in route.settings.suites:
            if (judge := ctx.judges.get(suite.suite)) is not None:
                targets[judge.id] = judge
                uses.setdefault(judge.id, []).append(
                    f"judge of suite {suite.suite}, for {name}"
                )
    return [(targets[target_id], target_uses) for target_id, target_uses in uses.items()]


def _list_roles(route: Route) -> Sequence[tuple[str, str]]:
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


def _build_notice(ending: Deprecation, shortlist: str) -> alerts.AlertNotice:
    return alerts.AlertNotice(
        f"target {ending.name}",
        ending.text,
        f"It is {'; '.join(ending.uses)}. {_describe_cost(ending)}. "
        f"{_describe_successor(ending)}{shortlist and f' {shortlist}'}",
    )


def _describe_cost(ending: Deprecation) -> str:
    if ending.price is None:
        missing = describe_missing(ending.name)
        return f"{missing[:1].upper()}{missing[1:]}"
    return f"It costs {format_price(ending.price)}"


def _describe_successor(ending: Deprecation) -> str:
    successor = ending.successor
    if successor is None:
        return (
            "Swapgate knows no newer model of its family with the same abilities: choose one."
        )
    window = (
        f", a window of {successor.context_window} tokens" if successor.context_window else ""
    )
    price = f"at {format_price(successor.price)}" if successor.price else "at an unknown price"
    return f"Proposed successor: {successor.name}, {price}{window}."
