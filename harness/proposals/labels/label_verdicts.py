"""Finds people's labels for a proposal's verdict, and how long a proposal waits for them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from harness.frame.formatting import add_seconds
from harness.frame.records.transaction import Transaction
from harness.frame.signing.audit_log import AuditLog
from harness.gate.offline.people_claims import SuiteLabels
from harness.gate.suite_plan import SuitePlan
from harness.proposals.labels.blindness import list_labelled_suites
from harness.proposals.labels.label_pairs import LABELLING_END
from harness.proposals.labels.label_progress import LabellingState, load_names, load_state
from harness.proposals.labels.records import Labellings
from harness.routing.proposal import Proposal, ProposalPhase
from harness.routing.records.proposals import Proposals

WAIT: Final = "proposal.labels"  # the audit event with which a proposal's wait begins


@dataclass(frozen=True, slots=True)
class LabelWait:
    """A proposal's wait for people's labels. news: whether a labelling has ended since."""

    since: datetime
    ends_at: datetime
    news: bool


def find_wait(tx: Transaction, proposal: Proposal) -> LabelWait | None:
    """Finds a proposal's wait for labels; None if it does not wait."""
    is_waiting = proposal.phase is ProposalPhase.EVALUATING and proposal.verdict is None
    if not is_waiting or not list_labelled_suites(proposal):
        return None
    log = AuditLog(tx)
    subject = f"proposal {proposal.id}"
    begun = log.for_subject(subject, since=proposal.created_at, limit=1, actions=[WAIT])
    if not begun:
        return None
    since = begun[0].at
    news = any(
        log.for_subject(
            labelling.id, since=labelling.created_at, limit=1, actions=[LABELLING_END]
        )
        for labelling in Labellings(tx).of_proposal(proposal.id)
    )
    # The time that a passed proposal has for its approval.
    return LabelWait(since, add_seconds(since, proposal.policy.approval_ttl_s), news)


@dataclass(frozen=True, slots=True)
class WaitingSuite:
    """A suite that people have to label, and whose labelling has not begun."""

    proposal: str
    route: str
    suite: str

    @property
    def id(self) -> str:
        return f"{self.proposal}-{self.suite}"


def list_waiting(tx: Transaction) -> Sequence[WaitingSuite]:
    """Lists the suites whose labelling a person has to start, in the order of the proposals and
    their plans.
    """
    return [
        WaitingSuite(proposal.id, proposal.route, plan.suite)
        for proposal in Proposals(tx).open()
        if find_wait(tx, proposal) is not None
        for begun in [{one.suite for one in Labellings(tx).of_proposal(proposal.id)}]
        for plan in proposal.plans
        if plan.suite in list_labelled_suites(proposal) - begun
    ]


def has_labelling(tx: Transaction, proposal: Proposal) -> bool:
    """Tells whether people have begun to label a suite about which they decide."""
    suites = list_labelled_suites(proposal)
    labellings = Labellings(tx).of_proposal(proposal.id) if suites else ()
    return any(labelling.suite in suites for labelling in labellings)


def load_states(tx: Transaction, proposal: Proposal) -> Mapping[str, LabellingState]:
    """Loads the labellings of the suites about which people decide, by suite. Checks
    signatures.
    """
    suites = list_labelled_suites(proposal)
    if not suites:
        return {}
    return {
        labelling.suite: load_state(tx, labelling)
        for labelling in Labellings(tx).of_proposal(proposal.id)
        if labelling.suite in suites
    }


def load_suite_labels(tx: Transaction, proposal: Proposal) -> Mapping[str, SuiteLabels | None]:
    """Loads the labels of the suites about which people decide; None for a suite whose labels
    have not ended.
    """
    states = load_states(tx, proposal)
    return {
        plan.suite: _read_ended(tx, states.get(plan.suite), plan, proposal)
        for plan in proposal.plans
        if plan.suite in list_labelled_suites(proposal)
    }


def _read_ended(
    tx: Transaction, state: LabellingState | None, plan: SuitePlan, proposal: Proposal
) -> SuiteLabels | None:
    if state is None or not state.evidence.is_decided:
        return None
    names = load_names(tx, state.labelling.people)
    people = [names[person] for person in state.labelling.people]
    return state.build_labels(plan, people, proposal)
