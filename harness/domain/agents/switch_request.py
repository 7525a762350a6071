"""A switch request asks a person to let a session, or a set of sub-tasks, go on with another
model. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from harness.domain.content_hash import digest
from harness.domain.operations.access import Actor


class SwitchState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"  # its session was closed, or its agent deleted


@dataclass(frozen=True, slots=True)
class ModelSwitchRequest:
    """A switch that an agent asked for."""

    id: str  # `sw_…`
    agent: str
    session: str
    model_requested: str  # the model as the agent named it
    # `provider/model`: one, several for sub-tasks, none for a route.
    targets: tuple[str, ...]
    reason: str  # the agent's own words: data, never markup
    asked_at: datetime
    expires_at: datetime
    # Its targets are for sub-tasks; the session itself stays on its model.
    for_children: bool = False
    # What the target cannot take along, in words, such as reasoning of another provider.
    omissions: tuple[str, ...] = ()
    # Of both models, as they stood when it was asked (`model_figures.compared`).
    figures: Mapping[str, object] = field(default_factory=dict)
    state: SwitchState = SwitchState.PENDING
    decided_at: datetime | None = None
    decided_by: str = ""  # principal
    decided_with: str | None = None  # the management key's id; None for the local operator
    decision_reason: str = ""

    @property
    def wanted(self) -> str:
        """The models that are asked for, as people read them."""
        return ", ".join(self.targets) or self.model_requested

    @property
    def hash(self) -> str:
        """What an approval link is bound to: a request that shows anything else has another
        hash.
        """
        return digest([
            self.id, self.agent, self.session, self.model_requested, list(self.targets),
            self.reason, self.for_children, self.asked_at.isoformat(),
            self.expires_at.isoformat(), list(self.omissions), self.figures,
        ])  # fmt: skip

    def state_at(self, now: datetime) -> SwitchState:
        """Expired as soon as its time is over, whether that is stored yet or not."""
        is_over = self.state is SwitchState.PENDING and now >= self.expires_at
        return SwitchState.EXPIRED if is_over else self.state

    def end(
        self, state: SwitchState, now: datetime, reason: str, actor: Actor | None = None
    ) -> "ModelSwitchRequest":
        """The request once it does not wait any more. actor: None where nobody decided."""
        return replace(
            self,
            state=state,
            decided_at=now,
            decision_reason=reason,
            decided_by=actor.name if actor else "",
            decided_with=actor.key if actor else None,
        )
