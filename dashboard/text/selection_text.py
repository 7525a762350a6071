"""Writes the Compare page's table of candidates that were proposed together, one a row."""

from collections.abc import Mapping, Sequence

from dashboard.text import labels
from harness.control.proposals.selections import SelectionCandidate, SelectionComparison
from harness.domain.formatting import DASH, format_thousand_price
from harness.domain.proposals.proposal import ProposalPhase

MATRIX_HEADS = (
    "Candidate",
    "Verdict",
    "Change in score, points (95 % CI)",
    "Cost per 1,000 requests",
    "Latency, p95",
    "Answers",
    "Now",
)


def matrix(
    selection: SelectionComparison, titles: Mapping[str, str]
) -> Sequence[tuple[str, Sequence[str]]]:
    """Lists the current model, then each candidate that was proposed with the others: the
    proposal's id, empty for the current model, and its cells.

    titles: of the suites, by name.
    """
    before = selection.incumbent_figures
    first = (f"{selection.incumbent.name} (current)", DASH, DASH)
    cost = (format_thousand_price(before.cost_usd_per_1000), labels.seconds(before.p95_s))
    serves = (labels.count(before.samples), "serves")
    rows: list[tuple[str, Sequence[str]]] = [("", (*first, *cost, *serves))]
    for candidate in selection.candidates:
        label = labels.verdict_label(candidate.verdict)
        cells = (
            candidate.target.name,
            f"{label.symbol}\N{NO-BREAK SPACE}{label.words}",
            candidate.describe_differences(titles) or DASH,
            format_thousand_price(candidate.figures.cost_usd_per_1000),
            labels.seconds(candidate.figures.p95_s),
            f"{candidate.answered:,} of {candidate.planned:,}".replace(
                " ", "\N{NO-BREAK SPACE}"
            ),
            _now(candidate, selection),
        )
        rows.append((candidate.proposal.id, cells))
    return rows


def _now(candidate: SelectionCandidate, selection: SelectionComparison) -> str:
    """Where a candidate stands; of one that passed in vain also why."""
    proposal, verdict = candidate.proposal, candidate.verdict
    words = labels.phase_label(proposal).words
    passed = verdict is not None and verdict.outcome == "passed"
    if passed and proposal.phase is ProposalPhase.REJECTED:
        return f"{words}: {name_candidates(proposal.closed_because, selection)}"
    return words


def name_candidates(text: str, selection: SelectionComparison | None) -> str:
    """Writes the models' names for the ids of a selection's proposals."""
    for candidate in selection.candidates if selection else ():
        text = text.replace(candidate.proposal.id, candidate.target.name)
    return text
