"""A proposal asks to make a candidate the incumbent of a route; this is its state machine. The
rules are the table TRANSITIONS; docs/explanation/architecture.md draws its diagram from it.

The id of a candidate's run contains a hash of the registered plans, and the signature of each
answer covers that id. The answers therefore prove that margin and alpha were fixed before the
first answer.

The module checks no role and no proof: `harness.proposals` submits and approves, and
`harness.proposals.driver` moves proposals.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from harness.frame.errors import IllegalTransition
from harness.frame.formatting import add_seconds
from harness.frame.plain_data import digest
from harness.gate.canary_sentences import end_predicate, end_words
from harness.gate.incumbent_days import IncumbentDays
from harness.gate.online.rollout import CanaryEnd, CanaryEnding, read_old_end
from harness.gate.policy import (
    ChangeReferenceRule,
    CostAcceptance,
    Policy,
    PromotionMode,
    SameModelConfirmation,
)
from harness.gate.suite_plan import Claim, SliceTerms, SuitePlan
from harness.routing.candidate_schedule import OnBetter
from harness.routing.table import Route


class ProposalPhase(StrEnum):
    """The phases of a proposal. `OPEN_PHASES` are those that can still change."""

    PROPOSED = "proposed"
    EVALUATING = "evaluating"
    AWAITING_APPROVAL = "awaiting_approval"
    CANARY = "canary"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"


class ProposalEvent(StrEnum):
    """The events that move a proposal. They come from the gate, a person, the canary or a
    change of the route.
    """

    START = "start"
    PASSED = "passed"
    PASSED_NEEDS_APPROVAL = "passed_needs_approval"
    FAILED = "failed"
    HARNESS_MISMATCH = "harness_mismatch"
    INCONCLUSIVE = "inconclusive"
    INFRA_ERROR = "infra_error"
    INFRA_LIMIT = "infra_limit"
    APPROVED = "approved"
    REFUSED = "refused"
    EXPIRED = "expired"
    NOT_CHOSEN = "not_chosen"  # passed, but another candidate of its selection was better
    STALE = "stale"
    HEALTHY = "healthy"
    HARM = "harm"
    BASE_CHANGED = "base_changed"
    CANCELLED = "cancelled"


class ApprovalKind(StrEnum):
    CANARY = "canary"  # allows the canary, where the policy requires approval
    PROMOTION = "promotion"  # promotes the candidate before its last step has enough evidence


_P = ProposalPhase
_E = ProposalEvent
# Phase, next phase, and the events that lead from one to the other.
_NEXT_PHASES: Final[
    Mapping[ProposalPhase, Mapping[ProposalPhase, tuple[ProposalEvent, ...]]]
] = {
    _P.PROPOSED: {
        _P.EVALUATING: (_E.START,),
        _P.CANCELLED: (_E.CANCELLED,),
        _P.REJECTED: (_E.BASE_CHANGED,),
    },
    _P.EVALUATING: {
        _P.CANARY: (_E.PASSED,),
        _P.AWAITING_APPROVAL: (_E.PASSED_NEEDS_APPROVAL,),
        _P.REJECTED: (
            _E.FAILED,
            _E.HARNESS_MISMATCH,
            _E.INCONCLUSIVE,
            _E.INFRA_LIMIT,
            _E.BASE_CHANGED,
            _E.EXPIRED,
            _E.NOT_CHOSEN,
            _E.STALE,
        ),
        _P.EVALUATING: (_E.INFRA_ERROR,),
        _P.CANCELLED: (_E.CANCELLED,),
    },
    _P.AWAITING_APPROVAL: {
        _P.CANARY: (_E.APPROVED,),
        _P.REJECTED: (_E.REFUSED, _E.EXPIRED, _E.STALE, _E.BASE_CHANGED),
        _P.CANCELLED: (_E.CANCELLED,),
    },
    _P.CANARY: {
        _P.PROMOTED: (_E.HEALTHY,),
        _P.ROLLED_BACK: (_E.HARM, _E.BASE_CHANGED, _E.STALE, _E.CANCELLED),
    },
    _P.PROMOTED: {_P.ROLLED_BACK: (_E.HARM, _E.CANCELLED)},
}
TRANSITIONS: Final[Mapping[tuple[ProposalPhase, ProposalEvent], ProposalPhase]] = {
    (phase, event): after
    for phase, ends in _NEXT_PHASES.items()
    for after, events in ends.items()
    for event in events
}

# At most one proposal of a route may be in these phases.
PAST_GATE_PHASES: Final = frozenset({ProposalPhase.AWAITING_APPROVAL, ProposalPhase.CANARY})

# The stored approver of a proposal that needs no person's approval, but waits for the end of a
# freeze.
POLICY_APPROVER: Final = "the policy"

# Prefix of the reason if a person rejected the proposal. Signed rows have no other mark of a
# person's rejection, so `Proposal.closed` reads this prefix.
REFUSED_BY: Final = "refused by "

OPEN_PHASES: Final = frozenset(
    {
        ProposalPhase.PROPOSED,
        ProposalPhase.EVALUATING,
        ProposalPhase.AWAITING_APPROVAL,
        ProposalPhase.CANARY,
    }
)


def next_phase(phase: ProposalPhase, event: ProposalEvent) -> ProposalPhase:
    """Returns a proposal's next phase. Raises IllegalTransition for a pair not in the table."""
    try:
        return TRANSITIONS[phase, event]
    except KeyError:
        raise IllegalTransition(
            f"the proposal is {phase.value.replace('_', ' ')}, and the event "
            f"{event.value.replace('_', ' ')} does not apply to that: read the proposal again; "
            "`swapproof proposal list` shows the phase of each proposal"
        ) from None


