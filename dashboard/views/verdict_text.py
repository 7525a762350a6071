"""Builds the cards and tiles of Compare, and the table of a proposal's forecast.

Pure. The sentences about a verdict come from `harness.gate.verdict_sentences`, and the rest of
a comparison's document from `harness.proposals.report.document`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from dashboard import labels, markup
from dashboard.markup import Tile, VerdictCard
from dashboard.views.samples import ComparisonView
from harness.evals.proof_validity import ProofState
from harness.frame.formatting import (
    DASH,
    NOT_RECORDED,
    format_number,
    format_score,
    format_thousand_price,
)
from harness.gate.canary_sentences import end_clause
from harness.gate.claim_advice import ClaimAdvice, ClaimOption
from harness.gate.offline.design import EARLY_ENDS
from harness.gate.suite_plan import Claim, ClaimPopulation, SuiteRole
from harness.gate.verdict import (
    BaseVerdict,
    SuiteReport,
    VerdictBasis,
)
from harness.gate.verdict_sentences import describe_claim, describe_results
from harness.proposals.candidates.estimate import SuiteEstimate
from harness.proposals.report.blocks import Sentence, split_spans
from harness.proposals.report.comparison import (
    ArmFigures,
    Comparison,
    SuiteAnswers,
)
from harness.proposals.report.document import describe_against, name_judge
from harness.proposals.report.findings import describe_absence
from harness.proposals.report.page import render_html
from harness.routing.proposal import ProposalPhase


def verdict_card(view: ComparisonView) -> VerdictCard:
    """Builds the card that answers the page: the verdict, its reasons and the next step."""
    comparison = view.comparison
    verdict = view.comparison.verdict
    if verdict is None:
        return _build_undecided_card(view)
    basis = VerdictBasis.from_verdict(verdict)
    label = labels.verdict_label(verdict)
    label = replace(label, words=f"{label.words}{name_judge(comparison)}")
    end = view.comparison.proposal.end
    if verdict.outcome == "passed" and end is not None:
        # After a rollback, a passed verdict no longer recommends a swap.
        label = labels.Label("✕", label.words, labels.Tone.WORSE, f"but {end_clause(end)}")
    return VerdictCard(
        label=label,
        lead=describe_claim(basis, view.titles) + _describe_later_end(view, verdict),
        bullets=describe_results(basis, view.titles),
        next_step=comparison.next_step,
        foot=_write_foot(comparison, basis, verdict, view.now),
    )


def _describe_later_end(view: ComparisonView, verdict: BaseVerdict) -> str:
    """Describes how a proposal ended after its verdict; empty if a card or label describes
    it already.
    """
    proposal = view.comparison.proposal
    rejected_after_pass = (
        verdict.outcome == "passed" and proposal.phase is ProposalPhase.REJECTED
    )
    # The label and another card already report a rollback.
    if rejected_after_pass or proposal.phase is ProposalPhase.CANCELLED:
        return f" Since then it ended: {proposal.closed_because.rstrip('.')}."
    return ""


def why_again(verdict: BaseVerdict | None) -> str:
    """Explains the effect of a new proposal."""
    if verdict is not None and verdict.outcome == "passed":
        return "A new proposal is measured again before it may get a canary."
    return "A canary opens only after a PASSED verdict."


def _write_foot(
    comparison: Comparison,
    basis: VerdictBasis,
    verdict: BaseVerdict,
    now: datetime,
) -> str:
    """Describes how and when the gate measured the verdict, and until when it is valid.

    The text names an early decision, because the intervals do not account for repeated looks.
    """
    epochs = {plan.epochs for plan in comparison.proposal.plans}
    validity = ""
    if comparison.is_measured:
        validity = f", valid until {labels.date_time(verdict.expires_at)}"
    early_note = ""
    if any(r.how in EARLY_ENDS for r in basis.claims):
        early_note = " · decided early: the intervals are not adjusted for that"
    return (
        f"Paired test on {labels.plural(basis.items_used, 'shared item')} · same items, order, "
        "prompts and scorers on both sides · "
        f"{labels.plural(max(epochs, default=1), 'epoch')} · "
        f"verdict {verdict.id} · decided {labels.age(verdict.decided_at, now)}"
        f"{validity}{early_note}"
    )


def _build_undecided_card(view: ComparisonView) -> VerdictCard:
    """Builds the card of a proposal without a verdict. It shows progress, and no difference."""
    comparison = view.comparison
    if not comparison.proposal.open:
        return VerdictCard(
            label=labels.phase_label(comparison.proposal),
            lead=comparison.proposal.closed_because or "It was closed before it had a verdict.",
            next_step="propose again once the reason is resolved.",
        )
    if comparison.hidden:
        return VerdictCard(
            label=labels.VERDICT_LABELS["running"],
            lead=f"The comparison is {comparison.hidden}.",
            next_step="label the pairs on the page Labels, or by that command."
            if comparison.proposal.waits_for_labels
            else "nothing; people label after the last answer.",
        )
    wait_reason = comparison.proposal.waits
    pairs = sum(map(_count_pairs, comparison.suites))
    planned = sum(plan.planned_items for plan in comparison.proposal.plans)
    label = labels.VERDICT_LABELS["running"]
    advice = f"{labels.count(pairs)} of {labels.count(planned)} items"
    return VerdictCard(
        label=labels.Label(label.symbol, label.words, label.tone, advice),
        lead=(f"It {wait_reason}. " if wait_reason else "")
        + "The gate reads the items in their registered order and may stop early. "
        "No difference is shown before it has decided.",
        next_step="wait, ask again now, or cancel the proposal."
        if wait_reason
        else "nothing; the verdict comes automatically.",
    )


def list_progress(comparison: Comparison) -> Sequence[tuple[str, int, int]]:
    """Lists each suite with its number of paired items, and of planned items."""
    pairs_by_suite = {side.plan.suite: _count_pairs(side) for side in comparison.suites}
    return [
        (plan.suite, pairs_by_suite.get(plan.suite, 0), plan.planned_items)
        for plan in comparison.proposal.plans
    ]


def _count_pairs(side: SuiteAnswers) -> int:
    return len(set(side.figures.incumbent.item) & set(side.figures.candidate.item))


def tiles(incumbent: ArmFigures, candidate: ArmFigures) -> Sequence[Tile]:
    """Builds the figures of both models beside the score: cost, latency, failures and speed."""
    change = labels.describe_change
    speed_words = ("faster", "slower")
    cost = candidate.cost_usd_per_1000
    price = partial(format_thousand_price, missing=NOT_RECORDED)
    time = labels.seconds
    cost_words = ("cheaper", "more expensive")
    rows = (
        (
            "Cost per 1,000 requests",
            price,
            cost,
            candidate.cost_interval_usd_per_1000,
            change(cost, incumbent.cost_usd_per_1000, price, cost_words, amount=_format_saving),
        ),
        (
            "Latency, median",
            time,
            candidate.p50_s,
            candidate.p50_interval_s,
            change(candidate.p50_s, incumbent.p50_s, time, speed_words, least=0.005),
        ),
        (
            "Latency, p95",
            time,
            candidate.p95_s,
            candidate.p95_interval_s,
            change(candidate.p95_s, incumbent.p95_s, time, speed_words, least=0.005),
        ),
        (
            "Failed calls",
            labels.percent,
            candidate.failed,
            candidate.failed_interval,
            change(
                candidate.failed,
                incumbent.failed,
                labels.percent,
                ("fewer", "more"),
                amount=lambda difference, _: f"{format_score(difference)} points",
            ),
        ),
    )
    return [
        *(
            Tile(
                name,
                write(figure),
                figure_change,
                interval=labels.interval(bounds, write),
            )
            for name, write, figure, bounds, figure_change in rows
        ),
        Tile(
            "Output tokens per second",
            _format_speed(candidate),
            below="" if incumbent.tokens_per_s is None else f"was {_format_speed(incumbent)}",
        ),
    ]


def _format_speed(figures: ArmFigures) -> str:
    return DASH if figures.tokens_per_s is None else format_number(figures.tokens_per_s)


def _format_saving(difference: float, former: float) -> str:
    return labels.percent(difference / former, 0) if former else "by far"


DIFFERENCE_NOTE = "Candidate minus current model, in percentage points. "
INTERVAL_NOTE = (
    f"{DIFFERENCE_NOTE}Whisker: the decision's own interval. The gate's tests have refuted all "
    "differences outside it. Scores pass if the whole whisker is at the limit or to the right "
    "of it, and fail if the whole whisker is to the left. Each 95 % CI on this page is for "
    "reading only."
)
OLD_RULES_NOTE = (
    f"{DIFFERENCE_NOTE}Another version of the gate decided this verdict, so the figure has no "
    "whiskers. To see them, propose again."
)

LABELS_NOTE = (
    "People's labels decide about {suites}. Their evidence has no interval, so these points "
    "have no whiskers."
)


def intervals_note(
    basis: VerdictBasis, titles: Mapping[str, str], *, has_intervals: bool
) -> str:
    """Explains the points and whiskers of the suites' changes."""
    labelled = [titles.get(r.suite, r.suite) for r in basis.claims if r.figures.labels]
    if not labelled:
        return INTERVAL_NOTE if has_intervals else OLD_RULES_NOTE
    note = LABELS_NOTE.format(suites=", ".join(labelled))
    return f"{INTERVAL_NOTE if has_intervals else DIFFERENCE_NOTE.strip()} {note}"


