"""Renders a report as one Markdown document. Models' texts are data, in fences.

The sentences of the document are here and in `answer_examples`. Figures and rows come from
`content`, drawbacks and format failures from `findings`; nothing is loaded here. Other formats
are in `formats`.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from harness.evals.proof_validity import ProofState
from harness.frame.formatting import (
    DASH,
    escape_controls,
    format_latency,
    format_month_usd,
    format_percent,
    format_points,
    format_points_interval,
    format_relative_change,
    format_score,
    format_thousand_price,
    format_usd,
)
from harness.gate.offline.design import EARLY_ENDS
from harness.gate.sentences import bounds_text, reason_text
from harness.gate.suite_plan import SuitePlan
from harness.gate.verdict import Verdict
from harness.gate.verdict_sentences import describe_claim
from harness.proposals import route_rules
from harness.proposals.report.answer_examples import (
    cell,
    code,
    describe_pins,
    fenced,
    most_telling,
    table,
)
from harness.proposals.report.comparison import ArmFigures, Comparison
from harness.proposals.report.content import (
    SUITE_HEADS,
    Report,
    SuiteSection,
    figure_cells,
    slice_rows,
    suite_rows,
)
from harness.proposals.report.findings import (
    FormatFailure,
    describe_absence,
    find_format_failures,
    list_drawbacks,
)
from harness.routing.reports import monthly_bill

HEADS: Final = {
    "passed": "may replace",
    "failed": "must not replace",
    "harness_mismatch": "loses by form, not by substance, against",
    "inconclusive": "is not shown to be good enough to replace",
    "infra_error": "could not be measured against",
}


def render_markdown(report: Report) -> str:
    """Renders the whole document, with at most one empty line between its parts."""
    # Terminals show reports too, and would obey control characters in models' texts.
    return escape_controls("\n".join(_lines(report)).rstrip()) + "\n"


def _lines(report: Report) -> Iterator[str]:
    comparison = report.comparison
    yield from _verdict(report, comparison.verdict)
    yield from _glance(report)
    for lost in find_format_failures(comparison, standalone=report.standalone):
        yield from _form(lost)
    yield from _suites(report)
    yield from _slices(comparison.verdict)
    yield from ("", "## Cost and time of an answer", "")
    yield from _arms(report.arms)
    yield from _claimed_cost(comparison.verdict)
    yield from _judging(report)
    yield from (
        "",
        "## The route's bill",
        "",
        monthly_bill.describe_forecast(comparison.forecast),
    )
    if why := monthly_bill.describe_basis(comparison.forecast):
        yield why
    if report.telling:
        yield from most_telling(report.telling)
    yield from describe_pins(report)


def _verdict(report: Report, verdict: Verdict | None) -> Iterator[str]:
    """Writes the head: verdict, faults, reason, drawbacks, next step and terms.

    A comparison without a verdict gets only its title and its state.
    """
    comparison = report.comparison
    a = code(comparison.incumbent.name)
    b = code(comparison.candidate.name)
    if verdict is None:
        yield f"# No verdict yet: {b} against {a} on route `{comparison.proposal.route}`"
        yield from (
            "",
            cell(comparison.proposal.closed_because or "The gate is still open."),
        )
        return
    yield f"# {verdict.words}: {b} {HEADS[verdict.outcome]} {a}"
    if comparison.standing is not None and comparison.standing.proof is ProofState.STALE:
        yield from (
            "",
            f"**STALE**, no longer valid: {cell(comparison.standing.why)}.",
        )
    for fault in comparison.faults:
        yield from ("", f"**Mind:** {cell(fault)}")
    if comparison.basis is not None:
        yield from (
            "",
            f"**Decided:** {cell(describe_claim(comparison.basis))}",
        )
    why = reason_text(verdict)
    yield from ("", f"**Why:** {why[:1].upper()}{why[1:]}")
    yield from _against(comparison)
    yield from ("", f"**Next:** {report.next_step}")
    claim = comparison.proposal.claim.value
    terms = {
        "superior": "the candidate had to be better",
        "non_inferior": "the candidate had to be at most the allowed loss worse",
        "cheaper_and_not_worse": "the candidate had to cost less, by the declared share, and "
        "be at most the allowed loss worse",
    }[claim]
    why = (
        f" Proposed because: {cell(comparison.proposal.reason)}."
        if comparison.proposal.reason
        else ""
    )
    why += "".join(f" {label}: {code(value)}." for _, label, value in comparison.proposal.texts)
    why += f" Cost: {cell(comparison.cost.text)}"
    yield from (
        "",
        f"**Asked:** on route `{comparison.proposal.route}`, {terms}.{why}",
    )
    if comparison.proposal.widened and not report.standalone:
        yield from (
            "",
            "**Widened:** another person than the proposer must approve these settings:",
            "",
        )
        yield from (
            f"- {code(line)}"
            for line in route_rules.describe_second_person_reasons(comparison.proposal.widened)
        )


def _against(comparison: Comparison) -> Iterator[str]:
    """Writes the drawbacks, or the absence of drawbacks."""
    drawbacks = list_drawbacks(comparison)
    if not drawbacks:
        yield from ("", f"**Against:** {cell(describe_absence(comparison))}")
        return
    yield from ("", "**Against:**", "")
    yield from (f"- {cell(drawback.what)}: {cell(drawback.text)}" for drawback in drawbacks)


def _glance(report: Report) -> Iterator[str]:
    """Writes both models side by side: scores, cost, time, failures and the route's bill."""
    scores = [row for part in report.suites for row in _score_row(part)]
    if not scores:
        return
    (_, ours), (_, theirs) = report.arms
    rows = [
        *scores,
        (
            "cost per 1,000 answers",
            format_thousand_price(ours.cost_usd_per_1000),
            format_thousand_price(theirs.cost_usd_per_1000),
            _change(ours.cost_usd_per_1000, theirs.cost_usd_per_1000),
        ),
        (
            "median time",
            format_latency(ours.p50_s),
            format_latency(theirs.p50_s),
            _change(ours.p50_s, theirs.p50_s),
        ),
        (
            "calls that failed",
            format_percent(ours.failed, 1),
            format_percent(theirs.failed, 1),
            "",
        ),
        *_bill_row(report),
    ]
    yield ""
    yield from table(("", "incumbent", "candidate", "change"), rows)


