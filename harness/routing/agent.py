"""Agents, their sessions, and the models that they may use. Pure.

A model choice names a route, `auto` for a route, or a literal target. An agent grant is a
person's signed consent to a literal target until it expires; the router verifies it.

`harness.agents` calls the models and stores the turns. `harness.agents.auto` chooses the target
for `auto`.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from harness.frame.errors import Conflict, InputError

AUTO: Final = "auto"
# Marks a literal target in the router. No route's name has this prefix.
LITERAL_MARK: Final = "@"


class ModelKind(StrEnum):
    """How a model choice names its target, and so which proof it needs."""

    ROUTE = "route"
    AUTO = "auto"  # the cheapest target with valid proof for the route
    LITERAL = "literal"  # one target, without proof for any route


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A client's choice of a model, parsed. Two texts may mean the same choice (`means`)."""

    text: str  # as the client wrote it, such as `openai:gpt-6-luna`
    kind: ModelKind
    route: str = ""  # empty for LITERAL
    target: str = ""  # `provider/model` for LITERAL, else empty

    @property
    def is_literal(self) -> bool:
        return self.kind is ModelKind.LITERAL

    def means(self, other: "ModelChoice") -> bool:
        """Tells whether both choices lead to the same model, whatever their texts are."""
        fields = (self.kind, self.route, self.target)
        return fields == (other.kind, other.route, other.target)


def parse_routed_choice(
    text: str,
    routes: Collection[str],
    *,
    default_route: str = "",
) -> ModelChoice | None:
    """Parses a choice of a route or of `auto`; None for another name, which may be a literal
    target.

    Args:
        default_route: the route for `auto` without a route.

    Raises InputError for an empty text, and for an `auto` without an existing route.
    """
    name = text.strip()
    if not name:
        raise InputError("model: it is empty; name a route, auto:ROUTE or PROVIDER:MODEL")
    if name in routes:
        return ModelChoice(name, ModelKind.ROUTE, route=name)
    head, colon, rest = name.partition(":")
    if head != AUTO:
        return None
    route = rest if colon else default_route
    if not route:
        raise InputError("model: auto needs a route to choose for; write auto:ROUTE")
    if route not in routes:
        raise InputError(f"model: there is no route {route!r}; name another one as auto:ROUTE")
    return ModelChoice(name, ModelKind.AUTO, route=route)


def literal_choice(text: str, target: str) -> ModelChoice:
    """Builds the choice of one target.

    Args:
        target: `provider/model`, resolved from `text`.
    """
    return ModelChoice(text.strip(), ModelKind.LITERAL, target=target)


def literal_route_name(target: str) -> str:
    """Returns the name of the route under which the router serves a granted literal target."""
    return f"{LITERAL_MARK}{target}"


SWITCH_MODEL: Final = "switch_model"
MANAGE_CREDENTIALS: Final = "manage_credentials"
SPAWN: Final = "spawn"
BUILT_IN_TOOLS: Final = (SWITCH_MODEL, MANAGE_CREDENTIALS, SPAWN)


@dataclass(frozen=True, slots=True)
class AgentTool:
    """A tool that an agent may use: a built-in tool, a tool of a configured tool server
    (`SERVER.TOOL`, or `SERVER` for all its tools), or a function that the client runs.
    """

    name: str
    # The schema of the client's function; None for a tool that runs on the server.
    parameters: Mapping[str, object] | None = None
    description: str = ""

    @property
    def runs_at_client(self) -> bool:
        """Tells whether the client runs the tool and returns its result."""
        return self.parameters is not None

    @property
    def runs_in_sub_tasks(self) -> bool:
        """Tells whether sub-tasks have the tool.

        Sub-tasks cannot reach the client, switch the model, or spawn further sub-tasks.
        """
        return not self.runs_at_client and self.name not in (
            SWITCH_MODEL,
            SPAWN,
        )

    def is_of_server(self, servers: Collection[str]) -> bool:
        """Tells whether the tool is one of these tool servers, or a tool of one of them."""
        server, dot, name = self.name.partition(".")
        return not self.runs_at_client and server in servers and bool(name) == bool(dot)


@dataclass(frozen=True, slots=True)
class Agent:
    """A named model with instructions and tools.

    Deleted agents stay for a while, with `deleted_at`.
    """

    id: str  # `ag_…`
    name: str
    model: ModelChoice
    created_at: datetime
    updated_at: datetime
    description: str = ""
    instructions: str = ""  # the system message of every session
    tools: tuple[AgentTool, ...] = ()
    fallback_model: ModelChoice | None = None  # for retryable failures of `model`
    data_class: str = ""  # class of its sessions' content; empty for none
    # The id of the client key that created the agent; other client keys do not see the agent.
    # None if a person created it.
    owner_key: str | None = None
    deleted_at: datetime | None = None


# A process renews the leases of its turns in less than half of this time.
LEASE: Final = timedelta(seconds=20)


class SessionState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class AgentSession:
    """One conversation with an agent, and the lease of the turn that runs in it."""

    id: str  # `se_…`
    agent: str
    model: ModelChoice  # in force for the next message
    created_at: datetime
    last_at: datetime  # time of the newest message
    user_id: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    state: SessionState = SessionState.OPEN
    parent: str | None = None  # the session that spawned it
    cost_usd: float = 0.0  # cost of its messages and of its children's messages
    turn: str = ""  # id of the running turn, `tu_…`; empty if no turn runs
    owner: str = ""  # the process that runs the turn
    # If the owner does not renew the lease by this time, it counts as dead.
    lease_until: datetime | None = None

    def without_turn(self) -> "AgentSession":
        """Returns the session after its turn, without owner and lease."""
        return replace(
            self,
            turn="",
            owner="",
            lease_until=None,
        )

    def has_lapsed(self, now: datetime) -> bool:
        """Tells whether the lease of the running turn has ended. A lease longer than any real
        lease counts as ended: somebody set the clock back.
        """
        until = self.lease_until
        return until is not None and not now < until <= now + 2 * LEASE

    def require_open(self) -> None:
        """Raises Conflict, with the code `session_closed`, if the session is closed."""
        if self.state is SessionState.CLOSED:
            raise Conflict(
                f"session {self.id} is closed; open another one",
                code="session_closed",
            )


class GrantKind(StrEnum):
    BASELINE = "baseline"  # the agent's first model
    CHANGE = "change"  # a later model of the agent
    SWITCH = "switch"  # one session's switch request
    FALLBACK = "fallback"  # the agent's fallback model


@dataclass(frozen=True, slots=True)
class AgentGrant:
    """A literal target that an agent, or one session of it, may use. Stored signed."""

    id: str  # `gr_…`
    agent: str
    target: str  # target id
    target_name: str  # `provider/model`
    kind: GrantKind
    granted_by: str  # principal
    granted_with: str | None  # the management key's id; None for the local operator
    reason: str
    created_at: datetime
    expires_at: datetime
    session: str = ""  # empty for all sessions of the agent
    data_class: str = ""  # class of the content that the target gets
    revoked_at: datetime | None = None
    request: str = ""  # id of the approved switch request; empty for other kinds

    def opens(
        self,
        agent: str,
        session: str,
        now: datetime,
    ) -> bool:
        """Tells whether the grant lets this session use its target now."""
        return (
            self.agent == agent
            and self.session in ("", session)
            and self.revoked_at is None
            and now < self.expires_at
        )
