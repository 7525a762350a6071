"""Expects how many labels a verdict needs, by the correlation between judge and people.

The correlation decides nothing: a labelling's design is fixed at its start. It treats both arms
alike, so that the forecast tells a labeller nothing about them: if both models change places,
the correlation stays the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from statistics import correlation as pearson
from typing import Final

from harness.frame.formatting import format_number, format_percent, format_quantity
from harness.frame.records.transaction import Transaction
from harness.gate.offline.label_forecast import LabelForecast, forecast_labels
from harness.gate.offline.label_plan import JUDGE_LEVELS, USUAL_CORRELATION
from harness.proposals.labels.label_progress import LabellingState, load_state
from harness.proposals.labels.labelling import Labelling, build_drawn_pairs
from harness.proposals.labels.records import Labellings
from harness.routing.proposal import Proposal
from harness.routing.records.proposals import Proposals

# An estimate from n labels has a standard error of about .64 / sqrt(n) at a correlation of .6
# (Fisher 1915: (1 - r²) / sqrt(n)). With 30 labels it is .12, about the spread of usual judges.
FEWEST_LABELS: Final = 30
# Weight of the usual correlation, in labels: .64² / .1², for judges that spread by .1.
_PRIOR_LABELS: Final = 40.0
_LARGEST: Final = 0.95  # a design needs a correlation below 1
_MOST_EARLIER: Final = 50  # labellings to search


@dataclass(frozen=True, slots=True)
class ExpectedCorrelation:
    """A correlation between judge and people. labels: from how many labels; 0 without any.
    labelling: the id of an earlier labelling; empty for the labelling itself.
    """

    value: float = USUAL_CORRELATION
    labels: int = 0
    labelling: str = ""

    @property
    def text(self) -> str:
        """Says which correlation it is, and where it comes from."""
        value = format_number(self.value, 2)
        if not self.labels:
            return f"at the usual correlation of {value} between judge and people"
        origin = f"labelling {self.labelling}" if self.labelling else "this labelling"
        return (
            f"at the correlation of {value} between judge and people, from "
            f"{format_quantity(self.labels, 'label')} of {origin}"
        )


def expect_correlation(
    tx: Transaction, proposal: Proposal, state: LabellingState
) -> ExpectedCorrelation:
    """Expects the correlation by the labelling's own labels, or by the newest ended labelling
    of the same route and judge, or else as usual.

    Own labels count in steps of FEWEST_LABELS. A forecast that changed with each label would
    tell a person whether the judge agrees with this label.
    """
    own = estimate_correlation(state, step=FEWEST_LABELS)
    if own is not None:
        return own
    return find_earlier(tx, proposal, state.labelling.suite) or ExpectedCorrelation()


def describe_forecast(tx: Transaction, state: LabellingState) -> str:
    """Describes how many labels the plan expects in all: the median, enough for 80 % of plans,
    and the largest number. Says which correlation it uses.
    """
    labelling = state.labelling
    proposal = Proposals(tx).get(labelling.proposal)
    expected = expect_correlation(tx, proposal, state)
    return f"{forecast_labelling(labelling, expected.value)}; {expected.text}"


def forecast_labelling(labelling: Labelling, correlation: float) -> str:
    """Forecasts the labels of a labelling at a correlation between judge and people.

    The number of callers decides, not of pairs: a block of callers needs one label, or two if
    chance gives its pair to two people.
    """
    callers = len({item.unit for item in labelling.items})
    ties = round(callers * fsum(one.weight for one in labelling.items if one.judged is None))
    forecast = forecast_labels(callers, ties, labelling.design, correlation=correlation)
    return _format_forecast(forecast, labelling.count_most_labels(), labelling.labels_each)


def _format_forecast(forecast: LabelForecast, most: int, labels_each: float) -> str:
    """Formats a forecast.

    Args:
        most: labels in all.
        labels_each: of a block, in the mean.
    """
    passed = f"{format_percent(forecast.passed, 0)} of labellings"
    end = f"never more than {format_quantity(most, 'label')}, 20 s each"
    if forecast.median is None:
        return (
            f"a good model passes in only {passed} of so few callers: draw more, or allow more "
            f"loss; {end}"
        )
    median = min(most, round(forecast.median * labels_each))
    text = f"about {format_quantity(median, 'label')} in the median"
    if forecast.quantile_80 is None:
        return f"{text}, {end}; a good model passes in {passed}"
    late = min(most, round(forecast.quantile_80 * labels_each))
    return f"{text}, at most {late} in 80 % of labellings, {end}"


def find_earlier(tx: Transaction, proposal: Proposal, suite: str) -> ExpectedCorrelation | None:
    """Finds the correlation in the newest ended labelling of the proposal's route and judge."""
    judge = _find_judge(proposal, suite)
    for labelling in Labellings(tx).newest(_MOST_EARLIER):
        if labelling.proposal == proposal.id:
            continue
        other = Proposals(tx).get(labelling.proposal)
        if other.route != proposal.route or _find_judge(other, labelling.suite) != judge:
            continue
        state = load_state(tx, labelling)
        is_ended = state.evidence.is_decided or not other.open
        found = estimate_correlation(state) if is_ended else None
        if found is not None:
            return ExpectedCorrelation(found.value, found.labels, labelling.id)
    return None


def _find_judge(proposal: Proposal, suite: str) -> str:
    return next((plan.judged_by for plan in proposal.plans if plan.suite == suite), "")


def estimate_correlation(state: LabellingState, step: int = 1) -> ExpectedCorrelation | None:
    """Estimates the correlation from the complete labels, shrunk towards the usual one; None
    with fewer than FEWEST_LABELS.

    Args:
        step: uses the first labels, a multiple of this number.
    """
    labelled = [
        pair
        for pair in build_drawn_pairs(state.labelling, state.draws, state.labels)
        if pair.is_labelled
    ]
    count = len(labelled) // step * step
    if count < FEWEST_LABELS:
        return None
    chosen = labelled[:count]
    found = _correlate(
        [JUDGE_LEVELS[pair.judged] for pair in chosen],
        [pair.low for pair in chosen],
    )
    shrunk = (count * found + _PRIOR_LABELS * USUAL_CORRELATION) / (count + _PRIOR_LABELS)
    return ExpectedCorrelation(min(max(shrunk, 0.0), _LARGEST), count)


def _correlate(ones: Sequence[float], others: Sequence[float]) -> float:
    """Computes Pearson's correlation; 0 if one side has one value only."""
    if len(set(ones)) < 2 or len(set(others)) < 2:
        return 0.0
    return pearson(ones, others)
