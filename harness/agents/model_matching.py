"""Finds the models that agents and clients name, lists models, and loads their figures. A name
is a route, `auto` for a route, or a literal model's exact or approximate name.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import zip_longest
from typing import Final

from pydantic import AliasGenerator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from harness.agents import agents
from harness.agents.records import Agents, Sessions
from harness.frame.records.transaction import Transaction
from harness.providers.records import DiscoveredModels, Providers
from harness.providers.target import ModelFigures, Target
from harness.registry import named_models, provider_secrets
from harness.routes import scorecard
from harness.routing.agent import (
    AUTO,
    ModelChoice,
    ModelKind,
    literal_choice,
    parse_routed_choice,
)
from harness.routing.context import Context
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts

MOST_MODELS: Final = 100  # each further step of the turn pays for the list again


class SwitchToolAnswer(BaseModel):
    model_config = ConfigDict(
        alias_generator=AliasGenerator(serialization_alias=to_camel), frozen=True
    )


class ListedModelAnswer(SwitchToolAnswer):
    """A model of a provider with a key. Prices are in USD per million tokens, null if unknown.
    listed_on: the last day on which the provider itself listed the model.
    """

    model: str
    input_usd_per_mtok: float | None
    output_usd_per_mtok: float | None
    context_window: int | None
    last_verdict: str | None
    routes: list[str]
    listed_on: str | None


class ListedProviderAnswer(SwitchToolAnswer):
    """A provider with a key. models: the number of its models that fit. shown: the number of
    them in the answer. note: why there may be more models.
    """

    provider: str
    models: int
    shown: int
    note: str | None


class SwitchModelAnswer(SwitchToolAnswer):
    """The result of a call of the switch tool. status: `listed` with routes, providers and
    models; `question` with the candidates that the name may mean; else the state of the
    request: `pending`, `approved`, `rejected`, `expired` or `cancelled`. omissions: parts of
    the conversation that the model will not get.
    """

    status: str
    message: str
    request: str | None = None
    model: str | None = None
    omissions: list[str] = []
    expires_at: datetime | None = None
    candidates: list[str] = []
    routes: list[str] = []
    providers: list[ListedProviderAnswer] = []
    models: list[ListedModelAnswer] = []


def read_model_choice(ctx: Context, text: str) -> ModelChoice:
    """Reads a model's name. Raises NotFound for an unknown name, AmbiguousName for several
    models, InputError for an empty name and for `auto` without a route.
    """
    with ctx.store.read() as tx:
        routes = frozenset(Routing(tx).table().routes)
        routed = parse_routed_choice(text, routes, default_route=ctx.agents.auto_route)
        if routed is not None:
            return routed
        target = named_models.find_listed_model(ctx, tx, text)
    return literal_choice(text, f"{target.provider}/{target.model}")


def choose_model(ctx: Context, text: str) -> ModelChoice:
    """Reads an agent's words as a model, under the exact name that a person approves. Raises as
    `read_model_choice`.
    """
    choice = read_model_choice(ctx, text)
    is_auto = choice.kind is ModelKind.AUTO
    exact = f"{AUTO}:{choice.route}" if is_auto else choice.target or choice.text
    return replace(choice, text=exact)


def describe_unchecked(ctx: Context, choices: Iterable[ModelChoice]) -> list[str]:
    named = [Target.from_name(choice.target) for choice in choices if choice.is_literal]
    with ctx.store.read() as tx:
        notes = (named_models.describe_unchecked(ctx, tx, target) for target in named)
        return [note for note in notes if note]


def list_for_session(ctx: Context, session: str, words: str) -> SwitchModelAnswer:
    with ctx.store.read() as tx:
        opened = agents.owner_of(tx, Agents(tx).get(Sessions(tx).get(session).agent)).routes
    return list_available(ctx, opened, words)


def list_available(ctx: Context, opened: frozenset[str], words: str) -> SwitchModelAnswer:
    """Lists the routes, and the models of providers with a key, evenly across providers.

    opened: the routes that the caller may see; empty for all.
    words: words that a model's name must contain.
    """
    needed = words.lower().split()
    with ctx.store.read() as tx:
        routes, providers = Routing(tx).table().routes, Providers(tx).all()
        usable = sorted(provider_secrets.find_usable(ctx, tx))
        verdicts = _newest_verdicts(tx)
        listed = {(m.provider, m.model): m.found_at for m in named_models.read_lists(tx)}
        has_list = {model.provider for model in DiscoveredModels(tx).all()}
    fits: dict[str, list[ListedModelAnswer]] = {name: [] for name in usable}
    for name, entry in named_models.list_configured_offers(ctx):
        provider, _, model = name.partition("/")
        if provider not in fits or not all(word in name.lower() for word in needed):
            continue
        can = named_models.model_capabilities(ctx, providers[provider], model)
        target, price = Target(provider, model).id, entry.price
        found_at = listed.get((provider, model))
        answer = ListedModelAnswer(
            model=name,
            input_usd_per_mtok=price.input_usd_per_mtok if price else None,
            output_usd_per_mtok=price.output_usd_per_mtok if price else None,
            context_window=can.context_window or entry.context_window,
            last_verdict=verdicts.get(target),
            routes=sorted(name for name, route in routes.items() if target in route.targets),
            listed_on=f"{found_at:%Y-%m-%d}" if found_at else None,
        )
        if can.chat:
            fits[provider].append(answer)
    alike = [model for row in zip_longest(*fits.values()) for model in row if model is not None]
    taken = alike[:MOST_MODELS]
    shown = Counter(model.model.partition("/")[0] for model in taken)
    rest = len(alike) - len(taken)
    more = f"; {rest} more: give words of the name as `model`" if rest else ""
    return SwitchModelAnswer(
        status="listed",
        message=f"{len(alike)} models of {len(usable)} providers{more}",
        routes=sorted(name for name in routes if not opened or name in opened),
        providers=[
            ListedProviderAnswer(
                provider=name,
                models=len(fits[name]),
                shown=shown[name],
                note=_note(name, len(fits[name]) - shown[name], has_list=name in has_list),
            )
            for name in usable
        ],
        models=sorted(taken, key=lambda model: model.model),
    )


def _note(provider: str, rest: int, *, has_list: bool) -> str | None:
    if rest:
        return f"{rest} more: give {provider} and words of the name as `model`"
    if not has_list:
        return f"`swapgate model discover {provider}` may find more models"
    return None


def load_figures(ctx: Context, tx: Transaction, target: Target, name: str = "") -> ModelFigures:
    """Loads a target's figures. name: the name to show; empty for the target's own."""
    provider = Providers(tx).all().get(target.provider)
    if provider is None:
        return ModelFigures(name or target.name)
    entry = ctx.catalogue.find(provider.kind, target.model)
    return ModelFigures(
        name or target.name,
        provider.prices.get(target.model) or (entry.price if entry else None),
        named_models.model_capabilities(ctx, provider, target.model).context_window,
        tuple(scorecard.load_target_scores(tx, target.id)),
        _newest_verdicts(tx).get(target.id, ""),
        unlisted=named_models.find_unlisted(tx, target),
    )


def _newest_verdicts(tx: Transaction) -> Mapping[str, str]:
    newest: dict[str, str] = {}
    for verdict in Verdicts(tx).list():
        text = f"{verdict.words} on {verdict.route}, {verdict.decided_at:%Y-%m-%d}"
        newest.setdefault(verdict.candidate, text)
    return newest
