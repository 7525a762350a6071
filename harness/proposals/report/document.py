"""Builds the document of a comparison: blocks that every medium renders.

Markdown, the report's page and `proposal show` render the whole document; the dashboard renders
the parts that it does not draw. Figures and rows come from `content`, drawbacks and format
failures from `findings`. The module loads nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from harness.evals.proof_validity import ProofState
from harness.frame.formatting import (
    NOT_RECORDED,
    format_latency,
    format_month_usd,
    format_percent,
    format_points,
    format_points_interval,
    format_relative_change,
    format_score,
    format_thousand_price,
)
from harness.gate.sentences import (
    bounds_text,
)
from harness.gate.suite_plan import Claim
from harness.gate.verdict import SuiteReport, Verdict
from harness.gate.verdict_sentences import (
    describe_claim,
    describe_reason,
    describe_results,
)
from harness.proposals import route_rules
from harness.proposals.report.blocks import (
    Blocks,
    BulletList,
    Code,
    Commands,
    Facts,
    Folded,
    Heading,
    Interval,
    Quotation,
    Sentence,
    Strong,
    Table,
    Text,
    mark_code,
)
from harness.proposals.report.comparison import Comparison
from harness.proposals.report.findings import (
    FormatFailure,
    describe_absence,
    find_format_failures,
    list_drawbacks,
)
from harness.proposals.report.measurements import (
    describe_bill,
    describe_claimed_saving,
    describe_cost_and_time,
    describe_judging,
    describe_measurement,
    describe_pins,
    describe_slices,
    describe_suites,
)
from harness.routing.proposal import ProposalView

OUTCOME_PHRASES: Final = {
    "passed": "may replace",
    "failed": "must not replace",
    "harness_mismatch": "loses by form, not by substance, against",
    "inconclusive": "is not shown to be good enough to replace",
    "infra_error": "could not be measured against",
}
CLAIM_PHRASES: Final = {
    Claim.SUPERIOR: "the candidate had to be better",
    Claim.NON_INFERIOR: "the candidate had to be at most the allowed loss worse",
    Claim.CHEAPER: "the candidate had to cost less, by the declared share, and be at most the "
    "allowed loss worse",
}


def describe_comparison(
    comparison: Comparison,
    *,
    standalone: bool = False,
    next_step: str = "",
    file: str = "",
) -> Blocks:
    """Builds the whole document, without the answers' texts.

    Args:
        standalone: the comparison comes from a `gate run` without a route, so its commands are
            `gate run` too.
        next_step: replaces the comparison's own next step.
        file: the questions of `try --suite`; the document then speaks of this file, and not of
            a route and its canary.
    """
    yield _build_title(comparison, file)
    yield from _build_notices(comparison)
    yield from _build_intervals(comparison.verdict)
    yield from _build_verdict(comparison, next_step or comparison.next_step)
    yield from _build_drawbacks(comparison)
    facts = (
        _trial_facts(comparison, file)
        if file
        else _proposal_facts(comparison, comparison.proposal)
    )
    yield Facts([row for row in facts if row[1]])
    yield from _build_widened(comparison, standalone=standalone)
    yield from _build_overview(comparison)
    for failure in find_format_failures(comparison, standalone=standalone):
        yield from describe_format_failure(failure, with_commands=not file)
    yield from describe_suites(comparison)
    yield from describe_slices(comparison.verdict)
    yield from describe_cost_and_time(comparison)
    yield from describe_claimed_saving(comparison.verdict)
    yield from describe_judging(comparison)
    if not file:
        yield Heading("The route's bill")
        yield from describe_bill(comparison)
    if pins := [*describe_pins(comparison)]:
        yield Heading("Pinned versions")
        yield from pins
    yield from describe_measurement(comparison)


def _build_title(comparison: Comparison, file: str) -> Heading:
    incumbent = Code(comparison.incumbent.name)
    candidate = Code(comparison.candidate.name)
    verdict = comparison.verdict
    if verdict is None:
        subject = "the questions of" if file else "route"
        place = (f" on {subject} ", Code(file or comparison.proposal.route))
        yet = " yet" if file or comparison.proposal.open else ""
        return Heading((f"No verdict{yet}: ", candidate, " against ", incumbent, *place), 1)
    relation = f" {OUTCOME_PHRASES[verdict.outcome]} "
    words = f"{verdict.words}{name_judge(comparison)}"
    return Heading((f"{words}: ", candidate, relation, incumbent), 1)


def name_judge(comparison: Comparison) -> str:
    """Names who decided about a suite of traffic: people or its judge. Empty for any other
    verdict.
    """
    reports = comparison.verdict.suites if comparison.verdict else ()
    if comparison.is_measured and any(report.figures.labels for report in reports):
        return " by people's preference"
    judges = [side.plan.judged_by for side in comparison.suites if side.plan.judged_by]
    return f" by the judge {judges[0]}" if judges and comparison.is_measured else ""


def _build_notices(comparison: Comparison) -> Blocks:
    """Warns that the verdict is stale, or that answers may not be evidence."""
    standing = comparison.standing
    if standing is not None and standing.proof is ProofState.STALE:
        yield Facts([("STALE", f"the verdict is no longer valid: {standing.why}.")])
    if comparison.faults:
        yield Facts([("Mind", fault) for fault in comparison.faults])


def _build_intervals(verdict: Verdict | None) -> Blocks:
    for report in verdict.suites if verdict else ():
        if report.ci_low is not None and report.ci_high is not None:
            yield Interval(report.suite, report.delta, report.ci_low, report.ci_high)


def _build_verdict(comparison: Comparison, next_step: str) -> Blocks:
    """Describes the decision, its reason, the result of each suite, and the next step."""
    verdict = comparison.verdict
    basis = comparison.basis
    if verdict is None or basis is None:
        open_text = comparison.hidden and f"The comparison is {comparison.hidden}."
        ended_text = comparison.proposal.closed_because
        yield Sentence(mark_code(ended_text or open_text or "The gate is still open."))
        return
    reason = describe_reason(verdict)
    yield Facts(
        [
            ("Decided", describe_claim(basis)),
            ("Why", f"{reason[:1].upper()}{reason[1:]}"),
            ("Next", mark_code(next_step)),
        ]
    )
    results = [f"{name}: {result}" for name, result in describe_results(basis)]
    yield BulletList("Results", results)


def _build_drawbacks(comparison: Comparison) -> Blocks:
    """Lists the arguments against the swap, or states that there is no drawback."""
    if comparison.verdict is None:
        return
    against = describe_against(comparison)
    if against:
        yield BulletList("Against", against)
    else:
        yield Facts([("Against", describe_absence(comparison))])


def describe_against(
    comparison: Comparison, titles: Mapping[str, str] | None = None
) -> Sequence[Text]:
    """Describes the arguments against a swap, clear arguments first.

    Args:
        titles: by suite.
    """
    return [
        (Strong(drawback.what), f": {drawback.text}")
        for drawback in list_drawbacks(comparison, titles)
    ]


def _trial_facts(comparison: Comparison, file: str) -> Iterator[tuple[str, Text]]:
    """Yields the facts about a comparison of `try --suite`; an unknown fact is empty."""
    proposal = comparison.proposal
    yield "Questions", Code(file)
    yield "Candidate", Code(comparison.candidate.name)
    yield "Incumbent", Code(comparison.incumbent.name)
    yield "Asked", CLAIM_PHRASES[proposal.claim]
    yield "Measured", f"{proposal.created_at:%Y-%m-%d %H:%M} UTC"
    yield "Cost", comparison.cost.cost_text


def _proposal_facts(
    comparison: Comparison, proposal: ProposalView
) -> Iterator[tuple[str, Text]]:
    """Yields the facts about the proposal and its state; an unknown fact is empty."""
    yield "Proposal", Code(proposal.id)
    yield "Route", Code(proposal.route)
    yield "Candidate", Code(comparison.candidate.name)
    yield "Incumbent", Code(comparison.incumbent.name)
    yield "Asked", CLAIM_PHRASES[proposal.claim]
    yield "Proposed by", f"{proposal.proposer}, {proposal.created_at:%Y-%m-%d %H:%M} UTC"
    yield "Proposed because", proposal.reason
    for _, label, value in proposal.texts:
        yield label, Code(value)
    yield "Cost", comparison.cost.text
    yield "Approved by", proposal.approver or ""
    yield "Phase", proposal.phase_text
    yield "Verdict", Code(comparison.verdict.id) if comparison.verdict else ""
    yield "Proof", _describe_proof(comparison)
    decided = comparison.verdict.reason if comparison.verdict else ""
    yield "Ended", "" if proposal.closed_because == decided else proposal.closed_because


def _describe_proof(comparison: Comparison) -> str:
    if comparison.verdict is None:
        return ""
    if not comparison.is_measured:
        return "none, because it was not measured"
    if comparison.standing is None:
        return ""
    if comparison.standing.holds:
        return f"holds until {comparison.verdict.expires_at:%Y-%m-%d %H:%M} UTC"
    return comparison.standing.text


def _build_widened(comparison: Comparison, *, standalone: bool) -> Blocks:
    widened = comparison.proposal.widened
    if widened and not standalone:
        reasons = route_rules.describe_second_person_reasons(widened)
        yield Sentence("Another person than the proposer must approve these settings.")
        yield BulletList("Widened", [Code(reason) for reason in reasons])


def _build_overview(comparison: Comparison) -> Blocks:
    """Compares both models: scores, cost, time, failures and the route's bill."""
    basis = comparison.basis
    reports = basis.suites if basis is not None else ()
    scores = [row for report in reports for row in _score_row(report)]
    if not scores:
        return
    incumbent_figures = comparison.incumbent_figures
    candidate_figures = comparison.candidate_figures
    rows = [
        *scores,
        (
            "cost per 1,000 answers",
            format_thousand_price(incumbent_figures.cost_usd_per_1000, NOT_RECORDED),
            format_thousand_price(candidate_figures.cost_usd_per_1000, NOT_RECORDED),
            _format_change(
                incumbent_figures.cost_usd_per_1000, candidate_figures.cost_usd_per_1000
            ),
        ),
        (
            "median time",
            format_latency(incumbent_figures.p50_s),
            format_latency(candidate_figures.p50_s),
            _format_change(incumbent_figures.p50_s, candidate_figures.p50_s),
        ),
        (
            "calls that failed",
            format_percent(incumbent_figures.failed, 1),
            format_percent(candidate_figures.failed, 1),
            "",
        ),
        *_bill_row(comparison),
    ]
    yield Heading("At a glance")
    yield Table(("", "incumbent", "candidate", "change"), rows)


