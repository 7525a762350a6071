"""Keeps vectors of different models apart: an index with both gives wrong neighbours.

A route that serves embeddings takes only targets of the same model, unless its owner declares
the vectors comparable (`comparable_vectors`). Callers check before a target comes to a route.
Stored routes keep serving; `update_vector_alerts` names those that mix models.
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
_NAMES: Final = re.compile(
    r"embed|(?:^|[/._-])(?:bge|gte|e5|minilm|voyage)(?:[-_.:]|$)", re.IGNORECASE
)
_NO_EMBEDDINGS: Final = re.compile(r"rerank", re.IGNORECASE)
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

    primary: the route's incumbent. others: targets that are to answer in its place. Raises
    NotAllowed for the first other model.
    """
    if refusal := find_other_vectors(ctx, tx, route, settings, primary, others):
        raise NotAllowed(refusal)


def check_override(
    ctx: RoutingContext, tx: Transaction, route: Route, settings: RouteSettings
) -> None:
    """Checks that another override for embeddings leads to the same model. Raises NotAllowed.

    route: before the change. settings: after it.
    """
    kind = RequestKind.EMBEDDING
    routing = Routing(tx)
    names = (had.overrides.get(kind, route.name) for had in (route.settings, settings))
    before, after = map(routing.route, names)
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
    """Explains which target makes other vectors than the primary one; empty if none does."""
    if settings.comparable_vectors:
        return ""
    strange = [other for other in others if not is_same_model(tx, primary, other)]
    if not strange or not serves_embeddings(ctx, tx, route, primary):
        return ""
    return (
        f"route {route!r} serves embeddings of {primary.name}, and {strange[0].name} is not "
        "known to be the same model: the vectors of two models do not mix in one index. "
        f"{HOW_TO_SWAP}"
    )


def is_same_model(tx: Transaction, one: Target, other: Target) -> bool:
    """Tells whether two targets are deployments of one named model, as requested or as their
    providers report it.

    Vendors, regions and spellings do not count, but sizes, versions and dates do.
    """
    return one.id == other.id or bool(_names(tx, one) & _names(tx, other))


def _names(tx: Transaction, target: Target) -> frozenset[tuple[object, ...]]:
    served = Sightings(tx).for_target(target.id)
    read = map(parse_model_name, known_model_names(target, served))
    return frozenset(
        (name.words, name.version, name.date, name.preview) for name in read if name.words
    )


def serves_embeddings(
    ctx: RoutingContext, tx: Transaction, route: str, primary: Target
) -> bool:
    """Tells whether a route serves embeddings: by its primary target's model, or because a
    target answered requests for embeddings lately.
    """
    if is_embedding_model(ctx, tx, primary):
        return True
    since = (ctx.clock.now() - _WEEK).date()
    names = Observations(tx).asked_names(since=since, route=route)
    return any(row.name == f"{NEED}{Endpoint.EMBEDDINGS.value}" for row in names)


def is_embedding_model(ctx: RoutingContext, tx: Transaction, target: Target) -> bool:
    """Tells whether a model makes embeddings and no chats: as declared, else as the catalogue
    says, else by its name.
    """
    provider = Providers(tx).all()[target.provider]
    own = provider.can(target.model)
    if not own.embeddings:
        return False
    entry = ctx.catalogue.find(provider.kind, target.model)
    if not own.chat:
        return True
    if entry is not None and (entry.has or entry.lacks):
        return "embeddings" in entry.has and "chat" in entry.lacks
    return bool(_NAMES.search(target.model)) and not _NO_EMBEDDINGS.search(target.model)


def list_mixed(ctx: RoutingContext) -> dict[str, str]:
    """Explains, by route, which stored routes for embeddings have targets of another model."""
    with ctx.store.read() as tx:
        table = Routing(tx).table()
        found = {name: _mixed(ctx, tx, route) for name, route in sorted(table.routes.items())}
    return {name: refusal for name, refusal in found.items() if refusal}


def _mixed(ctx: RoutingContext, tx: Transaction, route: Route) -> str:
    known = Targets(tx).all()
    others = [known[id_] for id_ in sorted(route.targets - {route.incumbent})]
    primary = known[route.incumbent]
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
        for name, why in list_mixed(ctx).items()
    }
    alerts.update_alerts(ctx, [kind], notices)
