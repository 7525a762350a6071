"""Break-glass: a target serves a route without proof, for a limited time, since two people say
so (G2). It is a waiver that both have signed; at its expiry the former incumbent returns.

`BreakGlass` is asked for by one person, and in force once a second one has confirmed it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

LONGEST: Final = timedelta(days=7)
CONFIRM_WITHIN: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class BreakGlass:
    """One break-glass of a route, as it is stored."""

    id: str
    route: str
    incumbent: str  # who served when it was asked for, and returns at the end; a target id
    target: str  # who serves without proof; a target id
    reason: str
    through_freeze: bool  # also while the route is frozen
    proposer: str
    proposer_principal: str
    proposer_key: str | None  # the management key's id, None for the local operator
    created_at: datetime
    confirm_by: datetime
    expires_at: datetime
    # confirmer to waiver: None until a second person confirmed it
    confirmer: str | None = None
    confirmer_principal: str | None = None
    confirmer_key: str | None = None
    confirmed_at: datetime | None = None
    waiver: str | None = None
    ended_at: datetime | None = None
    ended_because: str = ""

    @property
    def self_approval(self) -> bool:
        """Tells that nobody may confirm his own, whatever a policy says."""
        return False

    @property
    def confirmed(self) -> bool:
        return self.confirmed_at is not None

    @property
    def state(self) -> str:
        if self.ended_at is not None:
            return "ended"
        return "in force" if self.confirmed else "waits for a second person"
