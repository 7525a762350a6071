"""Builds the document of a comparison: blocks that every medium renders.

Markdown, the report's page and `proposal show` render the whole document; the dashboard renders
the parts that it does not draw. Figures and rows come from `content`, drawbacks and format
failures from `findings`. Nothing is loaded here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from harness.evals.proof_validity import ProofState
from harness.frame.formatting import (
    DASH,
    format_latency,
    format_month_usd,
    format_percent,
    format_points,
    format_points_interval,
    format_quantity,
    format_relative_change,
    format_score,
    format_thousand_price,
    format_usd,
)
from harness.gate.offline.design import EARLY_ENDS
from harness.gate.order_seeds import SeedOrigin
from harness.gate.sentences import (
    bounds_text,
    clusters_text,
    spending_text,
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
from harness.proposals.report.comparison import ArmFigures, Comparison
from harness.proposals.report.content import (
    SUITE_HEADS,
    figure_cells,
    list_pinned,
    slice_rows,
    suite_rows,
)
from harness.proposals.report.findings import (
    FormatFailure,
    describe_absence,
    find_format_failures,
    list_drawbacks,
)
from harness.routes import monthly_bill
from harness.routing.proposal import ProposalView

HEADS: Final = {
    "passed": "may replace",
    "failed": "must not replace",
    "harness_mismatch": "loses by form, not by substance, against",
    "inconclusive": "is not shown to be good enough to replace",
    "infra_error": "could not be measured against",
}
TERMS: Final = {
    Claim.SUPERIOR: "the candidate had to be better",
    Claim.NON_INFERIOR: "the candidate had to be at most the allowed loss worse",
    Claim.CHEAPER: "the candidate had to cost less, by the declared share, and be at most the "
    "allowed loss worse",
}
ARM_HEADS: Final = (
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
SAVING_HEADS: Final = (
    "suite",
    "cheaper",
    "incumbent, per 1,000 items",
    "candidate",
    "saving",
    "95 % interval",
    "claimed",
    "items used",
)


def describe_comparison(
    comparison: Comparison,
    *,
    standalone: bool = False,
    next_step: str = "",
) -> Blocks:
    """Builds the whole document, without the answers' texts.

    standalone: the comparison is a `gate run` without a route, so its commands are `gate run`s.
    next_step: replaces the comparison's own.
    """
    yield _title(comparison)
    yield from _notices(comparison)
    yield from _intervals(comparison.verdict)
    yield from _verdict(comparison, next_step or comparison.next_step)
    yield from _drawbacks(comparison)
    yield Facts([row for row in _proposal_facts(comparison, comparison.proposal) if row[1]])
    yield from _widened(comparison, standalone=standalone)
    yield from _glance(comparison)
    for failure in find_format_failures(comparison, standalone=standalone):
        yield from describe_format_failure(failure)
    yield from describe_suites(comparison)
    yield from _slices(comparison.verdict)
    yield from _cost_and_time(comparison)
    yield from _claimed_saving(comparison.verdict)
    yield from _judging(comparison)
    yield Heading("The route's bill")
    yield from describe_bill(comparison)
    yield Heading("Pinned versions")
    yield from describe_pins(comparison)
    yield from _measurement(comparison)


def _title(comparison: Comparison) -> Heading:
    incumbent = Code(comparison.incumbent.name)
    candidate = Code(comparison.candidate.name)
    verdict = comparison.verdict
    if verdict is None:
        route = Code(comparison.proposal.route)
        title = ("No verdict yet: ", candidate, " against ", incumbent, " on route ", route)
        return Heading(title, 1)
    relation = f" {HEADS[verdict.outcome]} "
    return Heading((f"{verdict.words}: ", candidate, relation, incumbent), 1)


def _notices(comparison: Comparison) -> Blocks:
    """Warns that the verdict is stale, or that answers may not be evidence."""
    standing = comparison.standing
    if standing is not None and standing.proof is ProofState.STALE:
        yield Facts([("STALE", f"the verdict is no longer valid: {standing.why}.")])
    if comparison.faults:
        yield Facts([("Mind", fault) for fault in comparison.faults])


def _intervals(verdict: Verdict | None) -> Blocks:
    for report in verdict.suites if verdict else ():
        if report.ci_low is not None and report.ci_high is not None:
            yield Interval(report.suite, report.delta, report.ci_low, report.ci_high)


def _verdict(comparison: Comparison, next_step: str) -> Blocks:
    """Describes what was decided and why, the result of each suite, and the next step."""
    verdict = comparison.verdict
    basis = comparison.basis
    if verdict is None or basis is None:
        yield Sentence(comparison.proposal.closed_because or "The gate is still open.")
        return
    why = describe_reason(verdict)
    yield Facts(
        [
            ("Decided", describe_claim(basis)),
            ("Why", f"{why[:1].upper()}{why[1:]}"),
            ("Next", mark_code(next_step)),
        ]
    )
    results = [f"{name}: {result}" for name, result in describe_results(basis)]
    yield BulletList("Results", results)


def _drawbacks(comparison: Comparison) -> Blocks:
    """Lists the arguments against the swap, or says that there is no drawback."""
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
    """Describes the arguments against a swap, clear arguments first. titles: by suite."""
    return [
        (Strong(drawback.what), f": {drawback.text}")
        for drawback in list_drawbacks(comparison, titles)
    ]


def _proposal_facts(
    comparison: Comparison, proposal: ProposalView
) -> Iterator[tuple[str, Text]]:
    """Yields what was proposed, by whom, and its state; an unknown fact is empty."""
    yield "Proposal", Code(proposal.id)
    yield "Route", Code(proposal.route)
    yield "Candidate", Code(comparison.candidate.name)
    yield "Incumbent", Code(comparison.incumbent.name)
    yield "Asked", TERMS[proposal.claim]
    yield "Proposed by", f"{proposal.proposer}, {proposal.created_at:%Y-%m-%d %H:%M} UTC"
    yield "Proposed because", proposal.reason
    for _, label, value in proposal.texts:
        yield label, Code(value)
    yield "Cost", comparison.cost.text
    yield "Approved by", proposal.approver or ""
    yield "Phase", proposal.phase_text
    yield "Verdict", Code(comparison.verdict.id) if comparison.verdict else ""
    yield "Proof", _proof(comparison)
    decided = comparison.verdict.reason if comparison.verdict else ""
    yield "Ended", "" if proposal.closed_because == decided else proposal.closed_because


def _proof(comparison: Comparison) -> str:
    if comparison.verdict is None:
        return ""
    if not comparison.is_measured:
        return "none, because it was not measured"
    if comparison.standing is None:
        return ""
    if comparison.standing.holds:
        return f"holds until {comparison.verdict.expires_at:%Y-%m-%d %H:%M} UTC"
    return comparison.standing.text


def _widened(comparison: Comparison, *, standalone: bool) -> Blocks:
    widened = comparison.proposal.widened
    if widened and not standalone:
        reasons = route_rules.describe_second_person_reasons(widened)
        yield Sentence("Another person than the proposer must approve these settings.")
        yield BulletList("Widened", [Code(reason) for reason in reasons])


def _glance(comparison: Comparison) -> Blocks:
    """Compares both models: scores, cost, time, failures and the route's bill."""
    basis = comparison.basis
    reports = basis.suites if basis is not None else ()
    scores = [row for report in reports for row in _score_row(report)]
    if not scores:
        return
    ours = comparison.incumbent_figures
    theirs = comparison.candidate_figures
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
        *_bill_row(comparison),
    ]
    yield Heading("At a glance")
    yield Table(("", "incumbent", "candidate", "change"), rows)


