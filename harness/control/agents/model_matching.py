"""Matches the model that an agent names: a route, `auto` for a route, or whatever its words
mean among the models of providers with a key; and lists those models with what is known of
them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.control.context import Context
from harness.control.providers import credentials, model_lookup
from harness.control.routing import scorecard
from harness.domain.agents.model_choice import (
    ModelChoice,
    literal_choice,
    parse_routed_choice,
)
from harness.domain.agents.model_figures import ModelFigures
from harness.domain.errors import NotFound
from harness.domain.providers.catalogue import CatalogueEntry
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.routing.capabilities import UNKNOWN_CAPABILITIES, Capabilities, Endpoint
from harness.domain.routing.target import Provider, Target
from harness.ports import Transaction

MAX_SHOWN = 100  # of a name, in an error


@dataclass(frozen=True, slots=True)
class ModelQuestion:
    """A name that several models fit equally well: whoever asked says which one is meant."""

    asked: str
    reason: str
    candidates: tuple[str, ...]  # `provider/model`


def choose_model(ctx: Context, text: str) -> ModelChoice | ModelQuestion:
    """Raises NotFound for a name that neither a route nor a model has, with the nearest ones;
    InputError for an empty one, and for an `auto` without its route.
    """
    with ctx.store.read() as tx:
        routes = frozenset(tx.routing.table().routes)
    routed = parse_routed_choice(text, routes)
    if routed is not None:
        return routed
    match = model_lookup.match_model(ctx, text, providers=_with_key(ctx))
    if match.candidates:
        names = tuple(offer.name for offer in match.candidates)
        return ModelQuestion(text, match.reason, names)
    if match.found is None:
        near = ", ".join(match.near) or "switch_model with the action list shows all"
        raise NotFound(
            f"model: nobody serves {text[:MAX_SHOWN]!r}: {match.reason}; near are: {near}",
            code="model_not_found",
        )
    return literal_choice(match.found.name, match.found.name)


def list_models(ctx: Context, words: str = "") -> Sequence[ModelFigures]:
    """The models of providers with a key, by name; of these, those that have all the words in
    their names. Never a key.
    """
    wanted = words.lower().split()
    usable = _with_key(ctx)
    with ctx.store.read() as tx:
        providers = tx.providers.all()
        verdicts = _newest_verdicts(tx)
        serves = _routes_by_target(tx)
    listed = []
    for name, entry in model_lookup.list_configured_offers(ctx):
        provider, _, model = name.partition("/")
        if provider not in usable or not all(word in name.lower() for word in wanted):
            continue
        can = model_capabilities(providers[provider], model, entry)
        if not can.chat:
            continue
        target = Target(provider, model).id
        listed.append(
            ModelFigures(
                name,
                entry.price,
                can.context_window,
                verdict=verdicts.get(target, ""),
                routes=serves.get(target, ()),
            )
        )
    return listed


def load_figures(ctx: Context, tx: Transaction, target: Target, name: str = "") -> ModelFigures:
    """All that is known of one target. name: to show it by, where it is a route's."""
    provider = tx.providers.all().get(target.provider)
    if provider is None:
        return ModelFigures(name or target.name)
    entry = ctx.catalogue.find(provider.kind, target.model)
    return ModelFigures(
        name or target.name,
        provider.prices.get(target.model) or (entry.price if entry else None),
        model_capabilities(provider, target.model, entry).context_window,
        tuple(scorecard.load_target_scores(tx, target.id)),
        _newest_verdicts(tx).get(target.id, ""),
        _routes_by_target(tx).get(target.id, ()),
    )


def model_capabilities(
    provider: Provider, model: str, entry: CatalogueEntry | None
) -> Capabilities:
    """What a model can do. The weakest word counts, of its kind, the registry and the
    catalogue; of the context window, the registry's.
    """
    own = provider.can(model)
    listed = entry.capabilities if entry is not None else UNKNOWN_CAPABILITIES
    lacks = PROVIDER_KINDS[provider.kind].lacks
    able = {
        name: getattr(own, name) and getattr(listed, name) and name not in lacks
        for name in ("stream", "tools", "parallel_tools", "vision")
    }
    serves_chat = (
        own.chat and listed.chat and Endpoint.CHAT in PROVIDER_KINDS[provider.kind].serves
    )
    return Capabilities(
        chat=serves_chat,
        context_window=own.context_window or listed.context_window,
        **able,
    )


def _with_key(ctx: Context) -> frozenset[str]:
    """Names of the providers that can be called."""
    return frozenset(
        provider.name
        for provider in credentials.list_credentials(ctx)
        if not provider.lacks_key
    )


def _newest_verdicts(tx: Transaction) -> Mapping[str, str]:
    """By the candidate's id, in words."""
    newest: dict[str, str] = {}
    for verdict in tx.verdicts.list():
        text = f"{verdict.words} on {verdict.route}, {verdict.decided_at:%Y-%m-%d}"
        newest.setdefault(verdict.candidate, text)
    return newest


def _routes_by_target(tx: Transaction) -> Mapping[str, tuple[str, ...]]:
    serves: dict[str, tuple[str, ...]] = {}
    for name, route in sorted(tx.routing.table().routes.items()):
        for target in route.targets:
            serves[target] = (*serves.get(target, ()), name)
    return serves
