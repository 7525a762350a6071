"""The state of a labelling, and the sentences about it. They show evidence only at the end,
because a person who knows it labels differently.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from harness.frame.people.records import Principals
from harness.frame.records.transaction import Transaction
from harness.gate.offline.label_evidence import LabelEvidence, judge_labels
from harness.gate.offline.people_claims import SuiteLabels, judge_preference
from harness.gate.sentences import describe_history
from harness.gate.suite_plan import SuitePlan
from harness.proposals.labels.labelling import (
    LabelDraw,
    Labelling,
    PairLabel,
    build_drawn_pairs,
    build_suite_labels,
    count_agreement,
)
from harness.proposals.labels.records import LabelDraws, Labels
from harness.routing.proposal import Proposal
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
    given: Mapping[str, int]  # labels, by the person's name
    missing: Mapping[str, int]  # draws without a label, by the person's name
    ended: bool
    passed: bool
    inconclusive: bool  # the labels have ended, and show nothing
    verdict: str
    closed: str  # why it ended with its proposal, before its labels sufficed; else empty
    both: int
    agreed: int
    forecast: str  # the plan's estimate of the labels; empty where it is not computed
    created_at: datetime

    @property
    def end_text(self) -> str:
        """Introduces the verdict: labels that show nothing do not suffice."""
        return "The labels have ended." if self.inconclusive else "The labels suffice."

    @property
    def missing_text(self) -> str:
        """Whose labels are missing, and the way out if a person cannot label any more."""
        names = ", ".join(f"{name} ({count:,})" for name, count in self.missing.items())
        return (
            f"Pairs without a label count against the candidate: {names}. If a person cannot "
            f"label any more, an approver closes the labelling: `swapproof label {self.id} "
            "--close WHY`."
        )


@dataclass(frozen=True, slots=True)
class LabellingState:
    """A labelling with everything that is stored about it."""

    labelling: Labelling
    draws: Sequence[LabelDraw]
    labels: Sequence[PairLabel]

    @property
    def evidence(self) -> LabelEvidence:
        pairs = build_drawn_pairs(self.labelling, self.draws, self.labels)
        blocks = [block.pairs for block in self.labelling.list_blocks()]
        return judge_labels(blocks, pairs, self.labelling.design)

    def build_labels(
        self, plan: SuitePlan, names: Sequence[str], proposal: Proposal
    ) -> SuiteLabels:
        """Builds what the gate reads.

        Args:
            plan: of the suite.
            names: of the people, in order.
        """
        return build_suite_labels(
            self.labelling,
            self.draws,
            self.labels,
            plan,
            names,
            proposal.proposer_principal,
        )

    def next_time(self, now: datetime) -> datetime:
        """Returns the time of the next draw or label. Each is later than all before it, even if
        a clock is behind, so that their order shows which labels a draw's plan knew.
        """
        times = [draw.at for draw in self.draws] + [label.at for label in self.labels]
        last = max([self.labelling.created_at, *times])
        return max(now, last + timedelta(microseconds=1))

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


def load_names(tx: Transaction, people: Sequence[str]) -> Mapping[str, str]:
    """Loads people's names by principal; a deleted principal has its id as its name."""
    principals = Principals(tx).among(people)
    return {
        person: principals[person].name if person in principals else person for person in people
    }


def build_progress(tx: Transaction, state: LabellingState) -> LabelProgress:
    labelling = state.labelling
    proposal = Proposals(tx).get(labelling.proposal)
    names = load_names(tx, labelling.people)
    people = [names[person] for person in labelling.people]
    plan = next(plan for plan in proposal.plans if plan.suite == labelling.suite)
    verdict = judge_preference(state.build_labels(plan, people, proposal))
    sentence = f"{verdict.sentence}{describe_history(plan)}"
    given = state.given
    missing = Counter(
        names[person]
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
        given=dict(Counter(names[person] for _, person in given)),
        missing=dict(missing),
        ended=verdict.outcome != "running",
        passed=verdict.outcome == "passed",
        inconclusive=verdict.outcome == "inconclusive",
        verdict=sentence if verdict.outcome != "running" else "",
        closed=_describe_close(proposal) if verdict.outcome == "running" else "",
        both=both,
        agreed=agreed,
        forecast="",
        created_at=labelling.created_at,
    )


def _describe_close(proposal: Proposal) -> str:
    """Describes why a labelling takes no more labels; empty while the proposal is open."""
    if proposal.open:
        return ""
    return f"{proposal.id} {proposal.predicate}: {proposal.closed_because}"