def _bill_row(comparison: Comparison) -> Iterator[tuple[str, str, str, str]]:
    now = comparison.forecast.now_usd
    then = comparison.forecast.candidate_usd
    if now is not None and then is not None:
        yield (
            "the route's bill in 30 days",
            format_month_usd(now),
            format_month_usd(then),
            _change(now, then),
        )


def _score_row(report: SuiteReport) -> Iterator[tuple[str, str, str, str]]:
    """Yields the row of a suite with scores; yields no row for a suite without scores."""
    ours = report.figures.incumbent_mean
    theirs = report.figures.candidate_mean
    if ours is None or theirs is None or report.is_unscored:
        return
    difference = format_points(report.delta)
    if report.ci_low is not None:
        interval = format_points_interval(report.ci_low, report.ci_high)
        difference += f" (95 % interval {interval})"
    if bounds := bounds_text(report):
        difference += f"; {bounds}"
    yield (
        f"{report.suite}: score of 100",
        format_score(ours),
        format_score(theirs),
        difference,
    )


def _change(before: float | None, after: float | None) -> str:
    if not before or after is None:
        return ""
    return format_relative_change(before, after)


def describe_format_failure(
    failure: FormatFailure, titles: Mapping[str, str] | None = None
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
    fixes = [mark_code(mend.what) for mend in failure.mends]
    parser = f"a parser in your application that can {failure.remedy.parser}"
    yield BulletList("Each of these changes would help", [*fixes, parser])
    for mend, which in zip(failure.mends, ("first", "second"), strict=False):
        yield Sentence(f"The {which} creates another target, which needs a new evaluation:")
        yield Commands(mend.commands)
    if failure.examples:
        name = f"{len(failure.examples)} of its answers"
        yield Folded(name, list(_format_examples(failure)))


def _format_examples(failure: FormatFailure) -> Blocks:
    rows = [
        (
            example.item,
            Code(example.rule or "unnamed"),
            _score(example.candidate_score),
            _score(example.lenient_score),
        )
        for example in failure.examples
    ]
    yield Table(("item", "rule", "strict score", "form ignored"), rows)
    for example in failure.examples:
        yield Quotation(f"{example.item}, incumbent", example.incumbent)
        yield Quotation(f"{example.item}, candidate", example.candidate)


def _score(share: float | None) -> str:
    return format_score(share, None, missing="none")


def describe_suites(comparison: Comparison) -> Blocks:
    """Lists the suites with their results, and the format rules that the candidate broke."""
    verdict = comparison.verdict
    yield Heading("Suites")
    if verdict is None:
        yield from _progress(comparison)
        return
    yield Table(SUITE_HEADS, suite_rows(verdict))
    notes = ["Differences are points of 100, candidate minus incumbent."]
    notes.append("A win is an item with a higher score.")
    if any(report.how in EARLY_ENDS for report in verdict.suites):
        notes.append(
            "The gate stopped early: an interval at that moment is not adjusted for it."
        )
    yield Sentence(" ".join(notes))
    yield Sentence(comparison.decided_on)
    for report in verdict.suites:
        rules = report.figures.rules
        if rules and report.outcome != "harness_mismatch":
            counts = ", ".join(f"{rule} {count}" for rule, count in rules.items())
            yield Sentence(f"{report.suite}: the candidate broke format rules: {counts}.")


def _progress(comparison: Comparison) -> Blocks:
    """Counts the answers of an open gate, without a difference."""
    rows = [
        (
            side.plan.suite,
            side.plan.role.value,
            f"{len(side.figures.incumbent):,}",
            f"{len(side.figures.candidate):,}",
            f"{side.plan.planned_items * side.plan.epochs:,}",
        )
        for side in comparison.suites
    ]
    if rows:
        yield Table(("suite", "role", "incumbent", "candidate", "of"), rows)
    else:
        yield Sentence("No run has started yet.")


def _slices(verdict: Verdict | None) -> Blocks:
    if rows := slice_rows(verdict):
        yield Heading("Slices", 3)
        yield Table(("suite", "slice", "shown", "delta", "95 % interval", "used"), rows)
        yield Sentence("A candidate that is shown worse in any slice fails, at any mean.")


def _cost_and_time(comparison: Comparison) -> Blocks:
    arms = (
        (comparison.incumbent.name, comparison.incumbent_figures),
        (comparison.candidate.name, comparison.candidate_figures),
    )
    if not any(figures.samples for _, figures in arms):
        return
    yield Heading("Cost and time of an answer")
    yield Table(ARM_HEADS, [_arm_row(name, figures) for name, figures in arms])
    before = comparison.incumbent_figures.cost_usd_per_1000
    after = comparison.candidate_figures.cost_usd_per_1000
    if before and after is not None:
        yield Sentence(
            f"An answer of the candidate costs {after / before:.2f} times the incumbent's."
        )


def _arm_row(name: str, figures: ArmFigures) -> Sequence[Text]:
    return [Code(name), f"{figures.samples:,}", *figure_cells(figures)]


def _claimed_saving(verdict: Verdict | None) -> Blocks:
    """Describes the test of a claimed saving; nothing for another claim."""
    claimed = [(suite, suite.figures.cost) for suite in (verdict.suites if verdict else ())]
    rows = [
        (
            report.suite,
            cost.outcome,
            format_thousand_price(_per_1000(cost.incumbent_usd)),
            format_thousand_price(_per_1000(cost.candidate_usd)),
            _share(cost.saving),
            f"{_share(cost.saving_low)} to {_share(cost.saving_high)}",
            _share(cost.min_saving),
            f"{cost.n_used}",
        )
        for report, cost in claimed
        if cost is not None
    ]
    if rows:
        yield Table(SAVING_HEADS, rows)
        yield Sentence(
            "Paired: both models' costs of the same items, in the order of the scores."
        )


def _per_1000(usd: float | None) -> float | None:
    return None if usd is None else usd * 1000


def _share(share: float | None) -> str:
    return format_percent(share, missing=DASH)


def _judging(comparison: Comparison) -> Blocks:
    """Lists calls and cost of the suites' judges; nothing without a judge."""
    rows = [
        (side.plan.suite, f"{side.judging.calls:,}", format_usd(side.judging.usd))
        for side in comparison.suites
        if side.pin.judged
    ]
    if rows:
        yield Table(("suite", "calls of its judge", "cost of judging"), rows)


def describe_bill(comparison: Comparison) -> Blocks:
    """Describes the route's monthly bill now and with the candidate."""
    yield Sentence(monthly_bill.describe_forecast(comparison.forecast))
    if why := monthly_bill.describe_basis(comparison.forecast):
        yield Sentence(why)


def describe_pins(comparison: Comparison, titles: Mapping[str, str] | None = None) -> Blocks:
    """Lists the versions of data, scorer, prompt and served models that the verdict needs."""
    names = titles or {}
    rows: list[Sequence[Text]] = [
        (names.get(side.plan.suite, side.plan.suite), pin, Code(measured))
        for side in comparison.suites
        for pin, measured in list_pinned(side)
    ]
    if rows:
        yield Table(("suite", "pin", "what was measured"), rows)
        yield Sentence("The verdict is valid while none of these changes.")


def _measurement(comparison: Comparison) -> Blocks:
    """Lists how each suite was measured: epochs, order, share of alpha and clusters."""
    lines = []
    for side in comparison.suites:
        plan = side.plan
        parts = [format_quantity(plan.epochs, "epoch"), f"order seed {plan.order_seed}"]
        if plan.seed_origin is SeedOrigin.RUNNER:
            parts[-1] += " (chosen by the runner)"
        look = spending_text(plan.look, plan.alpha, plan.spend, plan.candidates)
        words = "; ".join(filter(None, [", ".join(parts), look]))
        clusters = f" {clusters_text(plan)}" if plan.cluster else ""
        lines.append(mark_code(f"{plan.suite}: {words}.{clusters}"))
    if lines:
        yield BulletList("How each suite was measured", lines)
