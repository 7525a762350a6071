"""The models in force are what a session's next message is asked of: the session's model and
its agent's fallback, as the router names them, each with the grant that opens a literal one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.control.agents import sessions
from harness.control.context import Context
from harness.domain.agents.agent import Agent, AgentSession
from harness.domain.agents.message import MessageUsage
from harness.domain.agents.model_choice import ModelChoice, literal_route_name
from harness.domain.errors import NotAllowed, NotFound, SwapgateError
from harness.domain.routing.target import Provider
from harness.ports import Transaction


@dataclass(frozen=True, slots=True)
class CallableModel:
    """A model as it is asked."""

    asked: str  # as the session has it
    route: str  # as the router names it
    provider: str  # that will most likely answer: the incumbent's
    grant: str = ""  # id; empty for a route


@dataclass(frozen=True, slots=True)
class ModelsInForce:
    """What a turn may ask."""

    primary: CallableModel
    fallback: CallableModel | None = None  # None where the agent has none that may be asked
    providers: Mapping[str, Provider] = field(default_factory=dict, repr=False)  # for prices

    def cost_usd(self, target: str, usage: MessageUsage) -> float | None:
        """The price of an answer; None where it is not known. target: `provider/model`."""
        name, _, model = target.partition("/")
        provider = self.providers.get(name)
        if provider is None:
            return None
        # A target with parameters of its own has a short id behind its name.
        price = provider.prices.get(model) or provider.prices.get(model.rpartition("#")[0])
        if price is None:
            return None
        return price.cost_usd(usage.input_tokens, usage.output_tokens, usage.cached_tokens)


def find_models(ctx: Context, agent: Agent, session: AgentSession) -> ModelsInForce:
    """Raises NotFound for a route that there is no more, NotAllowed for a literal model whose
    grant is over.
    """
    with ctx.store.read() as tx:
        primary = _find(ctx, tx, session.model, agent, session)
        fallback = None
        if agent.fallback_model is not None:
            try:
                fallback = _find(ctx, tx, agent.fallback_model, agent, session)
            except SwapgateError:
                # The session's model may answer all the same. Where it does not, its failure
                # is what the client is told.
                fallback = None
        return ModelsInForce(primary, fallback, tx.providers.all())


def _find(
    ctx: Context, tx: Transaction, choice: ModelChoice, agent: Agent, session: AgentSession
) -> CallableModel:
    if not choice.is_literal:
        # Of `auto` too: the incumbent is what the route answers with where nothing is known.
        return CallableModel(choice.text, choice.route, _incumbent_provider(tx, choice.route))
    grant = sessions.find_grant(ctx, tx, agent.id, session.id, choice.target)
    if grant is None:
        raise NotAllowed(
            f"model: {choice.text} is not approved for this session any more; switch to "
            "another model, or have an approver PATCH the agent",
            code="model_not_approved",
        )
    provider = choice.target.partition("/")[0]
    return CallableModel(choice.text, literal_route_name(choice.target), provider, grant.id)


def _incumbent_provider(tx: Transaction, name: str) -> str:
    """Raises NotFound without the route."""
    route = tx.routing.route(name)
    if route is None:
        raise NotFound(
            f"model: there is no route {name!r} any more; PATCH the agent to another model",
            code="model_not_found",
        )
    return tx.routing.targets()[route.incumbent].provider
