"""An `AgentsClient` is on whose behalf a request about agents is made, which agents it sees,
and who of it may consent to a literal model.
"""

from dataclasses import dataclass, replace

from harness.domain.agents.agent import Agent
from harness.domain.errors import NotAllowed, NotFound
from harness.domain.operations.access import Actor, ApiKey, Role
from harness.domain.operations.principals import OPERATOR
from harness.store.transaction import Transaction


@dataclass(frozen=True, slots=True)
class AgentsClient:
    """A data key, a person or service with a management key, or this machine's operator, who
    asks over loopback without one.
    """

    # The data key's id; None for the others.
    key: str | None = None
    routes: frozenset[str] = frozenset()  # that the data key opens; empty for all
    actor: Actor | None = None  # None for a data key
    is_open: bool = False  # without any key

    @classmethod
    def of_data_key(cls, key: ApiKey) -> "AgentsClient":
        return cls(key=key.id, routes=key.routes)

    @classmethod
    def of_person(cls, actor: Actor) -> "AgentsClient":
        return cls(actor=actor)

    @classmethod
    def of_operator(cls) -> "AgentsClient":
        """No more than it takes to consent to a model: it is not known who asks."""
        return cls(actor=replace(OPERATOR, role=Role.APPROVER), is_open=True)

    @property
    def name(self) -> str:
        """What tells clients apart, such as their idempotency keys."""
        if self.key is not None:
            return f"key:{self.key}"
        return f"principal:{self.actor.principal if self.actor else ''}"

    def sees(self, agent: Agent) -> bool:
        if self.key is not None:
            return agent.owner_key == self.key
        return not (self.is_open and agent.owner_key is not None)

    def find_agent(self, tx: Transaction, id_: str, *, lock: bool = False) -> Agent:
        """Finds an agent of this client. Raises NotFound for a deleted one, and for others',
        which are not even said to be there. lock: nobody else changes it before the unit of
        work ends.
        """
        agent = tx.agents.lock(id_) if lock else tx.agents.get(id_)
        if not self.sees(agent):
            raise NotFound(f"there is no agent {id_}", code="agent_not_found")
        if agent.deleted_at is not None:
            raise NotFound(f"agent {id_} is deleted", code="agent_not_found")
        return agent

    def require_write(self) -> None:
        """Refuses a person who may only look with NotAllowed."""
        if self.actor is not None:
            self.actor.require(Role.PROPOSER)

    def require_route(self, route: str) -> None:
        """Refuses a route that the data key does not open with NotAllowed."""
        if self.routes and route not in self.routes:
            raise NotAllowed(
                f"model: this key does not open the route {route!r}; name another one",
                code="route_not_allowed",
            )

    def require_consent(self) -> Actor:
        """Returns the person who may consent to a literal model. Raises NotAllowed."""
        if self.actor is None:
            raise NotAllowed(
                "model: a literal model has no proof for any route, so a person consents to "
                "it: send a management key of an approver, or name a route",
                code="approval_needed",
            )
        self.actor.require(Role.APPROVER)
        return self.actor
