"""The models in force are what a session's next message is asked of: the session's model and
its agent's fallback, as the router names them, each with the grant that opens a target that is
not the route's own choice. Here the agent's class of data is held against each of them as it is
now, whoever created, changed, switched or spawned.
"""

import asyncio
import errno
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from harness.agents import agents
from harness.agents.agents import check_target_data_class, require_route
from harness.agents.auto import AutoTargets
from harness.agents.message import (
    BYTES_PER_TOKEN,
    IncomingMessage,
    MessageUsage,
    SessionMessage,
)
from harness.agents.records import SessionMessages
from harness.agents.turn import ModelCallAnswer, ModelCallRequest, ModelCalls, OnPiece
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
    SwapgateError,
)
from harness.frame.records.transaction import Transaction
from harness.providers.models.model_figures import find_price
from harness.providers.records import Providers
from harness.providers.target import Provider
from harness.routing.agent import (
    LITERAL_MARK,
    Agent,
    AgentSession,
    ModelChoice,
    ModelKind,
    literal_route_name,
)
from harness.routing.context import Context
from harness.routing.records.routes import Routing


@dataclass(frozen=True, slots=True)
class CallableModel:
    name: str  # as the session has it
    route: str  # as the router names it
    grant: str = ""  # id; empty for a route
    target: str = ""  # of `auto`, the id of the target to ask first
    reason: str = ""  # who answers for `auto`, and why; empty for any other model
    # Of a grant for one session, that session; empty for all others.
    granted_to: str = ""


@dataclass(frozen=True, slots=True)
class ModelsInForce:
    primary: CallableModel
    fallback: CallableModel | None = None  # None where the agent has none that may be asked
    providers: Mapping[str, Provider] = field(default_factory=dict, repr=False)  # for prices

    def cost_usd(self, target: str, usage: MessageUsage) -> float | None:
        """The price of an answer; None where it is not known. target: `provider/model`."""
        price = find_price(self.providers, target)
        if price is None:
            return None
        return price.cost_usd(usage.input_tokens, usage.output_tokens, usage.cached_tokens)


def find_models(
    ctx: Context,
    agent: Agent,
    session: AgentSession,
    incoming: IncomingMessage,
    auto: AutoTargets,
) -> ModelsInForce:
    """Finds the models that a session's next message is sent to. incoming: that message. Raises
    NotFound for a route that there is no more, NotAllowed for a literal model whose grant is
    over, and for a model that may not see the agent's data any more.
    """

    def find(choice: ModelChoice) -> CallableModel:
        with ctx.store.read() as tx:
            if choice.is_literal:
                return _find_literal(ctx, tx, choice, agent, session)
            route = require_route(ctx, tx, agent, choice.route)
            model = CallableModel(choice.text, route.name)
            if choice.kind is not ModelKind.AUTO:
                return model
            said = SessionMessages(tx).list(session.id)
        # As the conversation will have it, for what it takes to answer it.
        new = SessionMessage("", 0, "", incoming.role, ctx.clock.now(), incoming.content)
        found = auto.find(ctx, agent, route, (*said, new))
        chosen, reason = found.chosen, f"{found.chosen.name}: {found.reason}"
        first = "" if chosen.target == route.incumbent else chosen.target
        return replace(model, target=first, reason=reason)

    primary, fallback = find(session.model), None
    # Without its fallback the session's model may answer all the same. Where it does not, its
    # failure is what the client is told.
    with suppress(SwapgateError):
        fallback = find(agent.fallback_model) if agent.fallback_model else None
    with ctx.store.read() as tx:
        return ModelsInForce(primary, fallback, Providers(tx).all())


def _find_literal(
    ctx: Context, tx: Transaction, choice: ModelChoice, agent: Agent, session: AgentSession
) -> CallableModel:
    """By the session's own grant, or that of the session that spawned it: what a person
    approved for a set of sub-tasks is granted to that one.
    """
    own = agents.find_grant(ctx, tx, agent.id, session.id, choice.target)
    grant = own or agents.find_grant(ctx, tx, agent.id, session.parent or "", choice.target)
    if grant is None:
        raise NotAllowed(
            f"model: {choice.text} is not approved for this session any more; switch to "
            "another model, or have an approver PATCH the agent",
            code="model_not_approved",
        )
    check_target_data_class(ctx, agent.data_class, Routing(tx).targets()[grant.target])
    route = literal_route_name(choice.target)
    return CallableModel(choice.text, route, grant=grant.id, granted_to=grant.session)


# No answer came of it that anybody is charged for. What else ends a call, such as a stream that
# broke, or a turn that was cancelled, leaves open how much the provider did.
_FREE: Final = (CallLimited, CallRefused, InputError, KeyRefused, NobodyAnswered)
# Tokens, of one picture and of an answer whose length is not known.
IMAGE_TOKENS: Final = 2_000
LONG_ANSWER: Final = 32_768


class PaidCalls:
    """The calls of this process's turns, within the monthly cap: once it is reached, no answer
    is asked for. The target is known only after its answer, so each target of the route must
    have a price.
    """

    def __init__(self, ctx: Context, calls: ModelCalls) -> None:
        self._ctx, self._calls = ctx, calls
        self.meter = SpendingMeter(StoredSpending(ctx.store), ctx.clock, SpendingPurpose.AGENTS)

    async def ask(
        self,
        models: ModelsInForce,
        request: ModelCallRequest,
        targets: Sequence[str],
        on_piece: OnPiece | None = None,
    ) -> ModelCallAnswer:
        """Asks as `ModelCalls` does. models: with their prices. targets: that may answer.

        A call that breaks off, or whose tokens were not counted, costs as much as a long answer
        of the dearest target: a client that always breaks off reaches the cap as well.
        """
        used, charged = MessageUsage(_input_tokens(request), LONG_ANSWER), targets
        try:
            answer = await self._calls.ask(request, on_piece)
            charged = [answer.served.target]
            used = answer.usage if answer.usage.tokens else used
        except BaseException as error:
            charged = () if _is_free(error) else charged
            raise
        finally:
            costs = [models.cost_usd(target, used) for target in charged]
            if costs:
                known = [cost for cost in costs if cost is not None]
                self.meter.pay(max(known) if len(known) == len(costs) else None)
        return answer

    async def find_targets(self, models: ModelsInForce, route: str) -> Sequence[str]:
        """Finds the names of the targets that may answer. Raises SpendingPaused where the cap
        is reached, and StoreUnavailable.
        """
        return await asyncio.to_thread(self._require_money, models, route)

    def close(self) -> None:
        with suppress(StoreUnavailable):
            self.meter.refresh()

    def _require_money(self, models: ModelsInForce, name: str) -> Sequence[str]:
        # A cap that was set a moment ago counts.
        self.meter.refresh(at_once=True)
        with self._ctx.store.read() as tx:
            known = Routing(tx).targets()
            route = Routing(tx).table().routes.get(name)
        names = [name.removeprefix(LITERAL_MARK)]
        if route is not None:
            names = [known[id_].name for id_ in sorted(route.targets)]
        unpriced = (name for name in names if find_price(models.providers, name) is None)
        self.meter.require_money(next(unpriced, ""))
        return names


def _is_free(error: BaseException) -> bool:
    is_refused = getattr(error.__cause__, "errno", None) == errno.ECONNREFUSED
    return isinstance(error, _FREE) or (isinstance(error, RouterUnreachable) and is_refused)


def _input_tokens(request: ModelCallRequest) -> int:
    """About how many the input has, by its bytes; an image's data are no text."""
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
