"""A proposal: the wish to make a candidate the incumbent of a route, and how it ends.

The rules are the table; the code only looks them up. docs/architecture.md draws its diagram
from it, and test_docs compares the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from harness.domain.errors import IllegalTransition
from harness.domain.evals.run import Claim, SuitePlan
from harness.domain.proposals.policy import Policy, Promotion
from harness.domain.safe_time import later


class Phase(StrEnum):
    PROPOSED = "proposed"
    EVALUATING = "evaluating"
    AWAITING_APPROVAL = "awaiting_approval"
    SHADOW = "shadow"  # passed; its answers are looked at before anybody gets one
    CANARY = "canary"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"


class Event(StrEnum):
    START = "start"
    PASSED = "passed"
    PASSED_NEEDS_APPROVAL = "passed_needs_approval"
    FAILED = "failed"
    HARNESS_MISMATCH = "harness_mismatch"
    INCONCLUSIVE = "inconclusive"
    INFRA_ERROR = "infra_error"
    INFRA_LIMIT = "infra_limit"
    APPROVED = "approved"
    MIRROR = "mirror"
    SHADOWED = "shadowed"
    REFUSED = "refused"
    EXPIRED = "expired"
    STALE = "stale"
    HEALTHY = "healthy"
    HARM = "harm"
    BASE_CHANGED = "base_changed"
    CANCELLED = "cancelled"


class ApprovalKind(StrEnum):
    CANARY = "canary"  # its canary may open, where the policy asks a person
    PROMOTION = "promotion"  # it becomes the incumbent before its last step has shown enough


TRANSITIONS: Final[Mapping[tuple[Phase, Event], Phase]] = {
    (Phase.PROPOSED, Event.START): Phase.EVALUATING,
    (Phase.PROPOSED, Event.CANCELLED): Phase.CANCELLED,
    (Phase.PROPOSED, Event.BASE_CHANGED): Phase.REJECTED,
    (Phase.EVALUATING, Event.PASSED): Phase.CANARY,
    (Phase.EVALUATING, Event.PASSED_NEEDS_APPROVAL): Phase.AWAITING_APPROVAL,
    (Phase.EVALUATING, Event.MIRROR): Phase.SHADOW,
    (Phase.EVALUATING, Event.FAILED): Phase.REJECTED,
    (Phase.EVALUATING, Event.HARNESS_MISMATCH): Phase.REJECTED,
    (Phase.EVALUATING, Event.INCONCLUSIVE): Phase.REJECTED,
    (Phase.EVALUATING, Event.INFRA_ERROR): Phase.EVALUATING,
    (Phase.EVALUATING, Event.INFRA_LIMIT): Phase.REJECTED,
    (Phase.EVALUATING, Event.BASE_CHANGED): Phase.REJECTED,
    (Phase.EVALUATING, Event.STALE): Phase.REJECTED,
    (Phase.EVALUATING, Event.CANCELLED): Phase.CANCELLED,
    (Phase.AWAITING_APPROVAL, Event.APPROVED): Phase.CANARY,
    (Phase.AWAITING_APPROVAL, Event.MIRROR): Phase.SHADOW,
    (Phase.AWAITING_APPROVAL, Event.REFUSED): Phase.REJECTED,
    (Phase.AWAITING_APPROVAL, Event.EXPIRED): Phase.REJECTED,
    (Phase.AWAITING_APPROVAL, Event.STALE): Phase.REJECTED,
    (Phase.AWAITING_APPROVAL, Event.BASE_CHANGED): Phase.REJECTED,
    (Phase.AWAITING_APPROVAL, Event.CANCELLED): Phase.CANCELLED,
    (Phase.SHADOW, Event.SHADOWED): Phase.CANARY,
    (Phase.SHADOW, Event.HARM): Phase.REJECTED,
    (Phase.SHADOW, Event.EXPIRED): Phase.REJECTED,
    (Phase.SHADOW, Event.STALE): Phase.REJECTED,
    (Phase.SHADOW, Event.BASE_CHANGED): Phase.REJECTED,
    (Phase.SHADOW, Event.CANCELLED): Phase.CANCELLED,
    (Phase.CANARY, Event.HEALTHY): Phase.PROMOTED,
    (Phase.CANARY, Event.HARM): Phase.ROLLED_BACK,
    (Phase.CANARY, Event.BASE_CHANGED): Phase.ROLLED_BACK,
    (Phase.CANARY, Event.STALE): Phase.ROLLED_BACK,
    (Phase.CANARY, Event.CANCELLED): Phase.ROLLED_BACK,
    (Phase.PROMOTED, Event.HARM): Phase.ROLLED_BACK,
    (Phase.PROMOTED, Event.CANCELLED): Phase.ROLLED_BACK,
}

OPEN: Final = frozenset(
    {Phase.PROPOSED, Phase.EVALUATING, Phase.AWAITING_APPROVAL, Phase.SHADOW, Phase.CANARY}
)


def advance(phase: Phase, event: Event) -> Phase:
    """The next phase. Raises IllegalTransition for a pair not in the table."""
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise IllegalTransition(
            f"a proposal that is {phase.value} cannot take the event {event.value}"
        ) from None


@dataclass(frozen=True, slots=True)
class SuiteRuns:
    """The two runs whose samples are paired."""

    incumbent: str
    candidate: str


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's word for one verdict of a proposal, as it is stored. It never changes.

    principal: who that is, whatever he is called. name: how he is called. key: the management
    key's id, None for the local operator. widened: what of the rules he saw widened.
    """

    id: str
    proposal: str
    verdict: str | None
    kind: ApprovalKind
    principal: str
    name: str
    at: datetime
    key: str | None = None
    reason: str = ""
    widened: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Proposal:
    """incumbent, candidate: target ids. plans: registered before the first candidate score.

    runs: by suite. proposer_principal: who the proposer is, whatever he is called.
    proposer_key: the management key's id, None for the local operator. version: rises with
    every stored change (optimistic locking). widened: where it asks for less than the route's
    policy does, or with suites that nobody accepted for the route: field to what the route has
    and what is proposed. Registered, as the plans are.
    """

    id: str
    route: str
    incumbent: str
    candidate: str
    claim: Claim
    reason: str
    proposer: str
    policy: Policy
    plans: tuple[SuitePlan, ...]
    phase: Phase
    created_at: datetime
    updated_at: datetime
    runs: Mapping[str, SuiteRuns] = field(default_factory=dict)
    verdict: str | None = None
    rollout: str | None = None
    infra_errors: int = 0
    retry_at: datetime | None = None
    approver: str | None = None
    approved_verdict: str | None = None
    closed_because: str = ""
    version: int = 1
    widened: Mapping[str, Any] = field(default_factory=dict)
    proposer_principal: str = ""
    proposer_key: str | None = None

    @property
    def needs_approval(self) -> bool:
        """Whether a person lets it into its canary, whatever its verdict."""
        return bool(self.widened) or self.policy.promotion is Promotion.APPROVED

    @property
    def self_approval(self) -> bool:
        """Whether its proposer may be that person: never for rules of his own."""
        return self.policy.self_approval and not self.widened

    @property
    def open(self) -> bool:
        return self.phase in OPEN

    @property
    def approval_ends_at(self) -> datetime:
        """Until when a proposal that waits for a person does so."""
        return later(self.updated_at, self.policy.approval_ttl_s)

    def retry_due(self, now: datetime) -> bool:
        """Whether the pause after InfraError is over.

        A pause longer than any that is given was set by a clock that was set back since.
        """
        if self.retry_at is None:
            return False
        left = (self.retry_at - now).total_seconds()
        return not 0 < left <= self.policy.gate.infra_pause_s


def moved(proposal: Proposal, event: Event, now: datetime, because: str = "") -> Proposal:
    """The proposal after `event`. Raises IllegalTransition."""
    phase = advance(proposal.phase, event)
    closed = because if phase not in OPEN else proposal.closed_because
    return replace(proposal, phase=phase, updated_at=now, closed_because=closed)
