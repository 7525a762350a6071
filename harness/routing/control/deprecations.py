"""Finds models in use that end within 90 days, have ended or are no longer listed.

`end_facts` reads the sources that state ends; the earliest day governs. The module only
warns: it changes no route. `harness.proposals.candidates.leaderboard` ranks the models that
could take a model's place.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from shlex import quote
from typing import Final, NamedTuple

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.formatting import format_quantity
from harness.frame.records.transaction import Transaction
from harness.providers.models.catalogue import CatalogueEntry
from harness.providers.models.model_ends import EndStatement, ModelEnd, find_end
from harness.providers.models.successors import ALERT_AHEAD, find_successor
from harness.providers.records import Targets
from harness.providers.registry.end_facts import EndFacts, load_facts
from harness.providers.target import Price, Target, format_price
from harness.providers.target_price import describe_missing, read_price
from harness.routing.context import RoutingContext
from harness.routing.records.routes import Routing
from harness.routing.route_changes import find_rollback_target
from harness.routing.table import Route, RoutingTable

INCUMBENT: Final = "incumbent"


class ModelUse(NamedTuple):
    """A use of a target in a route."""

    role: str  # such as `incumbent`
    route: str

    @property
    def text(self) -> str:
        preposition = "" if self.role.endswith("for") else "of "
        return f"{self.role} {preposition}{self.route}"


@dataclass(frozen=True, slots=True)
class Successor:
    """A model that could take an ending model's place: the one that its provider names, or else
    a newer model of the same family.

    price: in US dollars per million tokens; None if unknown. context_window: tokens.
    """

    name: str  # `provider/model`, at the ending model's provider
    price: Price | None
    context_window: int | None
    end_date: date | None  # None if unknown
    named: bool = False  # by the provider


@dataclass(frozen=True, slots=True)
class Deprecation:
    """A model that ends, has ended, is deprecated or is no longer listed, with its uses."""

    target: str  # its id
    name: str
    # The governing end, or the day when the provider stopped listing it; None if the model is
    # deprecated and no source states its end.
    end_date: date | None
    days: int | None  # days until the end; 0 or less if the model has ended
    uses: tuple[str, ...]  # its uses, such as `incumbent of chat`
    price: Price | None = None
    # None if its provider names none, and no later model of its family has its abilities.
    successor: Successor | None = None
    unlisted: bool = False  # no end is announced, but its provider no longer lists it
    source: str = ""  # the source of `end_date`, or of the deprecation, for people
    others: tuple[ModelEnd, ...] = ()  # the other stated ends, the earliest first
    deprecated_on: date | None = None  # as a source states it
    next: str = ""  # the command to run next

    @property
    def over(self) -> bool:
        return self.days is not None and self.days <= 0

    @property
    def text(self) -> str:
        """The countdown, in the words of every interface."""
        if self.end_date is None:
            since = f" since {self.deprecated_on.isoformat()}" if self.deprecated_on else ""
            return (
                f"{self.name} is deprecated{since}, according to {self.source}; its end is "
                f"unknown{self._remarks}"
            )
        day = self.end_date.isoformat()
        if self.unlisted:
            return f"{self.name} has been missing from its provider's list since {day}"
        if self.over:
            return f"{self.name} ended on {day}, according to {self.source}{self._remarks}"
        left = format_quantity(self.days or 0, "day")
        return (
            f"{self.name} ends on {day}, in {left}, according to {self.source}{self._remarks}"
        )

    @property
    def _remarks(self) -> str:
        successor = self.successor
        if successor is None or not successor.named:
            return self._conflict
        ends = f", which ends on {successor.end_date}" if successor.end_date else ""
        return f"{self._conflict}; its provider names {successor.name} in its place{ends}"

    @property
    def _conflict(self) -> str:
        """Names the sources that state another day; empty without one."""
        conflicts = [
            f"{other.source} states {other.day.isoformat()}"
            for other in self.others
            if other.day != self.end_date
        ]
        return f"; {', '.join(conflicts)}: the earliest day governs" if conflicts else ""


def find_deprecations(
    used: Iterable[tuple[Target, Sequence[ModelUse]]],
    facts: EndFacts,
    now: datetime,
) -> tuple[Deprecation, ...]:
    """Finds the ending models among used targets, the earliest end first. Pure.

    A model ends if its governing end is at most ALERT_AHEAD away. Without such an end, it
    counts as ended if its provider stopped listing it at its present address, and as deprecated
    if a source says so.

    Args:
        used: targets, each with its uses.
    """
    deprecations = [
        deprecation
        for target, uses in used
        if target.provider in facts.providers
        and (deprecation := _find_deprecation(target, uses, facts, now)) is not None
    ]
    return tuple(
        sorted(deprecations, key=lambda ending: (ending.end_date or date.max, ending.name))
    )


def _find_deprecation(
    target: Target,
    uses: Sequence[ModelUse],
    facts: EndFacts,
    now: datetime,
) -> Deprecation | None:
    today = now.date()
    report = facts.report(target, now)
    statements = report.statements
    end = report.end
    deprecated = next((one for one in statements if one.dates.is_deprecated), None)
    unlisted_since = facts.find_unlisted_since(target)
    if end is not None and end.day - today > ALERT_AHEAD:
        # A deprecation whose end is known and far begins no countdown either.
        end = deprecated = None
    if end is None and unlisted_since is None and deprecated is None:
        return None
    end_date = end.day if end is not None else unlisted_since
    source = ""
    if end is not None:
        source = end.source
    elif deprecated is not None and unlisted_since is None:
        source = deprecated.source
    others = [
        other
        for statement in statements
        if (other := find_end([statement])) is not None and other != end
    ]
    provider = facts.providers[target.provider]
    entry = facts.catalogue.find(provider.kind, target.model)
    deprecation = Deprecation(
        target=target.id,
        name=target.name,
        end_date=end_date,
        days=(end_date - today).days if end_date is not None else None,
        uses=tuple(use.text for use in uses),
        price=read_price(facts.providers, target.name, entry.price if entry else None).price,
        successor=_build_named(target, statements, facts, now)
        or _build_successor(target, entry, facts, now),
        unlisted=end is None and unlisted_since is not None,
        source=source,
        others=tuple(sorted(others, key=lambda other: (other.day, other.source))),
        deprecated_on=deprecated.dates.deprecated_on if deprecated is not None else None,
    )
    return replace(deprecation, next=_choose_command(deprecation, uses))


def _build_named(
    target: Target,
    statements: Sequence[EndStatement],
    facts: EndFacts,
    now: datetime,
) -> Successor | None:
    """Builds the replacement that a provider's list names; None without one. A snapshot's
    replacement may be its alias, which is no other model for a route that uses the alias.
    """
    names = (one.dates.replacement for one in statements)
    model = next((name for name in names if name and name != target.model), "")
    return _build_at_provider(target, model, facts, now, named=True) if model else None


def _build_successor(
    target: Target,
    entry: CatalogueEntry | None,
    facts: EndFacts,
    now: datetime,
) -> Successor | None:
    """Builds the newer model of the family; None without one, and if a source states that it
    ends soon, too.
    """
    newer = find_successor(entry, facts.catalogue, now.date()) if entry else None
    if newer is None:
        return None
    successor = _build_at_provider(target, newer.model, facts, now)
    last_day = (now + ALERT_AHEAD).date()
    ends_soon = successor.end_date is not None and successor.end_date <= last_day
    return None if ends_soon else successor


def _build_at_provider(
    target: Target, model: str, facts: EndFacts, now: datetime, *, named: bool = False
) -> Successor:
    """Builds another model of a target's provider."""
    other = Target(target.provider, model)
    entry = facts.catalogue.find(facts.providers[target.provider].kind, model)
    end = facts.report(other, now).end
    return Successor(
        other.name,
        read_price(facts.providers, other.name, entry.price if entry else None).price,
        entry.context_window if entry else None,
        end.day if end else None,
        named=named,
    )


