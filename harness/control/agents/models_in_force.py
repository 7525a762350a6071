"""The models in force are what a session's next message is asked of: the session's model and
its agent's fallback, as the router names them, each with the grant that opens a target that is
not the route's own choice. Here the agent's class of data is held against each of them as it is
now, whoever created, changed, switched or spawned.

`PaidCalls` keeps what turns ask within the monthly cap: once it is reached, no answer is asked
for. The target is known only after its answer, so each target of the route must have a price.
"""

import asyncio
import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final

from harness.control.agents import sessions
from harness.control.agents.agents import check_target_data_class, require_route
from harness.control.agents.auto import AutoTargets
from harness.control.context import Context
from harness.control.operations.spending_meter import SpendingMeter
from harness.domain.agents.agent import (
    LITERAL_MARK,
    Agent,
    AgentSession,
    ModelChoice,
    ModelKind,
    literal_route_name,
)
from harness.domain.agents.message import IncomingMessage, MessageUsage, SessionMessage
from harness.domain.agents.model_call import (
    UNSEEN_TOKENS,
    AnswerPiece,
    ModelCallAnswer,
    ModelCallRequest,
    ModelCalls,
    approx_tokens,
)
from harness.domain.agents.model_figures import find_price
from harness.domain.errors import (
    CallRefused,
    InputError,
    KeyRefused,
    NobodyAnswered,
    NotAllowed,
    RouterUnreachable,
    StoreUnavailable,
    SwapgateError,
)
from harness.domain.operations.spending import SpendingPurpose
from harness.domain.routing.table import Route
from harness.domain.routing.target import Provider
from harness.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class CallableModel:
    name: str  # as the session has it
    route: str  # as the router names it
    provider: str  # that will most likely answer: the incumbent's
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
            model = _on_route(tx, choice, route)
            if choice.kind is not ModelKind.AUTO:
                return model
            said = tx.session_messages.list(session.id)
        # As the conversation will have it, for what it takes to answer it.
        new = SessionMessage("", 0, "", incoming.role, ctx.clock.now(), incoming.content)
        found = auto.find(ctx, agent, route, (*said, new))
        chosen, reason = found.chosen, f"{found.chosen.name}: {found.reason}"
        provider = chosen.name.partition("/")[0]
        target = "" if found.is_incumbent else chosen.target
        return replace(model, provider=provider, target=target, reason=reason)

    primary = find(session.model)
    fallback = None
    try:
        if agent.fallback_model is not None:
            fallback = find(agent.fallback_model)
    except SwapgateError:
        # The session's model may answer all the same. Where it does not, its failure is what
        # the client is told.
        fallback = None
    with ctx.store.read() as tx:
        return ModelsInForce(primary, fallback, tx.providers.all())


def _on_route(tx: Transaction, choice: ModelChoice, route: Route) -> CallableModel:
    """Of `auto` too: the incumbent is what the route answers with where nothing is known."""
    incumbent = tx.routing.targets()[route.incumbent]
    return CallableModel(choice.text, route.name, incumbent.provider)


def _find_literal(
    ctx: Context, tx: Transaction, choice: ModelChoice, agent: Agent, session: AgentSession
) -> CallableModel:
    """By the session's own grant, or that of the session that spawned it: what a person
    approved for a set of sub-tasks is granted to that one.
    """
    own = sessions.find_grant(ctx, tx, agent.id, session.id, choice.target)
    grant = own or sessions.find_grant(ctx, tx, agent.id, session.parent or "", choice.target)
    if grant is None:
        raise NotAllowed(
            f"model: {choice.text} is not approved for this session any more; switch to "
            "another model, or have an approver PATCH the agent",
            code="model_not_approved",
        )
    check_target_data_class(ctx, agent.data_class, tx.routing.targets()[grant.target])
    provider, route = choice.target.partition("/")[0], literal_route_name(choice.target)
    return CallableModel(choice.text, route, provider, grant=grant.id, granted_to=grant.session)


# No answer came of it that anybody is charged for. What else ends a call, such as a stream that
# broke, or a turn that was cancelled, leaves open how much the provider did.
_FREE: Final = (CallRefused, InputError, KeyRefused, NobodyAnswered)


class PaidCalls:
    """The calls of this process's turns, within the monthly cap. Belongs to one event loop."""

    def __init__(self, ctx: Context, calls: ModelCalls) -> None:
        self._ctx, self._calls = ctx, calls
        self.meter = SpendingMeter(ctx.store, ctx.clock, SpendingPurpose.AGENTS)

    async def ask(
        self,
        models: ModelsInForce,
        request: ModelCallRequest,
        on_piece: Callable[[AnswerPiece], None] | None = None,
    ) -> ModelCallAnswer:
        """Asks as `ModelCalls` does. Raises SpendingPaused where the cap is reached, and
        StoreUnavailable. models: with their prices.

        A call that breaks off is charged by its estimated tokens, at the price of the dearest
        target that may have answered: a client that always breaks off spends as well.
        """
        targets = await asyncio.to_thread(self._require_money, models, request)
        output = 0

        def count(piece: AnswerPiece) -> None:
            nonlocal output
            output += approx_tokens(piece.text + piece.reasoning + piece.calls)
            if on_piece is not None:
                on_piece(piece)

        def pay(targets: Iterable[str], output: int) -> None:
            used = MessageUsage(request.approx_tokens, output)
            costs = [models.cost_usd(target, used) for target in targets]
            known = [cost for cost in costs if cost is not None]
            self.meter.pay(max(known) if known and len(known) == len(costs) else None)

        try:
            answer = await self._calls.ask(request, count if on_piece else None)
        except BaseException as error:
            if not _is_free(error):
                pay(targets, output or UNSEEN_TOKENS)
            raise
        served = answer.served.target
        if answer.usage.tokens:
            self.meter.pay(models.cost_usd(served, answer.usage))
        else:
            calls = "".join(call.name + call.arguments for call in answer.tool_calls)
            pay([served], approx_tokens(answer.text + calls))
        return answer

    def close(self) -> None:
        with suppress(StoreUnavailable):
            self.meter.refresh()

    def _require_money(self, models: ModelsInForce, request: ModelCallRequest) -> Sequence[str]:
        """Names the targets that may answer."""
        # A cap that was set a moment ago counts.
        self.meter.refresh(at_once=True)
        with self._ctx.store.read() as tx:
            names = _target_names(tx, request)
        unpriced = (name for name in names if find_price(models.providers, name) is None)
        self.meter.require_money(next(unpriced, "" if names else request.model))
        return names


def _is_free(error: BaseException) -> bool:
    """Whether no provider was asked, or none answered."""
    is_refused = getattr(error.__cause__, "errno", None) == errno.ECONNREFUSED
    return isinstance(error, _FREE) or (isinstance(error, RouterUnreachable) and is_refused)


def _target_names(tx: Transaction, request: ModelCallRequest) -> Sequence[str]:
    known = tx.routing.targets()
    route = tx.routing.table().routes.get(request.model)
    if route is not None:
        return [known[id_].name for id_ in sorted(route.targets)]
    name = request.model.removeprefix(LITERAL_MARK)
    return [target.name for target in known.values() if target.name == name]
