"""Prevents that a route mixes vectors of different models: an index with both finds wrong
neighbours.

A route that serves embeddings takes only targets of the same model, unless its owner declares
the vectors comparable (`comparable_vectors`). Callers check before a target comes to a route.
Existing routes keep serving; `update_vector_alerts` warns about those that mix models.
"""

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from harness.frame.alerts import alerts
from harness.frame.alerts.alert import AlertKind
from harness.frame.errors import NotAllowed
from harness.frame.records.transaction import Transaction
from harness.gate.online.observation import NEED
from harness.providers.models.capabilities import Endpoint
from harness.providers.models.model_names import known_model_names, parse_model_name
from harness.providers.records import Providers, Sightings, Targets
from harness.providers.target import Target
from harness.routing.context import RoutingContext
from harness.routing.records.observations import Observations
from harness.routing.records.routes import Routing
from harness.routing.route_settings import RequestKind, RouteSettings
from harness.routing.table import Route

# Names of embedding models that neither the configuration nor the catalogue knows.
_EMBEDDING_NAMES: Final = re.compile(
    r"embed|(?:^|[/._-])(?:bge|gte|e5|minilm|voyage)(?:[-_.:]|$)", re.IGNORECASE
)
_OTHER_NAMES: Final = re.compile(r"rerank", re.IGNORECASE)
_WEEK: Final = timedelta(days=7)
HOW_TO_SWAP: Final = (
    "To change the model, fill a second index through a route of its own with the new model, "
    "then move the clients to that route and index together. If one index may hold the vectors "
    "of both models, set `comparable_vectors: true` on the route"
)


def check_vectors(
    ctx: RoutingContext,
    tx: Transaction,
    route: str,
    settings: RouteSettings,
    primary: Target,
    others: Iterable[Target],
) -> None:
    """Checks that a route's targets make comparable vectors, if it serves embeddings.

    Args:
        primary: the route's incumbent.
        others: targets that may answer in its place.

    Raises NotAllowed for the first target of another model.
    """
    if refusal := find_other_vectors(ctx, tx, route, settings, primary, others):
        raise NotAllowed(refusal)


def check_override(
    ctx: RoutingContext, tx: Transaction, route: Route, settings: RouteSettings
) -> None:
    """Checks that another override for embeddings leads to the same model. Raises NotAllowed.

    Args:
        route: before the change.
        settings: after it.
    """
    kind = RequestKind.EMBEDDING
    routing = Routing(tx)
    route_names = (
        route_settings.overrides.get(kind, route.name)
        for route_settings in (route.settings, settings)
    )
    before, after = map(routing.route, route_names)
    if before is None or after is None or before.name == after.name:
        return  # the check of overrides refuses an unknown route
    targets = Targets(tx).all()
    primary, other = targets[before.incumbent], targets[after.incumbent]
    check_vectors(ctx, tx, before.name, settings, primary, [other])


def find_other_vectors(
    ctx: RoutingContext,
    tx: Transaction,
    route: str,
    settings: RouteSettings,
    primary: Target,
    others: Iterable[Target],
) -> str:
    """Returns a sentence about the first target with vectors of another model; empty without
    such a target.
    """
    if settings.comparable_vectors:
        return ""
    other_models = [other for other in others if not is_same_model(tx, primary, other)]
    if not other_models or not serves_embeddings(ctx, tx, route, primary):
        return ""
    return (
        f"route {route!r} serves embeddings of {primary.name}, and {other_models[0].name} is "
        "not known to be the same model: the vectors of two models do not mix in one index. "
        f"{HOW_TO_SWAP}"
    )


def is_same_model(tx: Transaction, one: Target, other: Target) -> bool:
    """Tells whether two targets are deployments of one named model, as requested or as their
    providers report it.

    Ignores vendors, regions and spellings. Sizes, versions and dates must be equal.
    """
    return one.id == other.id or bool(_comparable_names(tx, one) & _comparable_names(tx, other))


def _comparable_names(tx: Transaction, target: Target) -> frozenset[tuple[object, ...]]:
    sightings = Sightings(tx).for_target(target.id)
    parsed_names = map(parse_model_name, known_model_names(target, sightings))
    return frozenset(
        (name.words, name.version, name.date, name.preview)
        for name in parsed_names
        if name.words
    )


def serves_embeddings(
    ctx: RoutingContext, tx: Transaction, route: str, primary: Target
) -> bool:
    """Tells whether a route serves embeddings: its primary target is an embedding model, or the
    route got requests for embeddings in the last week.
    """
    if is_embedding_model(ctx, tx, primary):
        return True
    since = (ctx.clock.now() - _WEEK).date()
    requested_names = Observations(tx).asked_names(since=since, route=route)
    return any(row.name == f"{NEED}{Endpoint.EMBEDDINGS.value}" for row in requested_names)


def is_embedding_model(ctx: RoutingContext, tx: Transaction, target: Target) -> bool:
    """Tells whether a model makes embeddings and no chats. The declaration decides first, then
    the catalogue, then the model's name.
    """
    provider = Providers(tx).all()[target.provider]
    declared = provider.can(target.model)
    if not declared.embeddings:
        return False
    entry = ctx.catalogue.find(provider.kind, target.model)
    if not declared.chat:
        return True
    if entry is not None and (entry.has or entry.lacks):
        return "embeddings" in entry.has and "chat" in entry.lacks
    return bool(_EMBEDDING_NAMES.search(target.model)) and not _OTHER_NAMES.search(target.model)


def list_mixed_vectors(ctx: RoutingContext) -> dict[str, str]:
    """Returns a sentence for each stored route for embeddings with targets of another model, by
    route.
    """
    with ctx.store.read() as tx:
        table = Routing(tx).table()
        refusals = {
            name: _find_mixed_vectors(ctx, tx, route)
            for name, route in sorted(table.routes.items())
        }
    return {name: refusal for name, refusal in refusals.items() if refusal}


def _find_mixed_vectors(ctx: RoutingContext, tx: Transaction, route: Route) -> str:
    targets = Targets(tx).all()
    others = [targets[id_] for id_ in sorted(route.targets - {route.incumbent})]
    primary = targets[route.incumbent]
    return find_other_vectors(ctx, tx, route.name, route.settings, primary, others)


def update_vector_alerts(ctx: RoutingContext) -> None:
    """Opens an alert for each stored route that mixes models, and resolves the others."""
    kind = AlertKind.MIXED_VECTORS
    notices = {
        (kind, name): alerts.AlertNotice(
            f"route {name}",
            f"route {name} may mix the vectors of two models",
            f"{why}. The route keeps serving as it is.",
        )
        for name, why in list_mixed_vectors(ctx).items()
    }
    alerts.update_alerts(ctx, [kind], notices)