def _bill_row(comparison: Comparison) -> Iterator[tuple[str, str, str, str]]:
    now_usd = comparison.forecast.now_usd
    candidate_usd = comparison.forecast.candidate_usd
    if now_usd is not None and candidate_usd is not None:
        yield (
            "the route's bill in 30 days",
            format_month_usd(now_usd),
            format_month_usd(candidate_usd),
            _format_change(now_usd, candidate_usd),
        )


def _score_row(report: SuiteReport) -> Iterator[tuple[str, str, str, str]]:
    """Yields the row of a suite with scores; yields no row for a suite without scores."""
    incumbent_mean = report.figures.incumbent_mean
    candidate_mean = report.figures.candidate_mean
    if incumbent_mean is None or candidate_mean is None or report.is_unscored:
        return
    difference = format_points(report.delta)
    if report.ci_low is not None:
        interval = format_points_interval(report.ci_low, report.ci_high)
        difference += f" (95 % interval {interval})"
    if bounds := bounds_text(report):
        difference += f"; {bounds}"
    yield (
        f"{report.suite}: score of 100",
        format_score(incumbent_mean),
        format_score(candidate_mean),
        difference,
    )


def _format_change(old: float | None, new: float | None) -> str:
    if not old or new is None:
        return ""
    return format_relative_change(old, new)