def _choose_command(ending: Deprecation, uses: Sequence[ModelUse]) -> str:
    """Chooses the command to run next: for the first route that the model serves, else for
    its first use.
    """
    use = next((use for use in uses if use.role == INCUMBENT), uses[0] if uses else None)
    if use is None:
        return "swapproof model list"
    route = quote(use.route)
    if use.role == INCUMBENT and ending.successor is not None:
        day = f" ends on {ending.end_date.isoformat()}" if ending.end_date else " is deprecated"
        reason = quote(f"{ending.name}{day}")
        successor = quote(ending.successor.name)
        return f"swapproof proposal create {route} {successor} --reason {reason}"
    if use.role == INCUMBENT:
        return f"swapproof route candidates {route}"
    if use.role == "fallback":
        return f"swapproof route fallback list {route}"
    if use.role in ("canary", "holdback"):
        return f"swapproof canary status {route}"
    return f"swapproof route show {route}"


def route_end(
    route: Route, statements: Mapping[str, Sequence[EndStatement]]
) -> ModelEnd | None:
    """Returns when a route's incumbent ends: the earliest day that a source states; None if the
    end is unknown. Pure.

    Args:
        statements: by the target's id, as `end_sources.list_statements` returns them.
    """
    return find_end(statements.get(route.incumbent, ()))


