"""An agent is a name, a model and tools, with which sessions are held; a session is one
conversation, its model in force and its state. Pure.

A model choice is what an agent or a session is told to answer with: a route, `auto` for a
route, or a literal target. An agent grant, a person's signed consent that the router verifies,
lets an agent or one of its sessions answer with a literal target until it expires.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.frame.errors import Conflict, InputError

AUTO: Final = "auto"
# No route's name begins with it: what the router calls a literal target.
LITERAL_MARK: Final = "@"


class ModelKind(StrEnum):
    ROUTE = "route"
    AUTO = "auto"  # the cheapest target with valid proof for the route
    LITERAL = "literal"  # one target, which has no proof for any route


@dataclass(frozen=True, slots=True)
class ModelChoice:
    text: str  # as the client wrote it, such as `openai:gpt-4o-mini`
    kind: ModelKind
    route: str = ""  # of ROUTE and AUTO
    target: str = ""  # of LITERAL, `provider/model`

    @property
    def is_literal(self) -> bool:
        return self.kind is ModelKind.LITERAL

    def means(self, other: "ModelChoice") -> bool:
        own = (self.kind, self.route, self.target)
        return own == (other.kind, other.route, other.target)


def parse_routed_choice(
    text: str, routes: Collection[str], *, default_route: str = ""
) -> ModelChoice | None:
    """The choice of a route or of `auto`; None where the name is neither: it may be a literal
    target. Raises InputError for an empty text, and for an `auto` without a route or with one
    that there is not. default_route: of a plain `auto`.
    """
    wanted = text.strip()
    if not wanted:
        raise InputError("model: it is empty; name a route, auto:ROUTE or PROVIDER:MODEL")
    if wanted in routes:
        return ModelChoice(wanted, ModelKind.ROUTE, route=wanted)
    head, colon, rest = wanted.partition(":")
    if head != AUTO:
        return None
    route = rest if colon else default_route
    if not route:
        raise InputError("model: auto needs a route to choose for; write auto:ROUTE")
    if route not in routes:
        raise InputError(f"model: {wanted!r} names the route {route!r}, which there is not")
    return ModelChoice(wanted, ModelKind.AUTO, route=route)


def literal_choice(text: str, target: str) -> ModelChoice:
    """The choice of one target. target: `provider/model`, as the name was resolved."""
    return ModelChoice(text.strip(), ModelKind.LITERAL, target=target)


def literal_route_name(target: str) -> str:
    return f"{LITERAL_MARK}{target}"


SWITCH_MODEL: Final = "switch_model"
MANAGE_CREDENTIALS: Final = "manage_credentials"
SPAWN: Final = "spawn"
BUILT_IN_TOOLS: Final = (SWITCH_MODEL, MANAGE_CREDENTIALS, SPAWN)


@dataclass(frozen=True, slots=True)
class AgentTool:
    """A tool that an agent may use: a built-in one, one of a configured tool server (`SERVER`
    for all of its tools, `SERVER.TOOL`), or a function of the client's.
    """

    name: str
    # Of a function of the client's; None for a tool that runs on the server.
    parameters: Mapping[str, object] | None = None
    description: str = ""

    @property
    def runs_at_client(self) -> bool:
        return self.parameters is not None

    @property
    def runs_in_sub_tasks(self) -> bool:
        return not self.runs_at_client and self.name not in (SWITCH_MODEL, SPAWN)

    def is_of_server(self, servers: Collection[str]) -> bool:
        server, dot, name = self.name.partition(".")
        return not self.runs_at_client and server in servers and bool(name) == bool(dot)


@dataclass(frozen=True, slots=True)
class Agent:
    id: str  # `ag_…`
    name: str
    model: ModelChoice
    created_at: datetime
    updated_at: datetime
    description: str = ""
    instructions: str = ""  # the system message of every session
    tools: tuple[AgentTool, ...] = ()
    fallback_model: ModelChoice | None = None  # for retryable failures of `model`
    data_class: str = ""  # of everything that its sessions carry; empty for none
    # Id of the data key that created it, which alone sees it; None where a person did.
    owner_key: str | None = None
    deleted_at: datetime | None = None


# A process renews the leases of its turns in less than half of it.
LEASE: Final = timedelta(seconds=20)


class SessionState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class AgentSession:
    id: str  # `se_…`
    agent: str
    model: ModelChoice  # in force for the next message
    created_at: datetime
    last_at: datetime  # of the newest message
    user_id: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    state: SessionState = SessionState.OPEN
    parent: str | None = None  # the session that spawned it
    cost_usd: float = 0.0  # of all its messages and those of its children
    # The turn that runs, `tu_…`, in which process, until when it lives; empty for none.
    turn: str = ""
    owner: str = ""
    lease_until: datetime | None = None

    def without_turn(self) -> "AgentSession":
        return replace(self, turn="", owner="", lease_until=None)

    def has_lapsed(self, now: datetime) -> bool:
        """Whether the process of its turn is dead. A lease that ends much later was written by
        a clock that has been set back since.
        """
        until = self.lease_until
        return until is not None and not now < until <= now + 2 * LEASE

    def require_open(self) -> None:
        if self.state is SessionState.CLOSED:
            raise Conflict(
                f"session {self.id} is closed; open another one", code="session_closed"
            )


class GrantKind(StrEnum):
    BASELINE = "baseline"  # with the agent's creation
    CHANGE = "change"  # of the agent's model later
    SWITCH = "switch"  # for one session, by its own request
    FALLBACK = "fallback"  # the agent's fallback model


@dataclass(frozen=True, slots=True)
class AgentGrant:
    """A literal target that an agent, or one session of it, may use. Stored signed."""

    id: str  # `gr_…`
    agent: str
    target: str  # target id
    target_name: str  # `provider/model`
    kind: GrantKind
    granted_by: str  # the principal who consented
    granted_with: str | None  # the management key's id; None for the local operator
    reason: str
    created_at: datetime
    expires_at: datetime
    session: str = ""  # empty for all sessions of the agent
    data_class: str = ""  # of what goes to the target
    revoked_at: datetime | None = None
    request: str = ""  # of SWITCH, the switch request that a person approved

    def opens(self, agent: str, session: str, now: datetime) -> bool:
        return (
            self.agent == agent
            and self.session in ("", session)
            and self.revoked_at is None
            and now < self.expires_at
        )
