"""Finds the models that agents and clients name, lists models, and loads their figures. A name
is a route, `auto` for a route, or a literal model's exact or approximate name.

Also finds the models that answer a session's next message, and pays for their calls.
`find_models` checks the agent's data class and grants again for each message, because routes
and grants change after an agent is created.

The docstrings of the answers' classes are texts for models and for the API. Literal names are
resolved in `harness.providers.registry.named_models`; this module adds the rules about an
agent's models.
"""

import asyncio
import errno
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import zip_longest
from typing import Final

from pydantic import AliasGenerator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from harness.agents import agents
from harness.agents.agents import check_target_data_class, require_route
from harness.agents.auto import AutoTargets
from harness.agents.context import AgentsContext
from harness.agents.message import (
    BYTES_PER_TOKEN,
    IncomingMessage,
    MessageUsage,
    SessionMessage,
)
from harness.agents.records import Agents, SessionMessages, Sessions
from harness.agents.turn import (
    ModelCallAnswer,
    ModelCallRequest,
    ModelCalls,
    OnPiece,
)
from harness.evals.month_spending import SpendingPurpose
from harness.evals.spending_meter import SpendingMeter, StoredSpending
from harness.frame.errors import (
    CallLimited,
    CallRefused,
    InputError,
    KeyRefused,
    NobodyAnswered,
    NotAllowed,
    RouterUnreachable,
    StoreUnavailable,
    SwapproofError,
)
from harness.frame.records.transaction import Transaction
from harness.providers.records import Providers, Targets
from harness.providers.registry import named_models, provider_secrets, targets
from harness.providers.target import (
    ModelFigures,
    Provider,
    Target,
    find_price,
)
from harness.routing.agent import (
    AUTO,
    LITERAL_MARK,
    Agent,
    AgentSession,
    ModelChoice,
    ModelKind,
    literal_choice,
    literal_route_name,
    parse_routed_choice,
)
from harness.routing.records.routes import Routing
from harness.routing.records.verdicts import Verdicts
from harness.routing.reports import scorecard


@dataclass(frozen=True, slots=True)
class CallableModel:
    """A model that the agents process may call, with its permission."""

    name: str  # the name in the session
    route: str  # the name in requests to the router
    grant: str = ""  # the grant's id; empty for a route
    target: str = ""  # id of the target that `auto` chose; empty for the route's incumbent
    reason: str = ""  # why `auto` chose the target; empty for any other model
    granted_to: str = ""  # the grant's session; empty for a grant for all sessions


@dataclass(frozen=True, slots=True)
class ModelsInForce:
    """The models of one turn: the session's model, and the agent's fallback if it may
    answer.
    """

    primary: CallableModel
    fallback: CallableModel | None = None
    providers: Mapping[str, Provider] = field(default_factory=dict, repr=False)  # for prices

    def cost_usd(self, target: str, usage: MessageUsage) -> float | None:
        """Returns the price of an answer; None if it is unknown.

        Args:
            target: `provider/model`.
        """
        price = find_price(self.providers, target)
        if price is None:
            return None
        return price.cost_usd(usage.input_tokens, usage.output_tokens, usage.cached_tokens)


def find_models(
    ctx: AgentsContext,
    agent: Agent,
    session: AgentSession,
    incoming: IncomingMessage,
    auto: AutoTargets,
) -> ModelsInForce:
    """Finds the models that answer a session's next message, `incoming`.

    Raises NotFound for a missing route, NotAllowed for a literal model without a grant in force
    and for a model that may not see the agent's data.
    """

    def find(choice: ModelChoice) -> CallableModel:
        with ctx.store.read() as tx:
            if choice.is_literal:
                return _find_literal(ctx, tx, choice, agent, session)
            route = require_route(ctx, tx, agent, choice.route)
            model = CallableModel(choice.text, route.name)
            if choice.kind is not ModelKind.AUTO:
                return model
            stored = SessionMessages(tx).list(session.id)
        new = SessionMessage("", 0, "", incoming.role, ctx.clock.now(), incoming.content)
        choice_by_auto = auto.find(ctx, agent, route, (*stored, new))
        chosen = choice_by_auto.chosen
        reason = f"{choice_by_auto.chosen.name}: {choice_by_auto.reason}"
        target_id = "" if chosen.target == route.incumbent else chosen.target
        return replace(model, target=target_id, reason=reason)

    primary = find(session.model)
    fallback = None
    # The session's model can answer without the fallback. If that model fails, the client gets
    # the error of that model.
    with suppress(SwapproofError):
        fallback = find(agent.fallback_model) if agent.fallback_model else None
    with ctx.store.read() as tx:
        return ModelsInForce(primary, fallback, Providers(tx).all())