def _bill_row(report: Report) -> Iterator[Sequence[str]]:
    forecast = report.comparison.forecast
    now = forecast.now_usd
    then = forecast.candidate_usd
    if now is not None and then is not None:
        yield (
            "the route's bill in 30 days",
            format_month_usd(now),
            format_month_usd(then),
            _change(now, then),
        )


def _score_row(part: SuiteSection) -> Iterator[Sequence[str]]:
    """Yields the row of a suite with scores; yields no row for a suite without scores."""
    report = part.report
    if report is None:
        return
    ours = report.figures.incumbent_mean
    theirs = report.figures.candidate_mean
    if ours is None or theirs is None or report.is_unscored:
        return
    known = report.ci_low is not None
    interval = format_points_interval(report.ci_low, report.ci_high)
    sure = f" (95 % interval {interval})" if known else ""
    if bounds := bounds_text(report):
        sure += f"; {bounds}"
    yield (
        f"{report.suite}: score of 100",
        format_score(ours),
        format_score(theirs),
        f"{format_points(report.delta)}{sure}",
    )


def _change(before: float | None, after: float | None) -> str:
    if not before or after is None:
        return ""
    return format_relative_change(before, after)


def _form(lost: FormatFailure) -> Iterator[str]:
    """Writes a format failure: what happened, each fix with its commands, and examples."""
    counts = ", ".join(f"`{rule}` {count}" for rule, count in lost.rules.items())
    yield from ("", f"## What to change: {lost.suite}", "")
    yield f"On {lost.suite} the candidate {lost.remedy.what}."
    yield f"With strict scores {format_points(lost.strict_delta)} points; with form ignored on"
    yield f"both sides {format_points(lost.lenient_delta)} points."
    yield f"Its answers broke these rules: {counts}."
    yield from ("", "Each of these changes would help:", "")
    for mend in lost.mends:
        yield f"- {mend.what}"
    yield f"- a parser in your application that can {lost.remedy.parser}"
    for mend, which in zip(lost.mends, ("first", "second"), strict=False):
        yield from (
            "",
            f"The {which} creates another target, which needs a new evaluation:",
            "",
        )
        yield from ("```", *mend.commands, "```")
    heads = ("item", "rule", "strict score", "form ignored")
    rows = [
        (
            cell(example.item),
            f"`{example.rule or 'unnamed'}`",
            _score(example.candidate_score),
            _score(example.lenient_score),
        )
        for example in lost.examples
    ]
    yield from (
        "",
        f"### {len(rows)} of its answers",
        "",
        *table(heads, rows),
    )
    for example in lost.examples:
        yield from (
            "",
            f"{cell(example.item)}, incumbent and candidate:",
            "",
        )
        yield from (
            *fenced(example.incumbent),
            "",
            *fenced(example.candidate),
        )


