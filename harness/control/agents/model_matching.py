"""Reads the models that agents and their clients name: a route, `auto` for a route, or a
literal model, by its exact name or by whatever words mean it; and says what is known of models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from harness.control.context import Context
from harness.control.providers import credentials, discovery, model_lookup
from harness.control.routing import scorecard
from harness.domain.agents.agent import (
    AUTO,
    ModelChoice,
    ModelKind,
    literal_choice,
    parse_routed_choice,
)
from harness.domain.agents.model_figures import ModelFigures
from harness.domain.errors import NotFound
from harness.domain.providers.kinds import PROVIDER_KINDS
from harness.domain.routing.capabilities import UNKNOWN_CAPABILITIES, Capabilities, Endpoint
from harness.domain.routing.kill_switch import KillSwitch
from harness.domain.routing.target import Provider, Target
from harness.store.transaction import Transaction

MAX_SHOWN = 100  # of a name, in an error
SHORT = 28  # of each of three names, in an error of at most 200 characters


@dataclass(frozen=True, slots=True)
class ModelQuestion:
    """A name that several models fit equally well: whoever asked says which one is meant."""

    reason: str
    candidates: tuple[str, ...]  # `provider/model`


def read_model_choice(
    ctx: Context, text: str, *, standing: Sequence[KillSwitch] = ()
) -> ModelChoice:
    """The model of a client, whose literal name is resolved as everywhere.

    standing: switches of the environment and the file. Raises NotFound for a name that neither
    a route nor a configured provider has, InputError for an empty one, and for an `auto`
    without its route.
    """
    routed = _read_routed(ctx, text)
    if routed is not None:
        return routed
    resolution = model_lookup.resolve_model(ctx, text.strip(), standing=standing)
    if resolution.target is None:
        near = " and ".join(name[:SHORT] for name in model_lookup.find_near(ctx, text)[:2])
        hint = f"near are {near}; " if near else ""
        raise NotFound(
            f"model: no provider serves {text[:SHORT]!r}; {hint}`swapgate model add "
            "PROVIDER/MODEL` adds a model",
            code="model_not_found",
        )
    return literal_choice(text, resolution.target)


def choose_model(ctx: Context, text: str) -> ModelChoice | ModelQuestion:
    """The model that an agent's words mean, among those of providers with a key.

    Raises NotFound for a name that neither a route nor a model has, with the nearest ones, and
    InputError as `read_model_choice`.
    """
    routed = _read_routed(ctx, text)
    if routed is not None:
        # What a person approves says which route it is.
        is_auto = routed.kind is ModelKind.AUTO
        return replace(routed, text=f"{AUTO}:{routed.route}") if is_auto else routed
    match = model_lookup.match_model(ctx, text, providers=_with_key(ctx))
    if match.candidates:
        return ModelQuestion(match.reason, tuple(offer.name for offer in match.candidates))
    if match.found is None:
        near = ", ".join(match.near) or "switch_model with the action list shows all"
        raise NotFound(
            f"model: nobody serves {text[:MAX_SHOWN]!r}: {match.reason}; near are: {near}",
            code="model_not_found",
        )
    return literal_choice(match.found.name, match.found.name)


def _read_routed(ctx: Context, text: str) -> ModelChoice | None:
    with ctx.store.read() as tx:
        routes = frozenset(tx.routing.table().routes)
    return parse_routed_choice(text, routes, default_route=ctx.agents.auto_route)


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
        listed_on = {
            f"{model.provider}/{model.model}": f"{model.found_at:%Y-%m-%d}"
            for model in discovery.read_lists(tx)
        }
    models = []
    for name, entry in model_lookup.list_configured_offers(ctx):
        provider, _, model = name.partition("/")
        if provider not in usable or not all(word in name.lower() for word in wanted):
            continue
        can = model_capabilities(ctx, providers[provider], model)
        if not can.chat:
            continue
        target = Target(provider, model).id
        models.append(
            ModelFigures(
                name,
                entry.price,
                can.context_window or entry.context_window,
                verdict=verdicts.get(target, ""),
                routes=serves.get(target, ()),
                listed_on=listed_on.get(name, ""),
            )
        )
    return models


def load_figures(ctx: Context, tx: Transaction, target: Target, name: str = "") -> ModelFigures:
    """All that is known of one target. name: to show it by, where it is a route's."""
    provider = tx.providers.all().get(target.provider)
    if provider is None:
        return ModelFigures(name or target.name)
    entry = ctx.catalogue.find(provider.kind, target.model)
    return ModelFigures(
        name or target.name,
        provider.prices.get(target.model) or (entry.price if entry else None),
        model_capabilities(ctx, provider, target.model).context_window,
        tuple(scorecard.load_target_scores(tx, target.id)),
        _newest_verdicts(tx).get(target.id, ""),
        _routes_by_target(tx).get(target.id, ()),
    )


def model_capabilities(ctx: Context, provider: Provider, model: str) -> Capabilities:
    """What a model can do. The weakest word counts, of its kind, the registry and the
    catalogue; of the context window, the registry's.
    """
    kind, own = PROVIDER_KINDS[provider.kind], provider.can(model)
    entry = ctx.catalogue.find(provider.kind, model)
    known = entry.capabilities if entry is not None else UNKNOWN_CAPABILITIES
    able = {
        name: getattr(own, name) and getattr(known, name) and name not in kind.lacks
        for name in ("stream", "tools", "parallel_tools", "vision")
    }
    return Capabilities(
        chat=own.chat and known.chat and Endpoint.CHAT in kind.serves,
        context_window=own.context_window or known.context_window,
        **able,
    )


def _with_key(ctx: Context) -> frozenset[str]:
    known = credentials.list_credentials(ctx)
    return frozenset(provider.name for provider in known if not provider.lacks_key)


def _newest_verdicts(tx: Transaction) -> Mapping[str, str]:
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
