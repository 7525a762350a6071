"""An agent is a name, a model and tools, with which sessions are held; a session is one
conversation, its model in force and its state. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from harness.domain.agents.model_choice import ModelChoice
from harness.domain.errors import Conflict

# Built-in tools.
SWITCH_MODEL: Final = "switch_model"
MANAGE_CREDENTIALS: Final = "manage_credentials"
SPAWN: Final = "spawn"


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
        return not self.runs_at_client and self.name != SWITCH_MODEL


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as it is stored."""

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


class SessionState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class AgentSession:
    """One conversation with an agent."""

    id: str  # `se_…`
    agent: str
    model: ModelChoice  # in force for the next message
    created_at: datetime
    last_at: datetime  # of the newest message
    user_id: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict)
    state: SessionState = SessionState.OPEN
    parent: str | None = None  # the session that spawned it
    depth: int = 0  # how many sessions stand above it
    cost_usd: float = 0.0  # of all its messages and those of its children

    def require_open(self) -> None:
        """Checks that the session takes messages. Raises Conflict when it is closed."""
        if self.state is SessionState.CLOSED:
            raise Conflict(
                f"session {self.id} is closed; open another one", code="session_closed"
            )