def _score(share: float | None) -> str:
    return format_score(share, None, missing="none")


def _suites(report: Report) -> Iterator[str]:
    """Writes the table of suites, with the rules that the candidate broke."""
    verdict = report.comparison.verdict
    rows = suite_rows(verdict) if verdict else [_open_row(p.side.plan) for p in report.suites]
    yield from ("", "## Suites", "")
    yield from table(SUITE_HEADS, rows)
    yield ""
    yield "Differences are points of 100. A win is an item with a higher score."
    if any(part.report and part.report.how in EARLY_ENDS for part in report.suites):
        yield "The gate stopped early: an interval at that moment is not adjusted for it."
    if report.comparison.decided_on:
        yield from ("", report.comparison.decided_on)
    for part in report.suites:
        rules = part.report.figures.rules if part.report else {}
        if part.report and rules and part.report.outcome != "harness_mismatch":
            counts = ", ".join(f"`{rule}` {count}" for rule, count in rules.items())
            yield from (
                "",
                f"{part.report.suite}: the candidate broke format rules: {counts}.",
            )


def _open_row(plan: SuitePlan) -> Sequence[str]:
    loss = format_score(plan.margin, None)
    role = plan.role.value
    none_used = f"0 of {plan.n_max_text}"
    return plan.suite, role, "open", DASH, DASH, loss, none_used, DASH


def _slices(verdict: Verdict | None) -> Iterator[str]:
    rows = [[cell(text) for text in row] for row in slice_rows(verdict)]
    if rows:
        heads = ("suite", "slice", "shown", "delta", "95 % interval", "used")
        yield from ("", "### Slices", "", *table(heads, rows), "")
        yield "A candidate that is shown worse in any slice fails, at any mean."


def _claimed_cost(verdict: Verdict | None) -> Iterator[str]:
    """Writes the test of a claimed saving; nothing for another claim."""
    claimed = [(suite, suite.figures.cost) for suite in (verdict.suites if verdict else ())]
    rows = [
        (
            part.suite,
            cost.outcome,
            format_thousand_price(_per_1000(cost.incumbent_usd)),
            format_thousand_price(_per_1000(cost.candidate_usd)),
            _share(cost.saving),
            f"{_share(cost.saving_low)} to {_share(cost.saving_high)}",
            _share(cost.min_saving),
            f"{cost.n_used}",
        )
        for part, cost in claimed
        if cost is not None
    ]
    if rows:
        heads = (
            "suite",
            "cheaper",
            "incumbent, per 1,000 items",
            "candidate",
            "saving",
            "95 % interval",
            "claimed",
            "items used",
        )
        yield ""
        yield from table(heads, rows)
        yield ""
        yield "Paired: both models' costs of the same items, in the order of the scores."


def _per_1000(usd: float | None) -> float | None:
    return None if usd is None else usd * 1000


def _share(share: float | None) -> str:
    return format_percent(share, missing=DASH)


def _arms(arms: Sequence[tuple[str, ArmFigures]]) -> Iterator[str]:
    heads = (
        "",
        "answers",
        "cost per 1,000",
        "95 % interval",
        "median",
        "95 % interval",
        "95th percentile",
        "tokens a second",
        "calls that failed",
    )
    rows = [
        (
            code(name),
            f"{arm.samples:,}",
            *figure_cells(arm),
        )
        for name, arm in arms
    ]
    yield from table(heads, rows)
    (_, ours), (_, theirs) = arms
    if ours.cost_usd_per_1000 and theirs.cost_usd_per_1000 is not None:
        share = theirs.cost_usd_per_1000 / ours.cost_usd_per_1000
        yield from (
            "",
            f"An answer of the candidate costs {share:.2f} times the incumbent's.",
        )


def _judging(report: Report) -> Iterator[str]:
    """Writes calls and cost of the suites' judges; nothing without a judge."""
    judged = [part.side for part in report.suites if part.side.pin.judged]
    if judged:
        rows = [
            (
                side.plan.suite,
                f"{side.judging.calls:,}",
                format_usd(side.judging.usd),
            )
            for side in judged
        ]
        yield ""
        yield from table(("suite", "calls of its judge", "cost of judging"), rows)
