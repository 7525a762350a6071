"""Writes what a verdict says of a suite, on the Compare page, and the table of candidates."""

from collections import Counter
from collections.abc import Mapping, Sequence

from dashboard.data.frames import FEWEST_PAIRS, limit_of
from dashboard.text import labels
from harness.domain.evals.suite_plan import Claim
from harness.domain.evals.verdict import SliceFigures, SuiteReport, VerdictBasis
from harness.domain.formatting import format_percent, format_points_interval, format_score
from harness.gate.text.sentences import bounds_text

COST_WORDS = {
    "shown": "shown",
    "refuted": "refuted",
    "unshowable": "cannot be shown, because one answer cost more than the ceiling",
    "open": "not shown",
}


def slice_line(slice_: SliceFigures, report: SuiteReport) -> str:
    """Describes a slice that fails its suite: `−50.0 points, 95 % CI −63.0 to −37.0; 60 items.
    …`
    """
    known = slice_.ci_low is not None and slice_.ci_high is not None
    effect = _effect(slice_, known=known)
    used = labels.plural(slice_.n_used, report.figures.unit)
    follows = (
        "It is shown worse, which fails the candidate whatever its mean is."
        if report.outcome == "failed"
        else "It is worse as scored."
    )
    return f"{effect}; {used}. {follows}"


def suite_line(report: SuiteReport, basis: VerdictBasis) -> str:
    """`−0.4 points, 95 % CI −2.6 to +1.8; allowed loss 2.0. …` In a weighted mean it has no
    limit.
    """
    if report.n_used and report.is_unscored:
        return report.reason
    known = report.n_used >= FEWEST_PAIRS and None not in (report.ci_low, report.ci_high)
    effect, pairs = _effect(report, known=known), _pairs(report, basis)
    if not basis.decides(report) and report.n_used:
        return f"{effect}; {pairs}. It counts in the mean."
    if report.outcome == "infra_error" or report.n_used == 0:
        return report.reason
    limit = (
        "must be better than 0"
        if report.claim is Claim.SUPERIOR
        else f"allowed loss {format_score(report.margin)}"
    )
    if bounds := bounds_text(report):
        pairs += f"; {bounds}"
    if not known:
        return f"{effect} on {pairs}: too few for an interval; {limit}.{_why(report)}"
    return f"{effect}; {limit}; {pairs}.{_why(report)}{_cost(report)}"


def _effect(found: SuiteReport | SliceFigures, *, known: bool) -> str:
    interval = f", 95 % CI {format_points_interval(found.ci_low, found.ci_high)}"
    return f"{labels.points(found.delta)} points{interval if known else ''}"


def _pairs(report: SuiteReport, basis: VerdictBasis) -> str:
    """How much was compared: `48 pairs`, `93 pairs in 31 clusters (by document)`."""
    if report is basis.mean:
        return f"{labels.plural(report.n_used, 'pair')} of each suite"
    pairs = labels.plural(report.items_used, "pair")
    cluster = report.figures.cluster
    if not cluster:
        return pairs
    return f"{pairs} in {labels.plural(report.n_used, 'cluster')} (by {cluster})"


def slices_note(report: SuiteReport) -> str:
    note = (
        "Candidate minus current model in each slice, in percentage points; whisker: 95 % CI. "
        "A slice that is shown worse fails the candidate, whatever its mean is."
    )
    counted: Counter[str] = Counter()
    for part in report.figures.slices or ():
        counted[part.field] += part.n_used
    if max(counted.values(), default=0) <= report.n_used:
        return note
    used = labels.plural(report.n_used, report.figures.unit)
    return f"{note} The mean was decided on the first {used}; the slices were tested on more."


def bars_note(reports: Sequence[SuiteReport], titles: Mapping[str, str]) -> str:
    clusters = [
        f" Those of {titles.get(report.suite, report.suite)} count clusters: the mean over "
        f"the items of one {report.figures.cluster}."
        for report in reports
        if report.figures.cluster
    ]
    items = (
        "Bars count the items that only one of the two models won; all suites share one scale."
    )
    return items + "".join(clusters)


def _cost(report: SuiteReport) -> str:
    cost = report.figures.cost
    if cost is None:
        return ""
    claimed = f"{format_percent(cost.min_saving)} less was claimed"
    if cost.saving is None:
        return f" What it saves is unknown; {claimed}."
    found = f" Cost per item {format_percent(cost.saving)} less"
    if cost.saving_low is not None:
        found += (
            f", 95 % CI {format_percent(cost.saving_low)} to {format_percent(cost.saving_high)}"
        )
    return f"{found}; {claimed}: {COST_WORDS[cost.outcome]}."


def _why(report: SuiteReport) -> str:
    if report.outcome == "harness_mismatch":
        rule, lenient = report.figures.rule, report.figures.lenient
        read = f", scored leniently {labels.points(lenient.delta)}" if lenient else ""
        return f" Broken most often: {rule or 'an unnamed rule'}{read}."
    low, high = report.ci_low, report.ci_high
    if report.outcome != "inconclusive" or low is None or high is None:
        return ""
    return " The interval crosses the limit." if low <= limit_of(report) <= high else ""