AGAINST_NOTE = "The verdict does not depend on these figures; their intervals are not adjusted."


def against_card(view: ComparisonView) -> str:
    """Renders the drawbacks on which the verdict does not depend. Empty without a verdict."""
    verdict = view.comparison.verdict
    if verdict is None:
        return ""
    heading = "Against the swap" if verdict.outcome == "passed" else "Also against the swap"
    drawbacks = describe_against(view.comparison, view.titles)
    lines = render_html(Sentence(("▲ ", *split_spans(drawback))) for drawback in drawbacks)
    note = AGAINST_NOTE if lines else describe_absence(view.comparison)
    body = f"{lines}{markup.note(note)}"
    return markup.block(f"<h2>{heading}</h2>{body}", kind="sg-card sg-against")


def stale_reason(view: ComparisonView) -> str:
    """Explains why the verdict is no longer proof. Empty if it still is, or if the candidate
    was promoted.
    """
    verdict = view.comparison.verdict
    validity = view.comparison.standing
    if verdict is None or validity is None or validity.holds:
        return ""
    if validity.proof is ProofState.STALE:
        return f"the content has changed since: {validity.why}"
    # After the promotion, nothing depends on the verdict's expiry.
    is_promoted = view.comparison.proposal.phase is ProposalPhase.PROMOTED
    return "" if is_promoted else f"it expired {labels.age(verdict.expires_at, view.now)}"


