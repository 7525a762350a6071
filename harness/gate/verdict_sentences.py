"""Sentences about a verdict's claim, its outcome, and the results of its suites and slices.

They are rendered from codes and figures when a verdict is shown, and are not stored: a change
here changes no verdict. The stored reason of each suite is in `harness.gate.sentences`.
Differences are in points of 100.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from harness.frame.formatting import (
    format_percent,
    format_points,
    format_points_interval,
    format_quantity,
    format_score,
)
from harness.gate.offline.design import FUTILE
from harness.gate.sentences import (
    NOT_SHOWN_WORSE,
    bounds_text,
    given_up_text,
    polish_reason,
)
from harness.gate.suite_plan import Claim, SuiteRole
from harness.gate.verdict import (
    BaseVerdict,
    CostOutcome,
    SliceFigures,
    SuiteReport,
    VerdictBasis,
)

# With fewer pairs, people see no interval.
FEWEST_PAIRS: Final = 30

PROBLEMS: Final = {
    "failed": "Worse than the allowed loss",
    "harness_mismatch": "Lost by format alone",
    "infra_error": "Could not be measured",
    "inconclusive": "Still open",
}

WORSE_IN_SLICE: Final = "Worse in a slice"

COST_WORDS: Final = {
    CostOutcome.SHOWN: "shown",
    CostOutcome.REFUTED: "refuted",
    CostOutcome.UNSHOWABLE: "cannot be shown, because one answer cost more than the ceiling",
    CostOutcome.OPEN: "not shown",
}


def describe_claim(basis: VerdictBasis, titles: Mapping[str, str] | None = None) -> str:
    """Describes a verdict's result: `Better on the weighted mean of 2 suites; both suites point
    the same way.`

    Args:
        titles: suite titles by name.
    """
    names = titles or {}
    if basis.outcome == "passed":
        return "; ".join(_passed_parts(basis, names)) + "."
    deciding = [report for report in basis.claims if report.outcome == basis.outcome]
    deciding = deciding or list(basis.claims)
    where = _join([_name_suite(basis, report, names) for report in deciding])
    what = PROBLEMS.get(basis.outcome, PROBLEMS["inconclusive"])
    if basis.outcome == "failed":
        what = _name_loss(deciding)
    if what == WORSE_IN_SLICE:
        where = _join(
            [
                f"{names.get(report.suite, report.suite)}, {slice_.name}"
                for report in deciding
                for slice_ in report.figures.worse_slices
            ]
        )
    tally = ""
    claims = len(basis.claims)
    if claims > 1:
        tally = f" {len(basis.passed_claims)} of {format_quantity(claims, 'claim')} shown."
    return f"{what}: {where}.{tally}"


def describe_reason(verdict: BaseVerdict, titles: Mapping[str, str] | None = None) -> str:
    """Describes why a verdict was decided: the stored sentence of its deciding suite, and how
    the other suites ended.

    Args:
        titles: suite titles by name; None to use names.
    """
    basis = VerdictBasis.from_verdict(verdict)
    report = _deciding_report(basis, verdict)
    if report is None or verdict.outcome == "infra_error":
        return polish_reason(verdict.reason)
    names = titles or {}
    sentence = polish_reason(_stored_reason(report, basis))
    if len(verdict.suites) == 1:
        return sentence
    sentence = f"{names.get(report.suite, report.suite)}: {sentence}"
    if verdict.outcome != "passed":
        return sentence
    if all(suite.outcome == "passed" for suite in verdict.suites):
        mean = " and their mean" if basis.mean is not None else ""
        return f"All {len(basis.suites)} suites{mean} passed. {sentence}"
    guards = [names.get(guard.suite, guard.suite) for guard in basis.silent_guards]
    return f"{sentence}{NOT_SHOWN_WORSE}{', '.join(guards)}." if guards else sentence


def _deciding_report(basis: VerdictBasis, verdict: BaseVerdict) -> SuiteReport | None:
    """Returns the report whose sentence explains the verdict: the first with its outcome, or
    after a pass the last, which is primary.
    """
    alone = [report for report in basis.claims if report is not basis.mean]
    ordered = [*alone, basis.mean] if basis.mean is not None else alone
    deciding = [report for report in ordered if report.outcome == verdict.outcome]
    if not deciding:
        return None
    return deciding[-1] if verdict.outcome == "passed" else deciding[0]


def _stored_reason(report: SuiteReport, basis: VerdictBasis) -> str:
    """Returns a suite's stored reason, with the units of its figures: clusters, or an item of
    each suite of a weighted mean.
    """
    used = f"{report.n_used} of {report.n_max} items"
    if report is basis.mean:
        return report.reason.replace(used, f"{used} of each suite", 1)
    if report.how == FUTILE and report.figures.cluster:
        return report.reason.replace(
            given_up_text(report.n_used, report.n_max, "item"),
            given_up_text(report.n_used, report.n_max, "cluster"),
        )
    return report.reason


def describe_members(basis: VerdictBasis) -> str:
    """Describes how many suites agree with their weighted mean; empty without a mean."""
    members = basis.members
    if basis.mean is None or not members:
        return ""
    agreeing = sum(
        report.delta > (0.0 if report.claim is Claim.SUPERIOR else -report.margin)
        for report in members
    )
    which = f"{agreeing} of {len(members)}"
    if agreeing == len(members):
        which = "both" if len(members) == 2 else f"all {len(members)}"
    return f"{which} suites point the same way"


def _passed_parts(basis: VerdictBasis, names: Mapping[str, str]) -> Sequence[str]:
    """Lists the parts of a passed verdict's sentence: the claim, the agreement of suites,
    further conditions.
    """
    guards = basis.silent_guards
    shown = [report for report in basis.passed_claims if report not in basis.members]
    primary = [report for report in shown if report.role is SuiteRole.PRIMARY]
    kept = [report for report in shown if report.role is not SuiteRole.PRIMARY]
    where = _join([_name_suite(basis, report, names) for report in primary])
    head = _name_shown_claim(primary[0]) if primary else "Shown"
    parts = [f"{head} on {where}" if where else head]
    if basis.alternatives:
        parts.append(f"one of {len(basis.alternatives)} suites was enough")
    if agreement := describe_members(basis):
        parts.append(agreement)
    by_loss: dict[str, list[str]] = {}
    for report in kept:
        name = names.get(report.suite, report.suite)
        by_loss.setdefault(format_score(report.margin, None), []).append(name)
    parts += [
        f"at most {loss} points worse on {_join(group)}" for loss, group in by_loss.items()
    ]
    if guards:
        parts.append(
            f"not shown to be worse on {_join([names.get(r.suite, r.suite) for r in guards])}"
        )
    return parts


def _name_shown_claim(report: SuiteReport) -> str:
    """Names the claim that a passed suite has shown."""
    loss = f"at most {format_score(report.margin, None)} points worse"
    match report.claim:
        case Claim.SUPERIOR:
            return "Better"
        case Claim.CHEAPER:
            cost = report.figures.cost
            share = f" by at least {format_percent(cost.min_saving)}" if cost else ""
            return f"Cheaper{share} and {loss}"
        case _:
            return loss.capitalize()


def _name_loss(deciding: Sequence[SuiteReport]) -> str:
    """Names the kind of loss that all deciding suites have in common."""
    costs = [report.figures.cost for report in deciding]
    if costs and all(
        cost is not None and cost.outcome == CostOutcome.REFUTED for cost in costs
    ):
        return "Not as cheap as claimed"
    if deciding and all(report.figures.worse_slices for report in deciding):
        return WORSE_IN_SLICE
    if all(report.claim is Claim.SUPERIOR for report in deciding):
        return "Worse than the current model"
    return PROBLEMS["failed"]


def _name_suite(
    basis: VerdictBasis,
    report: SuiteReport,
    names: Mapping[str, str],
) -> str:
    if report is basis.mean:
        members = [names.get(member.suite, member.suite) for member in basis.members]
        return f"the weighted mean of {len(members)} suites ({_join(members)})"
    return names.get(report.suite, report.suite)


def _join(names: Sequence[str]) -> str:
    """Lists names as a sentence does: `a`, `a and b`, `a, b and c`."""
    return " and ".join([part for part in (", ".join(names[:-1]), *names[-1:]) if part])


def sort_for_reading(reports: Sequence[SuiteReport]) -> list[SuiteReport]:
    """Sorts reports: primary suites first, else in the given order."""
    return sorted(reports, key=lambda report: report.role is not SuiteRole.PRIMARY)


def describe_results(
    basis: VerdictBasis, titles: Mapping[str, str] | None = None
) -> Sequence[tuple[str, str]]:
    """Describes each suite that decides the verdict, after its slices that are shown worse.

    Returns (name, sentences).

    Args:
        titles: suite titles by name.
    """
    names = titles or {}
    results: list[tuple[str, str]] = []
    for report in list_deciding_reports(basis):
        title = names.get(report.suite, report.suite)
        worse = report.figures.worse_slices
        results += [
            (f"{title}, {slice_.name}", describe_slice_result(slice_, report))
            for slice_ in worse
        ]
        whole = f"{title}, all slices" if worse else title
        results.append((whole, describe_suite_result(report, basis)))
    return results


def list_deciding_reports(basis: VerdictBasis) -> Sequence[SuiteReport]:
    """Lists the reports that decide the verdict, the weighted mean and its suites first. Unless
    the verdict passed, lists only the claims with its outcome.
    """
    claims = sort_for_reading(basis.claims)
    if basis.outcome != "passed":
        claims = [r for r in claims if r.outcome == basis.outcome] or claims
    if basis.mean is None or basis.mean not in claims:
        return claims
    members = [member for member in basis.members if member not in claims]
    return [
        basis.mean,
        *members,
        *(claim for claim in claims if claim is not basis.mean),
    ]


def list_reports(basis: VerdictBasis) -> Sequence[SuiteReport]:
    """Lists all reports in reading order, the weighted mean first."""
    suites = sort_for_reading(basis.suites)
    return [basis.mean, *suites] if basis.mean is not None else suites


def describe_slice_result(slice_: SliceFigures, report: SuiteReport) -> str:
    """Describes a slice that fails: `−50.0 points, 95 % CI −63.0 to −37.0; 60 items. …`."""
    known = slice_.ci_low is not None and slice_.ci_high is not None
    effect = _write_effect(slice_, known=known)
    used = format_quantity(slice_.n_used, report.figures.unit)
    follows = (
        "The slice is shown worse, so the candidate fails, whatever the suite's mean is."
        if report.outcome == "failed"
        else "The candidate's score on this slice is lower."
    )
    return f"{effect}; {used}. {follows}"


def describe_suite_result(report: SuiteReport, basis: VerdictBasis) -> str:
    """Describes a suite's result: `−0.4 points, 95 % CI −2.6 to +1.8; allowed loss 2.0. …`. A
    suite that counts only in the mean has no limit.
    """
    if report.n_used and report.is_unscored:
        return report.reason
    known = report.n_used >= FEWEST_PAIRS and None not in (
        report.ci_low,
        report.ci_high,
    )
    effect = _write_effect(report, known=known)
    pairs = _count_pairs(report, basis)
    if not basis.decides(report) and report.n_used:
        return f"{effect}; {pairs}. The suite counts only in the mean."
    if report.outcome == "infra_error" or report.n_used == 0:
        return report.reason
    limit = (
        "must be better than 0"
        if report.claim is Claim.SUPERIOR
        else f"allowed loss {format_score(report.margin)}"
    )
    if bounds := bounds_text(report):
        pairs += f"; {bounds}"
    if report.figures.labels:
        given = format_quantity(report.figures.labels.labels, "label")
        return f"{effect} by {given} of {pairs}; {limit}.{_why_open(report)}"
    if not known:
        return f"{effect} on {pairs}: too few for an interval; {limit}.{_why_open(report)}"
    return f"{effect}; {limit}; {pairs}.{_why_open(report)}{_describe_cost_claim(report)}"


def _write_effect(found: SuiteReport | SliceFigures, *, known: bool) -> str:
    interval = f", 95 % CI {format_points_interval(found.ci_low, found.ci_high)}"
    return f"{format_points(found.delta)} points{interval if known else ''}"


def _count_pairs(report: SuiteReport, basis: VerdictBasis) -> str:
    """Counts the compared pairs: `48 pairs`, `93 pairs in 31 clusters (by document)`."""
    if report is basis.mean:
        return f"{format_quantity(report.n_used, 'pair')} of each suite"
    pairs = format_quantity(report.items_used, "pair")
    cluster = report.figures.cluster
    if not cluster:
        return pairs
    return f"{pairs} in {format_quantity(report.n_used, 'cluster')} (by {cluster})"


def _describe_cost_claim(report: SuiteReport) -> str:
    """Describes whether the claimed saving was shown; empty for a suite without such a
    claim.
    """
    cost = report.figures.cost
    if cost is None:
        return ""
    claimed = f"the proposal claimed {format_percent(cost.min_saving)} less"
    if cost.saving is None:
        return f" The saving is unknown; {claimed}."
    found = f" Cost per item {format_percent(cost.saving)} less"
    if cost.saving_low is not None:
        found += (
            f", 95 % CI {format_percent(cost.saving_low)} to {format_percent(cost.saving_high)}"
        )
    return f"{found}; {claimed}: {COST_WORDS[cost.outcome]}."


def _why_open(report: SuiteReport) -> str:
    """Explains an inconclusive result, or a loss by format; empty for other results."""
    if report.outcome == "harness_mismatch":
        rule = report.figures.rule
        lenient = report.figures.lenient
        points = format_points(lenient.delta) if lenient else ""
        read = f"; scored leniently, the difference is {points} points" if lenient else ""
        return f" Most often violated format rule: {rule or 'unnamed'}{read}."
    low = report.ci_low
    high = report.ci_high
    if report.outcome != "inconclusive" or low is None or high is None:
        return ""
    return " The interval crosses the limit." if low <= report.limit <= high else ""