@dataclass(frozen=True, slots=True)
class SuiteRuns:
    """The ids of both models' runs of one suite."""

    incumbent: str
    candidate: str
    # The scheduled runs from which the incumbent's run took its mean scores; None for a single
    # run.
    days: IncumbentDays | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's approval of one verdict of a proposal. It never changes."""

    id: str
    proposal: str
    verdict: str | None
    kind: ApprovalKind
    principal: str  # the person's stable id
    name: str  # the person's name at that time
    at: datetime
    key: str | None = None  # the management key's id, None for the local operator
    reason: str = ""
    # The widened rules that the person saw.
    widened: Mapping[str, object] = field(default_factory=dict)
    change_reference: str = ""  # the change request for the approval


@dataclass(frozen=True, kw_only=True)
class ProposalTexts:
    """Optional texts of a proposal. Each field is a column, a field of the API, an option (its
    `word`) of `proposal create`, and a line of the pages that show the proposal.
    """

    change_reference: str = field(
        default="",
        metadata={
            "word": "change",
            "label": "Change request",
            "help": "Change request in your own system.",
            "metavar": "REFERENCE",
        },
    )

    @property
    def texts(self) -> list[tuple[str, str, str]]:
        """Lists word, label and value of each text that is not empty."""
        texts_with_values = [
            (text, getattr(self, name)) for name, text in PROPOSAL_TEXTS.items()
        ]
        return [
            (text["word"], text["label"], value) for text, value in texts_with_values if value
        ]


PROPOSAL_TEXTS: Final = {text.name: text.metadata for text in fields(ProposalTexts)}


@dataclass(frozen=True)
class Proposal(ProposalTexts):
    """A proposal with its registration, its present phase, and its results so far.

    Invariant: fields of the registration never change once it is stored; the plans never change
    after PROPOSED.
    """

    id: str
    route: str
    incumbent: str  # a target id, as `candidate`
    candidate: str
    claim: Claim
    reason: str
    proposer: str
    policy: Policy
    plans: tuple[SuitePlan, ...]  # registered before the first candidate score
    phase: ProposalPhase
    created_at: datetime
    updated_at: datetime
    runs: Mapping[str, SuiteRuns] = field(default_factory=dict)  # by suite
    verdict: str | None = None
    rollout: str | None = None
    infra_errors: int = 0
    retry_at: datetime | None = None
    approver: str | None = None
    approved_verdict: str | None = None
    closed_because: str = ""
    version: int = 1  # rises with every stored change (optimistic locking)
    # Rules weaker than the route's policy, and suites not accepted for the route. Maps each
    # field to the route's value and the proposed value. Registered together with the plans.
    widened: Mapping[str, Any] = field(default_factory=dict)
    proposer_principal: str = ""  # the proposer's stable id
    proposer_key: str | None = None  # the management key's id, None for the local operator
    # The selection's id, which candidates proposed together share; empty for one candidate.
    selection: str = ""
    place: int = 0  # its position in the selection, from 0
    # The step after its verdict, if a schedule proposed it; None if a person proposed it.
    on_better: OnBetter | None = None
    # A cost above the policy's guardrail that an approver accepted.
    accepted_cost: CostAcceptance | None = None
    # An approver's confirmation that one model may serve both arms.
    same_model: SameModelConfirmation | None = None
    # The end of its canary; None without a canary's end, and in older rows.
    ending: CanaryEnding | None = None

    @property
    def waits_for_rivals(self) -> bool:
        """Whether it has a verdict, and waits for the verdicts of its selection's other
        proposals.

        False after InfraError, because the proposal then waits for its own next attempt.
        """
        is_evaluating = self.phase is ProposalPhase.EVALUATING and self.retry_at is None
        return bool(self.selection) and is_evaluating and self.verdict is not None

    @property
    def slice_terms(self) -> SliceTerms | None:
        """The terms of a slice's own route; None for a whole route."""
        return next((plan.slice_terms for plan in self.plans if plan.slice_terms), None)

    @property
    def needs_approval(self) -> bool:
        """Whether a person must approve its canary."""
        by_schedule = self.on_better is OnBetter.PROPOSE
        by_policy = self.policy.promotion is PromotionMode.APPROVED
        return bool(self.widened) or by_schedule or by_policy

    @property
    def yields(self) -> bool:
        """Whether a person's proposal may replace it: a schedule proposed it, and it is still
        in its evals.
        """
        evaluation_phases = (ProposalPhase.PROPOSED, ProposalPhase.EVALUATING)
        return self.on_better is not None and self.phase in evaluation_phases

    @property
    def needs_change_reference(self) -> bool:
        return self.policy.change_reference is ChangeReferenceRule.REQUIRED

    @property
    def self_approval(self) -> bool:
        """Whether the proposer may approve it. False if the proposer widened a rule."""
        return self.policy.self_approval and not self.widened

    @property
    def open(self) -> bool:
        return self.phase in OPEN_PHASES

    @property
    def end(self) -> CanaryEnd | None:
        """How its canary was stopped or its promotion was rolled back; None for neither."""
        if self.phase is not ProposalPhase.ROLLED_BACK:
            return None
        return self.ending.end if self.ending else read_old_end(self.closed_because)

    @property
    def closed(self) -> bool:
        """Whether it ended before its canary, and no person rejected it."""
        refused_by_person = self.closed_because.startswith(REFUSED_BY)
        return self.phase is ProposalPhase.REJECTED and not refused_by_person

    @property
    def phase_text(self) -> str:
        """The phase for people. `rejected` means that a person rejected it."""
        if self.closed:
            return "closed"
        if self.phase is ProposalPhase.AWAITING_APPROVAL and self.approver is not None:
            return "approved"
        return self.phase.value.replace("_", " ") if self.end is None else end_words(self.end)

    @property
    def predicate(self) -> str:
        """The phase as a predicate: `is in its canary`, `was aborted`."""
        if self.end is not None:
            return end_predicate(self.end)
        prefix = "in its " if self.phase is ProposalPhase.CANARY else ""
        return f"is {prefix}{self.phase_text}"

    @property
    def approval_ends_at(self) -> datetime:
        """The time when a proposal that awaits approval expires, if no person approves it."""
        return add_seconds(self.updated_at, self.policy.approval_ttl_s)

    def retry_due(self, now: datetime) -> bool:
        """Tells whether the pause after InfraError is over.

        The pause also counts as over if more than a whole pause remains, because somebody then
        set the clock back.
        """
        if self.retry_at is None:
            return False
        left_s = (self.retry_at - now).total_seconds()
        return not 0 < left_s <= self.policy.gate.infra_pause_s(self.infra_errors)


