"""Builds the parts of a comparison's document about the measurement: suites, slices, cost and
time, the claimed saving, judging, the route's bill and the pinned versions.

`document` puts them in order. The module loads nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from harness.frame.formatting import (
    DASH,
    format_percent,
    format_quantity,
    format_thousand_price,
    format_usd,
)
from harness.gate.offline.design import EARLY_ENDS
from harness.gate.order_seeds import SeedOrigin
from harness.gate.sentences import clusters_text, spending_text
from harness.gate.verdict import Verdict
from harness.proposals.report.blocks import (
    Blocks,
    BulletList,
    Code,
    Heading,
    Sentence,
    Table,
    Text,
    mark_code,
)
from harness.proposals.report.comparison import ArmFigures, Comparison
from harness.proposals.report.content import (
    SUITE_HEADS,
    figure_cells,
    list_pins,
    slice_rows,
    suite_rows,
)
from harness.routing.reports import monthly_bill

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


def describe_suites(comparison: Comparison) -> Blocks:
    """Lists the suites with their results, and the format rules that the candidate broke."""
    verdict = comparison.verdict
    yield Heading("Suites")
    if verdict is None:
        yield from _describe_progress(comparison)
        return
    yield Table(SUITE_HEADS, suite_rows(verdict))
    notes = ["Differences are points of 100, candidate minus incumbent."]
    if labelled := [report.suite for report in verdict.suites if report.figures.labels]:
        names = ", ".join(labelled)
        notes.append(f"Wins, ties and losses of {names} count the pairs that people labelled.")
    if len(labelled) < len(verdict.suites):
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
    yield from describe_recorded_runs(comparison)


def describe_recorded_runs(
    comparison: Comparison, titles: Mapping[str, str] | None = None
) -> Blocks:
    """Describes, by suite of agents' runs, when the candidate's calls first differ; nothing
    without such a suite.

    Args:
        titles: by suite.
    """
    for suite, runs in comparison.recorded_runs.items():
        yield Sentence(f"{(titles or {}).get(suite, suite)}: {runs.text}")


def _describe_progress(comparison: Comparison) -> Blocks:
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
    elif comparison.hidden:
        yield Sentence(mark_code(f"Scores and answers are {comparison.hidden}."))
    else:
        yield Sentence("No run has started yet.")


def describe_slices(verdict: Verdict | None) -> Blocks:
    if rows := slice_rows(verdict):
        yield Heading("Slices", 3)
        yield Table(("suite", "slice", "shown", "delta", "95 % interval", "used"), rows)
        yield Sentence("A candidate that is shown worse in any slice fails, at any mean.")


def describe_cost_and_time(comparison: Comparison) -> Blocks:
    arms = (
        (comparison.incumbent.name, comparison.incumbent_figures),
        (comparison.candidate.name, comparison.candidate_figures),
    )
    if not any(figures.samples for _, figures in arms):
        return
    yield Heading("Cost and time of an answer")
    yield Table(ARM_HEADS, [_arm_row(name, figures) for name, figures in arms])
    incumbent_usd = comparison.incumbent_figures.cost_usd_per_1000
    candidate_usd = comparison.candidate_figures.cost_usd_per_1000
    if incumbent_usd and candidate_usd is not None:
        yield Sentence(
            f"An answer of the candidate costs {candidate_usd / incumbent_usd:.2f} times the "
            "incumbent's."
        )


def _arm_row(name: str, figures: ArmFigures) -> Sequence[Text]:
    return [Code(name), f"{figures.samples:,}", *figure_cells(figures)]


def describe_claimed_saving(verdict: Verdict | None) -> Blocks:
    """Describes the test of a claimed saving; nothing for another claim."""
    costs_by_suite = [
        (suite, suite.figures.cost) for suite in (verdict.suites if verdict else ())
    ]
    rows = [
        (
            report.suite,
            cost.outcome,
            format_thousand_price(_per_1000(cost.incumbent_usd)),
            format_thousand_price(_per_1000(cost.candidate_usd)),
            _format_share(cost.saving),
            f"{_format_share(cost.saving_low)} to {_format_share(cost.saving_high)}",
            _format_share(cost.min_saving),
            f"{cost.n_used}",
        )
        for report, cost in costs_by_suite
        if cost is not None
    ]
    if rows:
        yield Table(SAVING_HEADS, rows)
        yield Sentence(
            "Paired: both models' costs of the same items, in the order of the scores."
        )


def _per_1000(usd: float | None) -> float | None:
    return None if usd is None else usd * 1000


def _format_share(share: float | None) -> str:
    return format_percent(share, missing=DASH)


def describe_judging(comparison: Comparison) -> Blocks:
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
    if basis := monthly_bill.describe_basis(comparison.forecast):
        yield Sentence(basis)


def describe_pins(comparison: Comparison, titles: Mapping[str, str] | None = None) -> Blocks:
    """Lists the versions of data, scorer, prompt and served models that the verdict needs."""
    names = titles or {}
    rows: list[Sequence[Text]] = [
        (names.get(side.plan.suite, side.plan.suite), pin, Code(measured))
        for side in comparison.suites
        for pin, measured in list_pins(side)
    ]
    if rows:
        yield Table(("suite", "pin", "what was measured"), rows)
        yield Sentence("The verdict is valid while none of these changes.")


def describe_measurement(comparison: Comparison) -> Blocks:
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
