"""A switch request asks a person to let a session, or a set of sub-tasks, go on with another
model. `apply_signal` is the table of its states. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from harness.domain.content_hash import digest
from harness.domain.errors import IllegalTransition


class SwitchState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"  # its session was closed, or its agent deleted


class SwitchSignal(StrEnum):
    APPROVE = "approve"
    REJECT = "reject"
    EXPIRE = "expire"
    CANCEL = "cancel"


_NEXT: Final[Mapping[SwitchSignal, SwitchState]] = {
    SwitchSignal.APPROVE: SwitchState.APPROVED,
    SwitchSignal.REJECT: SwitchState.REJECTED,
    SwitchSignal.EXPIRE: SwitchState.EXPIRED,
    SwitchSignal.CANCEL: SwitchState.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class ModelSwitchRequest:
    """A switch that an agent asked for."""

    id: str  # `sw_…`
    agent: str
    session: str
    asked: str  # the model as the agent named it
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
    def hash(self) -> str:
        """What an approval link is bound to: another request has another hash."""
        return digest([
            self.id, self.agent, self.session, self.asked, list(self.targets), self.reason,
            self.for_children, self.asked_at.isoformat(), self.expires_at.isoformat(),
        ])  # fmt: skip

    def state_at(self, now: datetime) -> SwitchState:
        """Expired as soon as its time is over, whether that is stored yet or not."""
        is_over = self.state is SwitchState.PENDING and now >= self.expires_at
        return SwitchState.EXPIRED if is_over else self.state


def next_state(state: SwitchState, signal: SwitchSignal) -> SwitchState:
    """The state after a signal. Raises IllegalTransition for a request that is decided."""
    if state is not SwitchState.PENDING:
        raise IllegalTransition(f"the switch request is {state.value} already")
    return _NEXT[signal]