def claim_rows(
    estimates: Sequence[SuiteEstimate], titles: Mapping[str, str]
) -> Sequence[markup.Row]:
    """Builds a row for each claim that the proposal could make: its items, cost and chances."""
    (points, *_) = [format_score(estimate.advice.effect, None) for estimate in estimates] or [
        ""
    ]
    return [
        {
            "Claim": _render_claim(option, estimate, titles if len(estimates) > 1 else {}),
            "Items": _format_items(option.items, option.epochs),
            "Costs at most": labels.usd(option.cost_usd),
            "Passes if equal": labels.percent(option.if_equal, 0),
            f"Passes if {points} points better": labels.percent(option.if_better, 0),
            "Items for 80 %": _format_items(option.enough.items, option.enough.epochs)
            if option.enough
            else f"over {estimate.advice.suite_items:,}",
        }
        for estimate in estimates
        for option in estimate.advice.options
    ]


def _render_claim(
    option: ClaimOption,
    estimate: SuiteEstimate,
    titles: Mapping[str, str],
) -> str:
    """Renders a claim with its allowed loss.

    Args:
        titles: by suite; empty for a single suite.
    """
    words = labels.CLAIMS[option.claim]
    if option.claim is not Claim.SUPERIOR:
        words += f", within {format_score(option.margin, None)} points"
    if option.population is ClaimPopulation.THESE:
        words += ", on these items only"
    if titles:
        words = f"{titles.get(estimate.plan.suite, estimate.plan.suite)}: {words}"
    recommended = option is estimate.advice.recommended
    return markup.strong(f"recommended: {words}") if recommended else markup.escape(words)


