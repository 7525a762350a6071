"""Finds the models that answer a session's next message, and pays for their calls.

`find_models` checks the agent's data class and grants again for each message, because routes
and grants change after an agent is created.
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
from harness.providers.records import Providers
from harness.providers.target import Provider, find_price
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
    name: str  # the session's name of the model
    route: str  # the router's name of the model
    grant: str = ""  # id; empty for a route
    target: str = ""  # id of the target that `auto` chose; empty for the route's incumbent
    reason: str = ""  # why `auto` chose the target; empty for any other model
    granted_to: str = ""  # id of the session of the grant; empty for a grant for all sessions


@dataclass(frozen=True, slots=True)
class ModelsInForce:
    primary: CallableModel
    fallback: CallableModel | None = None
    providers: Mapping[str, Provider] = field(default_factory=dict, repr=False)  # for prices

    def cost_usd(self, target: str, usage: MessageUsage) -> float | None:
        """The price of an answer; None if unknown. target: `provider/model`."""
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
        found = auto.find(ctx, agent, route, (*stored, new))
        chosen, reason = found.chosen, f"{found.chosen.name}: {found.reason}"
        first = "" if chosen.target == route.incumbent else chosen.target
        return replace(model, target=first, reason=reason)

    primary, fallback = find(session.model), None
    # The session's model may answer without the fallback. If it fails, the client gets its
    # error, not the fallback's.
    with suppress(SwapgateError):
        fallback = find(agent.fallback_model) if agent.fallback_model else None
    with ctx.store.read() as tx:
        return ModelsInForce(primary, fallback, Providers(tx).all())


def _find_literal(
    ctx: Context, tx: Transaction, choice: ModelChoice, agent: Agent, session: AgentSession
) -> CallableModel:
    """Uses the session's own grant, or its parent's: an approval of sub-tasks grants to the
    parent.
    """
    own = agents.find_grant(ctx, tx, agent.id, session.id, choice.target)
    grant = own or agents.find_grant(ctx, tx, agent.id, session.parent or "", choice.target)
    if grant is None:
        raise NotAllowed(
            f"model: the approval of {choice.text} for this session has ended; switch to "
            "another model, or have an approver PATCH the agent",
            code="model_not_approved",
        )
    check_target_data_class(ctx, agent.data_class, Routing(tx).targets()[grant.target])
    route = literal_route_name(choice.target)
    return CallableModel(choice.text, route, grant=grant.id, granted_to=grant.session)


# A provider charges nothing for these failures. After any other failure, such as a broken
# stream, the provider may have generated any number of tokens.
_FREE: Final = (CallLimited, CallRefused, InputError, KeyRefused, NobodyAnswered)
IMAGE_TOKENS: Final = 2_000  # estimate for an image
LONG_ANSWER: Final = 32_768  # tokens of an answer of unknown length


class PaidCalls:
    """Calls models within the monthly cap. A route's target is known only after its answer, so
    each target of the route must have a price.
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
        """Calls as `ModelCalls` does. targets: names of the targets that may answer.

        An interrupted call, or an answer without a token count, is charged as a long answer of
        the most expensive target, so that clients cannot evade the cap.
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
        """Finds the names of the targets that may answer. Raises SpendingPaused if the cap is
        reached, and StoreUnavailable.
        """
        return await asyncio.to_thread(self._require_money, models, route)

    def close(self) -> None:
        with suppress(StoreUnavailable):
            self.meter.refresh()

    def _require_money(self, models: ModelsInForce, name: str) -> Sequence[str]:
        # A new cap applies at once.
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
