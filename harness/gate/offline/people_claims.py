"""Judges a suite by people's labels instead of a judge's scores (statistics.md §1.23). Pure.

The labels of a suite count once they have ended. Until then the suite is open, and the judge's
scores decide nothing: they only predict labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import fsum, lgamma, log
from statistics import fmean
from typing import Final

from harness.frame.formatting import format_quantity, format_score
from harness.gate.offline.label_evidence import (
    DrawnPair,
    LabelEvidence,
    PairBlock,
    PairWeights,
    judge_labels,
)
from harness.gate.offline.label_plan import TIE, LabelDesign
from harness.gate.offline.pairs import PairedSuite
from harness.gate.offline.slices import merge_clusters
from harness.gate.offline.suite_judgement import StoppedRun, SuiteJudgement
from harness.gate.sentences import describe_history
from harness.gate.suite_plan import Claim, PrimaryCombination, SuitePlan
from harness.gate.verdict import LabelFigures, SuiteFigures, SuiteReport

_NOT_LABELLED: Final = "People have not labelled its pairs."
# A careful person reaches this e-value for a side with a probability of .001 at most.
_SIDE_LOG_E: Final = log(1_000)
# A person who prefers an answer in a third of the pairs gives so many ties in a row with a
# probability of .02.
_FEWEST_TIES: Final = 10


class Population(StrEnum):
    """What the pairs of a suite stand for."""

    TRAFFIC = "traffic"  # callers were drawn from a log at random
    KIND = "kind"  # the suite's items are examples of their kind
    THESE = "these"  # the policy's claim is about the suite's own items


@dataclass(frozen=True, slots=True)
class SuiteLabels:
    """The labels of one suite, in the order of the draws. A verdict's inputs contain them.

    blocks: the drawn callers in random order. requests: the weights of the pairs by requests;
    None if the log has no counts. by_requests: the drawn pairs' shares of it. labellers: how
    many people gave a label. cannot_tell: the labels that say so. sides: for each person in the
    order of `people`, the labels that prefer the answer shown as A, and as B. ties: for each
    person, the labels that prefer neither. by_proposer: whether all labels are by the
    person who proposed the candidate.
    """

    labelling: str  # id
    people: tuple[str, ...]  # names of all people of the labelling
    labels: int
    labellers: int
    design: LabelDesign
    blocks: tuple[PairBlock, ...]
    drawn: tuple[DrawnPair, ...]
    requests: PairWeights | None = None
    by_requests: tuple[float, ...] = ()
    cannot_tell: int = 0
    sides: tuple[tuple[int, int], ...] = ()
    ties: tuple[int, ...] = ()
    by_proposer: bool = False
    population: Population = Population.TRAFFIC

    @property
    def by(self) -> str:
        """Names the people: `By ada's preference (84 labels, 3 of them “can't tell”)`."""
        count = format_quantity(self.labels, "label")
        if self.cannot_tell:
            count += f", {self.cannot_tell} of them “can't tell”"
        if self.by_proposer:
            count += ", all by the proposer of the candidate"
        if len(self.people) == 1:
            return f"By {self.people[0]}'s preference ({count})"
        return (
            f"By people's preference ({count} by "
            f"{format_quantity(self.labellers, 'person', 'people')})"
        )

    @property
    def evidence(self) -> LabelEvidence:
        return judge_labels(self.blocks, self.drawn, self.design)

    def weigh_by_requests(self, evidence: LabelEvidence) -> float | None:
        """Estimates the win share that is weighted by requests; None without their counts.

        Labels predict the pairs that have none.
        """
        if self.requests is None:
            return None
        known = TIE * self.requests.ties
        left = list(self.requests.open)
        for pair, weight in zip(self.drawn, self.by_requests, strict=True):
            left[pair.judged] -= weight
            known += weight * (pair.low + pair.high) / 2.0
        predicted = zip(left, evidence.predicted, strict=True)
        return known + fsum(weight * share for weight, share in predicted)


@dataclass(frozen=True, slots=True)
class PeopleVerdict:
    """What people's labels show about a suite. outcome: passed | failed | inconclusive, or
    running before the end. sentence: for people.
    """

    outcome: str
    sentence: str
    evidence: LabelEvidence


def judge_preference(labels: SuiteLabels) -> PeopleVerdict:
    """Judges the labels of one suite. If callers and requests disagree about the claim, neither
    is shown.
    """
    evidence = labels.evidence
    design = labels.design
    if not evidence.is_decided:
        return PeopleVerdict("running", _NOT_LABELLED, evidence)
    if evidence.harm.is_shown:
        sentence = (
            f"{labels.by}: FAILED, because the candidate gave more unacceptable answers than "
            "the incumbent, whatever people prefer."
        )
        return PeopleVerdict("failed", sentence, evidence)
    if doubt := _find_doubt(labels):
        sentence = f"{labels.by}: NOT ENOUGH EVIDENCE, because {doubt}."
        return PeopleVerdict("inconclusive", sentence, evidence)
    outcome = _OUTCOMES[evidence.outcome]
    weighted = labels.weigh_by_requests(evidence)
    share = f"the candidate wins a share of {evidence.estimate:.2f} of these pairs"
    if weighted is not None:
        sides = [value > design.theta0 for value in (evidence.estimate, weighted)]
        shown = outcome == "passed"
        # An estimate against its own e-values says nothing about callers and requests.
        if outcome != "inconclusive" and sides == [shown, not shown]:
            sentence = (
                f"{labels.by}: NOT ENOUGH EVIDENCE, {share}, but {weighted:.2f} weighted by "
                "requests: callers with many requests and the others disagree, so neither is "
                "shown."
            )
            return PeopleVerdict("inconclusive", sentence, evidence)
        share += f", and {weighted:.2f} weighted by requests"
    return PeopleVerdict(
        outcome, f"{labels.by}: {_describe(outcome, labels)}; {share}.", evidence
    )


def _find_doubt(labels: SuiteLabels) -> str:
    """Returns why the labels are no preferences; empty without a reason.

    The order of the answers is random, so a careful person prefers A in half of the pairs.
    """
    if 2 * labels.cannot_tell > labels.labels:
        return "people could not tell more often than they could"
    for person, sides, ties in zip(labels.people, labels.sides, labels.ties, strict=False):
        if not sum(sides) and ties >= _FEWEST_TIES:
            return (
                f"{person} preferred no answer in any of {ties} pairs, so nothing shows that "
                "these labels follow the answers"
            )
    for person, (first, second) in zip(labels.people, labels.sides, strict=False):
        if side_log_e(first, second) >= _SIDE_LOG_E:
            side = "A" if first > second else "B"
            return (
                f"{person} preferred answer {side} in {max(first, second)} of "
                f"{first + second} pairs, and the order of the answers is random"
            )
    return ""


def side_log_e(first: int, second: int) -> float:
    """Returns the log e-value that a person's labels follow the side, at any number of labels.

    It is the mean of the likelihood ratios over all probabilities of A, against ½.
    """
    count = first + second
    beta = lgamma(first + 1) + lgamma(second + 1) - lgamma(count + 2)
    return beta + count * log(2.0)


_OUTCOMES: Final = {"promote": "passed", "reject": "failed", "inconclusive": "inconclusive"}


_SUBJECTS: Final = {
    Population.TRAFFIC: "for the traffic behind the draw",
    Population.KIND: "for requests of this kind",
    Population.THESE: "for these pairs",
}


def _describe(outcome: str, labels: SuiteLabels) -> str:
    design = labels.design
    allowed = f"at most {format_score(design.margin, None)} points worse"
    subject = _SUBJECTS[labels.population]
    match outcome, design.claim:
        case "passed", Claim.SUPERIOR:
            return f"PASSED, the candidate is preferred {subject}"
        case "passed", _:
            return f"PASSED, the candidate is {allowed} {subject}"
        case "failed", Claim.SUPERIOR:
            return f"FAILED, the incumbent is preferred {subject}"
        case "failed", _:
            return f"FAILED, the candidate is not {allowed} {subject}"
        case _:
            return "NOT ENOUGH EVIDENCE, the labels are complete"


def label_alpha(plan: SuitePlan, plans: Sequence[SuitePlan]) -> float:
    """Returns the level of a suite's labels, fixed at their start.

    Args:
        plans: of the proposal.

    If one of several suites is enough for the claim, each has an equal share of alpha, because
    each labelling may stop at any label. If each suite must show the claim, each has the whole
    alpha (Berger 1982).
    """
    if plan.combine is not PrimaryCombination.ANY:
        return plan.alpha
    rivals = [other for other in plans if other.combine is PrimaryCombination.ANY]
    return min(other.alpha for other in rivals) / len(rivals)


def judge_people(
    plan: SuitePlan,
    paired: PairedSuite,
    labels: SuiteLabels | None,
    stopped: StoppedRun | None = None,
) -> SuiteJudgement:
    """Judges a suite by its labels.

    Args:
        labels: None before their end.

    Before the end the suite is `running`, and its report shows no figure of the judge.
    """
    units = plan.units_in(len(paired.items))
    report = _open_report(plan)
    if paired.blocked:
        reason = f"Not measured: {paired.blocked}."
        report = replace(report, outcome="infra_error", reason=reason)
    elif labels is not None:
        report = _add_labels(report, plan, paired, labels)
    elif stopped is not None:
        reason = f"The run ended ({stopped[1]}) before people could label its pairs."
        report = replace(report, outcome=stopped[0], reason=reason)
    return SuiteJudgement(report, units)


def _open_report(plan: SuitePlan) -> SuiteReport:
    return SuiteReport(
        suite=plan.suite,
        role=plan.role,
        claim=plan.claim,
        margin=plan.margin,
        outcome="running",
        how=None,
        n_used=0,
        n_max=plan.n_max,
        delta=0.0,
        ci_low=None,
        ci_high=None,
        ci_method="",
        log_e_bad=0.0,
        p_final=None,
        wins=0,
        ties=0,
        losses=0,
        reason=_NOT_LABELLED,
        details=SuiteFigures(alpha=plan.alpha).as_json(),
    )


def _add_labels(
    report: SuiteReport, plan: SuitePlan, paired: PairedSuite, labels: SuiteLabels
) -> SuiteReport:
    verdict = judge_preference(labels)
    evidence = verdict.evidence
    given = [pair.low for pair in labels.drawn if pair.is_labelled]
    judged = _judge_share(plan, paired)
    figures = SuiteFigures(
        alpha=labels.design.alpha,
        look=plan.look if plan.spend else None,
        spend=plan.spend or None,
        incumbent_mean=TIE,
        candidate_mean=evidence.estimate,
        cluster=plan.cluster or None,
        items=len(paired.items) if plan.cluster else None,
        labels=LabelFigures(
            labelling=labels.labelling,
            labels=labels.labels,
            labellers=labels.labellers,
            share=evidence.estimate,
            share_by_requests=labels.weigh_by_requests(evidence),
            judge_share=judged,
            log_e_unacceptable=evidence.harm.log_e_most,
        ),
    )
    return replace(
        report,
        outcome=verdict.outcome,
        how="final",
        n_used=plan.units_in(len(paired.items)),
        delta=evidence.estimate - TIE,
        log_e_bad=evidence.log_e_failing,
        p_final=evidence.p_passing,
        wins=sum(label > TIE for label in given),
        ties=sum(label == TIE for label in given),
        losses=sum(label < TIE for label in given),
        reason=f"{verdict.sentence} For information: by the judge {plan.judged_by}, the "
        f"candidate wins a share of {judged:.2f}.{describe_history(plan)}",
        details=figures.as_json(),
    )


def _judge_share(plan: SuitePlan, paired: PairedSuite) -> float:
    """Computes the candidate's win share by the judge: the mean over callers."""
    units = merge_clusters(plan, paired.items)
    return fmean(unit.pair.candidate for unit in units) if units else TIE