def failing_loss(estimate: SuiteEstimate) -> str:
    """Formats the loss with which 80 % of comparisons fail, under an allowed loss."""
    if estimate.plan.claim is Claim.SUPERIOR:
        return "any loss that is shown"
    if estimate.failing is None:
        return f"none: {estimate.plan.n_max_text} are too few"
    return f"{format_score(estimate.failing)} points in 80 % of comparisons"


def _format_items(items: int, epochs: int) -> str:
    return f"{items:,} × {epochs}" if epochs > 1 else f"{items:,}"


def expense_line(estimates: Sequence[SuiteEstimate]) -> str:
    """Writes the forecast of cost and time. An unknown part makes the whole unknown."""
    costs = [estimate.cost_usd for estimate in estimates]
    known_costs = [cost for cost in costs if cost is not None]
    cost_text = (
        f"at most about {labels.usd(sum(known_costs))}"
        if None not in costs
        else "cost unknown, because a price is missing"
        if all(estimate.incumbent and estimate.candidate for estimate in estimates)
        else "cost unknown until the current model has been evaluated once"
    )
    durations = [estimate.duration_s for estimate in estimates]
    known_durations = [duration for duration in durations if duration is not None]
    time_text = (
        f"about {labels.span(max(60.0, sum(known_durations)))}"
        if None not in durations
        else "time unknown until the current model has been evaluated once"
    )
    return f"For both models: {cost_text}, {time_text}; the gate may stop early."


def outlook_line(estimates: Sequence[SuiteEstimate]) -> str:
    """Writes the forecast, the recommended claim and the warnings."""
    sentences = [expense_line(estimates)]
    sentences += [
        _recommend(estimate.advice)
        for estimate in estimates
        if estimate.plan.role is SuiteRole.PRIMARY
    ]
    sentences += [estimate.warning for estimate in estimates if estimate.warning]
    texts = [text for estimate in estimates for text in estimate.texts]
    sentences += [f"{text[:1].upper()}{text[1:]}." for text in texts]
    return " ".join(sentences)


def _recommend(advice: ClaimAdvice) -> str:
    """Names the recommended claim, or says what would suffice for one."""
    option = advice.recommended
    claim = f"the claim “{labels.CLAIMS[option.claim]}”" if option else "no claim"
    return f"We recommend {claim}: {advice.why}."


def slices_note(report: SuiteReport) -> str:
    """Explains a suite's slices, and whether they used more items than the mean."""
    note = (
        "Candidate minus current model in each slice, in percentage points; whisker: 95 % CI. "
        "A slice that is shown worse makes the candidate fail, whatever the suite's mean is."
    )
    items_by_field: Counter[str] = Counter()
    for slice_report in report.figures.slices or ():
        items_by_field[slice_report.field] += slice_report.n_used
    if max(items_by_field.values(), default=0) <= report.n_used:
        return note
    item_count = labels.plural(report.n_used, report.figures.unit)
    return (
        f"{note} The mean was decided on the first {item_count}; "
        "the slices were tested on more."
    )


def bars_note(reports: Sequence[SuiteReport], titles: Mapping[str, str]) -> str:
    notes = [
        "Bars count the items that only one of the two models won; all suites share one scale."
    ]
    for report in reports:
        name = titles.get(report.suite, report.suite)
        if report.figures.labels:
            notes.append(f"The bars of {name} count the pairs that people labelled.")
        elif report.figures.cluster:
            notes.append(
                f"The bars of {name} count clusters; a cluster's score is the mean over the "
                f"items of one {report.figures.cluster}."
            )
    return " ".join(notes)