def describe_format_failure(
    failure: FormatFailure,
    titles: Mapping[str, str] | None = None,
    *,
    with_commands: bool = True,
) -> Blocks:
    """Describes a loss by form: what happened, each fix with its commands, and examples."""
    title = (titles or {}).get(failure.suite, failure.suite)
    yield Heading(f"What to change: {title}")
    yield Sentence(
        f"The candidate {failure.remedy.what}. With strict scores the difference is "
        f"{format_points(failure.strict_delta)} points; with form ignored on both sides it is "
        f"{format_points(failure.lenient_delta)} points."
    )
    rules = sorted(failure.rules.items(), key=lambda rule: (-rule[1], rule[0]))
    rows = [(Code(rule), failure.meanings[rule], f"{count:,}") for rule, count in rules]
    yield Table(("broken rule", "what it means", "answers"), rows)
    fixes = [mark_code(fix.what) for fix in failure.mends]
    parser = f"a parser in your application that can {failure.remedy.parser}"
    yield BulletList("Each of these changes would help", [*fixes, parser])
    mends = failure.mends if with_commands else ()
    for fix, ordinal in zip(mends, ("first", "second"), strict=False):
        yield Sentence(f"The {ordinal} creates another target, which needs a new evaluation:")
        yield Commands(fix.commands)
    if failure.examples:
        name = f"{len(failure.examples)} of its answers"
        yield Folded(name, list(_format_examples(failure)))


def _format_examples(failure: FormatFailure) -> Blocks:
    rows = [
        (
            example.item,
            Code(example.rule or "unnamed"),
            _format_strict_score(example.candidate_score),
            _format_strict_score(example.lenient_score),
        )
        for example in failure.examples
    ]
    yield Table(("item", "rule", "strict score", "form ignored"), rows)
    for example in failure.examples:
        yield Quotation(f"{example.item}, incumbent", example.incumbent)
        yield Quotation(f"{example.item}, candidate", example.candidate)


def _format_strict_score(share: float | None) -> str:
    return format_score(share, None, missing="none")
