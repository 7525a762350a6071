"""The state of a labelling, and the sentences about it. They show evidence only at the end,
because a person who knows it labels differently.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from harness.frame.formatting import format_quantity, format_score
from harness.frame.people.records import Principals
from harness.frame.records.transaction import Transaction
from harness.gate.offline.label_evidence import LabelEvidence, judge_labels
from harness.gate.suite_plan import Claim
from harness.proposals.labels.labelling import (
    LabelDraw,
    Labelling,
    PairLabel,
    build_drawn_pairs,
    count_agreement,
)
from harness.proposals.labels.records import LabelDraws, Labellings, Labels
from harness.routing.records.proposals import Proposals


@dataclass(frozen=True, slots=True)
class LabelProgress:
    """The state of a labelling, without evidence until it has ended.

    ended: whether more labels would change nothing. verdict: a sentence once it has ended.
    both, agreed: draws that two people labelled, and those in which they prefer the same.
    """

    id: str
    route: str
    proposal: str
    suite: str
    people: Sequence[str]  # names
    pairs: int
    labels: int
    skipped: int
    missing: Mapping[str, int]  # draws without a label, by the person's name
    ended: bool
    passed: bool
    inconclusive: bool  # all pairs have labels, which show nothing
    verdict: str
    both: int
    agreed: int
    forecast: str  # the plan's estimate of the labels; empty where it is not computed
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LabellingState:
    """A labelling with everything that is stored about it."""

    labelling: Labelling
    draws: Sequence[LabelDraw]
    labels: Sequence[PairLabel]

    @property
    def evidence(self) -> LabelEvidence:
        pairs = build_drawn_pairs(self.labelling, self.draws, self.labels)
        return judge_labels(self.labelling.weights, pairs, self.labelling.design)

    @property
    def given(self) -> set[tuple[int, str]]:
        """The draws and persons with a label, not a skip."""
        return {
            (label.number, label.person)
            for label in self.labels
            if label.preference is not None
        }

    @property
    def skipped(self) -> set[tuple[int, str]]:
        answered = {(label.number, label.person) for label in self.labels}
        return answered - self.given


def load_state(tx: Transaction, labelling: Labelling) -> LabellingState:
    return LabellingState(
        labelling,
        LabelDraws(tx).of_labelling(labelling.id),
        Labels(tx).of_labelling(labelling.id),
    )


def build_progress(tx: Transaction, state: LabellingState) -> LabelProgress:
    labelling = state.labelling
    proposal = Proposals(tx).get(labelling.proposal)
    evidence = state.evidence
    names = {
        principal.id: principal.name
        for principal in Principals(tx).among(labelling.people).values()
    }
    people = [names.get(person, person) for person in labelling.people]
    given = state.given
    missing = Counter(
        names.get(person, person)
        for draw in state.draws
        for person in draw.people
        if (draw.number, person) not in given
    )
    both, agreed = count_agreement(state.labels)
    return LabelProgress(
        id=labelling.id,
        route=proposal.route,
        proposal=proposal.id,
        suite=labelling.suite,
        people=people,
        pairs=len(labelling.items),
        labels=len(given),
        skipped=len(state.skipped),
        missing=dict(missing),
        ended=evidence.is_decided,
        passed=evidence.passes,
        inconclusive=evidence.outcome == "inconclusive",
        verdict=describe_verdict(state, evidence, people) if evidence.is_decided else "",
        both=both,
        agreed=agreed,
        forecast="",
        created_at=labelling.created_at,
    )


def describe_verdict(
    state: LabellingState,
    evidence: LabelEvidence,
    people: Sequence[str],
) -> str:
    """Describes what the labels show, in one or two sentences."""
    design = state.labelling.design
    count = len(state.given)
    labellers = {label.person for label in state.labels if label.preference is not None}
    subject = "the traffic" if design.draw_error is not None else "these pairs"
    if len(people) == 1:
        by = f"By {people[0]}'s preference ({format_quantity(count, 'label')})"
    else:
        who = format_quantity(len(labellers), "person", "people")
        by = f"By people's preference ({format_quantity(count, 'label')} by {who})"
    if evidence.harm.is_shown:
        return (
            f"{by}: FAILED, because the candidate gave more unacceptable answers than the "
            "incumbent, whatever people prefer."
        )
    share = f"the candidate wins a share of {evidence.estimate:.2f} of {subject}"
    allowed = f"at most {format_score(design.margin, None)} points worse"
    match evidence.outcome, design.claim:
        case "promote", Claim.SUPERIOR:
            return f"{by}: PASSED, the candidate is preferred; {share}."
        case "promote", _:
            return f"{by}: PASSED, the candidate is {allowed}; {share}."
        case "reject", Claim.SUPERIOR:
            return f"{by}: FAILED, the incumbent is preferred; {share}."
        case "reject", _:
            return f"{by}: FAILED, the candidate is not {allowed}; {share}."
        case _:
            return f"{by}: NOT ENOUGH EVIDENCE, all pairs have labels; {share}."


def find_missing_label_proof(tx: Transaction, proposal: str, suite: str) -> str:
    """Returns why people's labels do not show the claim of a proposal's suite; empty if they
    do.
    """
    progress = _find_progress(tx, proposal, suite)
    if progress is None:
        return f"people have not labelled suite {suite!r} yet"
    if progress.passed:
        return ""
    return progress.verdict or f"the labels of suite {suite!r} do not suffice yet"


def describe_labels(tx: Transaction, proposal: str, suite: str) -> str:
    """Returns the verdict of a suite's labels as a sentence; empty before its end."""
    progress = _find_progress(tx, proposal, suite)
    return "" if progress is None else progress.verdict


def _find_progress(tx: Transaction, proposal: str, suite: str) -> LabelProgress | None:
    for labelling in Labellings(tx).of_proposal(proposal):
        if labelling.suite == suite:
            return build_progress(tx, load_state(tx, labelling))
    return None