ENDS = AlertKind.MODEL_ENDS
ENDED = AlertKind.MODEL_ENDED


def list_deprecations(
    ctx: RoutingContext,
    table: RoutingTable | None = None,
    *,
    with_rollback_targets: bool = True,
) -> Sequence[Deprecation]:
    """Lists the models in use that end within 90 days or have ended, earliest end first.

    Args:
        with_rollback_targets: also count models that only a rollback would restore, as in use.
    """
    with ctx.store.read() as tx:
        rollback_targets = _list_rollback_targets(tx) if with_rollback_targets else {}
        targets_with_uses = _list_uses(ctx, table or Routing(tx).table(), rollback_targets)
        facts = load_facts(ctx, tx, [target for target, _ in targets_with_uses])
        return find_deprecations(targets_with_uses, facts, ctx.clock.now())


def list_endings(ctx: RoutingContext, used: Iterable[Target]) -> Sequence[Deprecation]:
    """Finds the endings of given targets, whether or not a route uses them."""
    targets = list(used)
    with ctx.store.read() as tx:
        facts = load_facts(ctx, tx, targets)
    return find_deprecations([(target, ()) for target in targets], facts, ctx.clock.now())


def list_route_endings(
    ctx: RoutingContext, routes: Iterable[Route]
) -> Mapping[str, Sequence[Deprecation]]:
    """Finds the ending models of each route: its incumbent, canary, holdback and fallbacks.
    Routes without one are missing.
    """
    routes = list(routes)
    endings = {}
    with ctx.store.read() as tx:
        targets = Targets(tx).among({id_ for route in routes for id_ in route.targets})
        facts = load_facts(ctx, tx, targets.values())
    for route in routes:
        used = [
            (targets[id_], [ModelUse(role, route.name)])
            for id_, role in _list_roles(route)
            if id_ in targets
        ]
        if found := find_deprecations(used, facts, ctx.clock.now()):
            endings[route.name] = found
    return endings


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
) -> Sequence[tuple[Target, Sequence[ModelUse]]]:
    """Lists targets and judges in use, each with its uses."""
    targets: dict[str, Target] = {}
    uses: dict[str, list[ModelUse]] = {}
    for name, route in sorted(table.routes.items()):
        for target_id, role in _list_roles(route):
            targets[target_id] = table.targets[target_id]
            uses.setdefault(target_id, []).append(ModelUse(role, name))
        if (rollback_target := rollback_targets.get(name)) is not None:
            targets[rollback_target.id] = rollback_target
            uses.setdefault(rollback_target.id, []).append(ModelUse("way back", name))
        for suite in route.settings.suites:
            if (judge := ctx.judges.get(suite.suite)) is not None:
                targets[judge.id] = judge
                use = ModelUse(f"judge of suite {suite.suite}, for", name)
                uses.setdefault(judge.id, []).append(use)
    return [(targets[target_id], target_uses) for target_id, target_uses in uses.items()]


def _list_roles(route: Route) -> Sequence[tuple[str, str]]:
    """Lists a route's targets with their roles."""
    roles = [(route.incumbent, INCUMBENT)]
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
        f"{_describe_successor(ending)}{shortlist and f' {shortlist}'} "
        f"To go on: `{ending.next}`.",
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
            "Swapproof knows no newer model of its family with the same abilities: choose one."
        )
    window = (
        f", a window of {successor.context_window} tokens" if successor.context_window else ""
    )
    price = f"at {format_price(successor.price)}" if successor.price else "at an unknown price"
    opening = "Its provider names in its place" if successor.named else "Proposed successor"
    return f"{opening}: {successor.name}, {price}{window}."