def apply_event(
    proposal: Proposal,
    event: ProposalEvent,
    now: datetime,
    reason: str = "",
    ending: CanaryEnding | None = None,
) -> Proposal:
    """Returns the proposal after an event.

    Args:
        ending: the canary's end, if the event ends a canary.

    Raises IllegalTransition.
    """
    phase = next_phase(proposal.phase, event)
    closed_because = reason if phase not in OPEN_PHASES else proposal.closed_because
    return replace(
        proposal,
        phase=phase,
        updated_at=now,
        closed_because=closed_because,
        ending=ending if phase is ProposalPhase.ROLLED_BACK else None,
    )


RUN_PREFIX: Final = "run_"
NONCE_CHARACTERS: Final = 8
HASH_CHARACTERS: Final = 32  # 128 bits


def build_candidate_run_id(proposal: Proposal, nonce: str) -> str:
    """Builds the id of a run of the proposal's candidate.

    Args:
        nonce: differs for each attempt.
    """
    plans_hash = digest([nonce, proposal.id, [plan.as_json() for plan in proposal.plans]])
    return f"{RUN_PREFIX}{nonce}{plans_hash[:HASH_CHARACTERS]}"


def has_registered_plans(proposal: Proposal, run: str) -> bool:
    """Tells whether the run's id contains the hash of the proposal's current plans."""
    nonce = run.removeprefix(RUN_PREFIX)[:-HASH_CHARACTERS]
    return build_candidate_run_id(proposal, nonce) == run


@dataclass(frozen=True)
class ProposalView(Proposal):
    """A proposal with facts about the present, for interfaces."""

    # Whether its promoted candidate serves the route now. None in other phases, and if the
    # route's signature is invalid.
    serves: bool | None = None
    # A sentence about the people or the provider that its evals wait for; empty if they do not
    # wait.
    waits: str = ""
    waits_for_labels: bool = False

    @property
    def phase_text(self) -> str:
        """The phase for people. Adds whether a promoted candidate no longer serves."""
        words = super().phase_text
        return f"{words}, does not serve now" if self.serves is False else words

    @classmethod
    def from_proposal(
        cls,
        proposal: Proposal,
        find_route: Callable[[str], Route | None],
        waits: str = "",
        *,
        waits_for_labels: bool = False,
    ) -> "ProposalView":
        """Builds the view. find_route is called only if the proposal is promoted."""
        promoted = proposal.phase is ProposalPhase.PROMOTED
        route = find_route(proposal.route) if promoted else None
        stored = {field.name: getattr(proposal, field.name) for field in fields(Proposal)}
        serves = route.incumbent == proposal.candidate if route else None
        return cls(**stored, serves=serves, waits=waits, waits_for_labels=waits_for_labels)