def _find_literal(
    ctx: AgentsContext,
    tx: Transaction,
    choice: ModelChoice,
    agent: Agent,
    session: AgentSession,
) -> CallableModel:
    """Finds a literal model with its grant. A sub-task may use its parent's grant. Raises
    NotAllowed.
    """
    own_grant = agents.find_grant(ctx, tx, agent.id, session.id, choice.target)
    grant = own_grant or agents.find_grant(
        ctx, tx, agent.id, session.parent or "", choice.target
    )
    if grant is None:
        raise NotAllowed(
            f"model: the approval of {choice.text} for this session has ended; switch to "
            "another model, or have an approver PATCH the agent",
            code="model_not_approved",
        )
    check_target_data_class(ctx, agent.data_class, Targets(tx).all()[grant.target])
    route = literal_route_name(choice.target)
    return CallableModel(
        choice.text,
        route,
        grant=grant.id,
        granted_to=grant.session,
    )


# A provider charges nothing for these failures. After any other failure, such as a broken
# stream, the provider may have generated any number of tokens.
_FREE_FAILURES: Final = (
    CallLimited,
    CallRefused,
    InputError,
    KeyRefused,
    NobodyAnswered,
)
IMAGE_TOKENS: Final = 2_000  # estimate for an image
LONG_ANSWER: Final = 32_768  # tokens of an answer of unknown length


class PaidCalls:
    """Calls models within the monthly cap. Each target of a route must have a price, because
    only the answer names the target.
    """

    def __init__(self, ctx: AgentsContext, calls: ModelCalls) -> None:
        self._ctx = ctx
        self._calls = calls
        self.meter = SpendingMeter(StoredSpending(ctx.store), ctx.clock, SpendingPurpose.AGENTS)

    async def ask(
        self,
        models: ModelsInForce,
        request: ModelCallRequest,
        targets: Sequence[str],
        on_piece: OnPiece | None = None,
    ) -> ModelCallAnswer:
        """Calls a model, like `ModelCalls.ask`.

        Args:
            targets: names of the targets that may answer.

        Charges an interrupted call, or an answer without a token count, as a long answer of the
        most expensive target. Otherwise clients could evade the cap.
        """
        usage = MessageUsage(_estimate_input_tokens(request), LONG_ANSWER)
        charged_targets = targets
        try:
            answer = await self._calls.ask(request, on_piece)
            charged_targets = [answer.served.target]
            usage = answer.usage if answer.usage.tokens else usage
        except BaseException as error:
            charged_targets = () if _is_free(error) else charged_targets
            raise
        finally:
            costs = [models.cost_usd(target, usage) for target in charged_targets]
            if costs:
                known_costs = [cost for cost in costs if cost is not None]
                self.meter.pay(max(known_costs) if len(known_costs) == len(costs) else None)
        return answer

    async def find_targets(self, models: ModelsInForce, route: str) -> Sequence[str]:
        """Finds the names of the targets that may answer. Raises SpendingPaused if the cap is
        reached, and StoreUnavailable.
        """
        return await asyncio.to_thread(self._require_money, models, route)

    def close(self) -> None:
        """Stores the payments that are still in memory. They are lost if the database does not
        answer.
        """
        with suppress(StoreUnavailable):
            self.meter.refresh()

    def _require_money(self, models: ModelsInForce, name: str) -> Sequence[str]:
        """Returns the targets' names. Raises SpendingPaused if the cap is reached, or if there
        is a cap and one target has no price.
        """
        # Without a refresh, a new cap would apply too late.
        self.meter.refresh(at_once=True)
        with self._ctx.store.read() as tx:
            targets_by_id = Targets(tx).all()
            route = Routing(tx).table().routes.get(name)
        names = [name.removeprefix(LITERAL_MARK)]
        if route is not None:
            names = [targets_by_id[id_].name for id_ in sorted(route.targets)]
        unpriced = (name for name in names if find_price(models.providers, name) is None)
        self.meter.require_money(next(unpriced, ""))
        return names


