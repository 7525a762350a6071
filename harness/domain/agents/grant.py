"""An agent grant lets one agent, or one of its sessions, answer with a literal target until it
expires: a person's signed consent, which the router verifies. Pure.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class GrantKind(StrEnum):
    """BASELINE: with the agent's creation. CHANGE: of the agent's model later. SWITCH: for one
    session, by its own request. FALLBACK: the agent's fallback model. AUTO: chosen by evidence.
    """

    BASELINE = "baseline"
    CHANGE = "change"
    SWITCH = "switch"
    FALLBACK = "fallback"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class AgentGrant:
    """A literal target that an agent, or one session of it, may use. Stored signed."""

    id: str  # `gr_…`
    agent: str
    target: str  # target id
    target_name: str  # `provider/model`
    kind: GrantKind
    granted_by: str  # the principal who consented; control itself for AUTO
    granted_with: str | None  # the management key's id; None for the local operator
    reason: str
    created_at: datetime
    expires_at: datetime
    session: str = ""  # empty for all sessions of the agent
    data_class: str = ""  # of what goes to the target
    revoked_at: datetime | None = None
    request: str = ""  # of SWITCH, the switch request that a person approved

    def opens(self, agent: str, session: str, now: datetime) -> bool:
        """Whether this agent's session may use the target at this moment."""
        return (
            self.agent == agent
            and self.session in ("", session)
            and self.revoked_at is None
            and now < self.expires_at
        )