def _is_free(error: BaseException) -> bool:
    """Returns whether the provider charged nothing for a failed call."""
    is_refused = getattr(error.__cause__, "errno", None) == errno.ECONNREFUSED
    return isinstance(error, _FREE_FAILURES) or (
        isinstance(error, RouterUnreachable) and is_refused
    )


def _estimate_input_tokens(request: ModelCallRequest) -> int:
    """Estimates the input's tokens from its bytes; an image counts as `IMAGE_TOKENS`."""
    images = 0
    texts = [tool.description + json.dumps(tool.parameters) for tool in request.tools]
    for message in request.messages:
        content = message["content"]
        parts = content if isinstance(content, list | tuple) else [{"text": content}]
        images += sum("image_url" in part for part in parts)
        texts += [str(part.get("text") or "") for part in parts]
        texts += [json.dumps(message.get("tool_calls", ()))]
    sizes = (len(text.encode("utf-8", "surrogatepass")) for text in texts)
    return images * IMAGE_TOKENS + sum(sizes) // BYTES_PER_TOKEN


MAX_LISTED_MODELS: Final = 100  # each further step of the turn pays for the list


class SwitchToolAnswer(BaseModel):
    model_config = ConfigDict(
        alias_generator=AliasGenerator(serialization_alias=to_camel),
        frozen=True,
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
    """A provider with a key. source: `listed` if the provider itself lists its models,
    `catalogue` if Swapproof does not know its list. models: number of matching models. shown:
    number of these in the answer. note: why there may be more models.
    """

    provider: str
    source: str
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


def read_model_choice(ctx: AgentsContext, text: str) -> ModelChoice:
    """Reads a model's name. Raises NotFound for an unknown name, AmbiguousName for several
    models, InputError for an empty name and for `auto` without a route.
    """
    with ctx.store.read() as tx:
        routes = frozenset(Routing(tx).table().routes)
        route_choice = parse_routed_choice(text, routes, default_route=ctx.agents.auto_route)
        if route_choice is not None:
            return route_choice
        target = named_models.find_listed_model(ctx, tx, text)
    return literal_choice(text, f"{target.provider}/{target.model}")


def choose_model(ctx: AgentsContext, text: str) -> ModelChoice:
    """Reads an agent's words as a model. Returns it with the exact name, which a person
    approves. Raises as `read_model_choice`.
    """
    choice = read_model_choice(ctx, text)
    is_auto = choice.kind is ModelKind.AUTO
    exact = f"{AUTO}:{choice.route}" if is_auto else choice.target or choice.text
    return replace(choice, text=exact)


def describe_unchecked(ctx: AgentsContext, choices: Iterable[ModelChoice]) -> list[str]:
    """Lists a warning for each literal model whose name Swapproof could not check."""
    targets = [Target.from_name(choice.target) for choice in choices if choice.is_literal]
    with ctx.store.read() as tx:
        notes = (named_models.describe_unchecked(ctx, tx, target) for target in targets)
        return [note for note in notes if note]


def list_for_session(
    ctx: AgentsContext,
    session: str,
    words: str,
) -> SwitchModelAnswer:
    """Lists the models for a session's agent, with the routes that the agent's key may use."""
    with ctx.store.read() as tx:
        visible_routes = agents.owner_of(
            tx, Agents(tx).get(Sessions(tx).get(session).agent)
        ).routes
    return list_available(ctx, visible_routes, words)


def list_available(
    ctx: AgentsContext,
    visible_routes: frozenset[str],
    words: str,
) -> SwitchModelAnswer:
    """Lists the routes, and the models of providers with a key, evenly across providers.

    Args:
        visible_routes: the routes that the caller may see; empty for all.
        words: words that a model's name must contain.
    """
    required_words = words.lower().split()
    with ctx.store.read() as tx:
        routes = Routing(tx).table().routes
        providers = Providers(tx).all()
        usable = sorted(provider_secrets.find_usable_providers(ctx, tx))
        verdicts = _load_newest_verdicts(tx)
        found_at_by_model = {
            (m.provider, m.model): m.found_at for m in named_models.read_lists(tx)
        }
        has_list = {provider for provider, _ in found_at_by_model}
    matches: dict[str, list[ListedModelAnswer]] = {name: [] for name in usable}
    for name, entry in named_models.list_configured_offers(ctx):
        provider, _, model = name.partition("/")
        if provider not in matches or not all(word in name.lower() for word in required_words):
            continue
        capabilities = named_models.model_capabilities(ctx, providers[provider], model)
        target = Target(provider, model).id
        price = entry.price
        found_at = found_at_by_model.get((provider, model))
        answer = ListedModelAnswer(
            model=name,
            input_usd_per_mtok=price.input_usd_per_mtok if price else None,
            output_usd_per_mtok=price.output_usd_per_mtok if price else None,
            context_window=capabilities.context_window or entry.context_window,
            last_verdict=verdicts.get(target),
            routes=sorted(name for name, route in routes.items() if target in route.targets),
            listed_on=f"{found_at:%Y-%m-%d}" if found_at else None,
        )
        if capabilities.chat:
            matches[provider].append(answer)
    matching_models = [
        model for row in zip_longest(*matches.values()) for model in row if model is not None
    ]
    listed_models = matching_models[:MAX_LISTED_MODELS]
    shown_count = Counter(model.model.partition("/")[0] for model in listed_models)
    omitted = len(matching_models) - len(listed_models)
    advice = f"; {omitted} more: give words of the name as `model`" if omitted else ""
    return SwitchModelAnswer(
        status="listed",
        message=f"{len(matching_models)} models of {len(usable)} providers{advice}",
        routes=sorted(name for name in routes if not visible_routes or name in visible_routes),
        providers=[
            ListedProviderAnswer(
                provider=name,
                source="listed" if name in has_list else "catalogue",
                models=len(matches[name]),
                shown=shown_count[name],
                note=_note_missing(
                    name,
                    len(matches[name]) - shown_count[name],
                    has_list=name in has_list,
                ),
            )
            for name in usable
        ],
        models=sorted(listed_models, key=lambda model: model.model),
    )


def _note_missing(
    provider: str,
    omitted: int,
    *,
    has_list: bool,
) -> str | None:
    if omitted:
        return f"{omitted} more: give {provider} and words of the name as `model`"
    if not has_list:
        return f"`swapproof model discover {provider}` may find more models"
    return None


def load_figures(
    ctx: AgentsContext,
    tx: Transaction,
    target: Target,
    name: str = "",
) -> ModelFigures:
    """Loads a target's figures.

    Args:
        name: the name to show; empty for the target's own.
    """
    provider = Providers(tx).all().get(target.provider)
    if provider is None:
        return ModelFigures(name or target.name)
    return ModelFigures(
        name or target.name,
        targets.load_price(ctx, tx, target).price,
        named_models.model_capabilities(ctx, provider, target.model).context_window,
        tuple(scorecard.load_target_scores(ctx, tx, target.id)),
        _load_newest_verdicts(tx).get(target.id, ""),
        unlisted=named_models.describe_missing_in_list(tx, target),
    )


def _load_newest_verdicts(tx: Transaction) -> Mapping[str, str]:
    """Maps a target's id to a text about its newest verdict on any route."""
    newest: dict[str, str] = {}
    for verdict in Verdicts(tx).list():
        text = f"{verdict.words} on {verdict.route}, {verdict.decided_at:%Y-%m-%d}"
        newest.setdefault(verdict.candidate, text)
    return newest
