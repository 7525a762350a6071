"""Prints a proposal for `proposal show`, `gate run` and `replay`, or converts it to JSON."""

import textwrap
from collections.abc import Sequence

import click

from harness.canary.status import CanaryStatus
from harness.frame.formatting import format_points, format_usd
from harness.gate.sentences import reason_text, spending_text
from harness.gate.verdict import Verdict
from harness.gate.verdict_sentences import describe_claim
from harness.interfaces.cli import canary_facts
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.output import timestamp
from harness.proposals.report.comparison import Comparison, SuiteAnswers
from harness.proposals.report.content import (
    SUITE_HEADS,
    figure_cells,
    list_pinned,
    slice_rows,
    suite_rows,
)
from harness.proposals.report.findings import (
    FormatFailure,
    find_format_failures,
    list_drawbacks,
)
from harness.routing.reports import monthly_bill

EXAMPLE_CHARACTERS = 200
# Attributes of a comparison that the document copies.
SHOWN = (
    "proposal",
    "incumbent",
    "candidate",
    "verdict",
    "standing",
    "faults",
    "incumbent_figures",
    "candidate_figures",
    "forecast",
    "cost",
)
HEADINGS = tuple(head.upper() for head in SUITE_HEADS)


def outcome_text(comparison: Comparison) -> str:
    now = f"{comparison.proposal.id} {comparison.proposal.predicate}"
    if comparison.verdict is None:
        why = comparison.proposal.closed_because
        prefix = f"{comparison.proposal.phase_text} by "
        if why.startswith(prefix):
            return f"{now} {why.removeprefix(prefix[:-3])}"
        return now + (f": {why}" if why else "")
    why = reason_text(comparison.verdict)
    return f"{comparison.verdict.words}: {why} ({now})"


def print_comparison(comparison: Comparison, status: CanaryStatus | None) -> None:
    proposal = comparison.proposal
    verdict = comparison.verdict
    output.facts(
        [
            ("proposal", proposal.id),
            ("route", proposal.route),
            ("candidate", comparison.candidate.name),
            ("incumbent", comparison.incumbent.name),
            ("claim", proposal.claim.value.replace("_", "-")),
            (
                "proposed",
                f"by {proposal.proposer}, {timestamp(proposal.created_at)} UTC",
            ),
            ("why", proposal.reason or None),
            *((word, value) for word, _, value in proposal.texts),
            ("cost", comparison.cost.text),
            (
                "approved",
                f"by {proposal.approver}" if proposal.approver else None,
            ),
            ("phase", proposal.phase_text),
            *[("mind", fault) for fault in comparison.faults],
            ("verdict", verdict.words if verdict else "none yet"),
            (
                "decided",
                describe_claim(comparison.basis) if comparison.basis else None,
            ),
            ("reason", reason_text(verdict) if verdict else None),
            ("proof", _proof(comparison)),
            ("next", comparison.next_step or None),
            ("ended", proposal.closed_because or None),
        ]
    )
    click.echo()
    if verdict:
        output.table(HEADINGS, suite_rows(verdict), empty="no suites")
        click.echo("delta and interval in points: candidate minus incumbent")
        _print_slices(verdict)
        click.echo(comparison.decided_on)
        for plan in proposal.plans:
            if text := spending_text(plan.look, plan.alpha, plan.spend, plan.candidates):
                click.echo(f"{plan.suite}: {text}")
    else:
        _print_progress(comparison)
    for lost in find_format_failures(comparison):
        print_format_failures(lost)
    _print_arms(comparison)
    for drawback in list_drawbacks(comparison) if verdict else ():
        click.echo(f"against: {drawback.what}: {drawback.text}")
    _print_money(comparison)
    _print_pins(comparison)
    if status:
        click.echo()
        output.facts(canary_facts.brief_facts(status))


def _proof(comparison: Comparison) -> str | None:
    if comparison.verdict is None or comparison.standing is None:
        return None
    if comparison.standing.holds:
        return f"holds until {timestamp(comparison.verdict.expires_at)} UTC"
    return comparison.standing.text


def _print_pins(comparison: Comparison) -> None:
    rows = [[s.plan.suite, *pinned] for s in comparison.suites for pinned in list_pinned(s)]
    if rows:
        click.echo()
        output.table(["SUITE", "PIN", "WHAT WAS MEASURED"], rows, empty="")


def print_format_failures(lost: FormatFailure) -> None:
    """Prints broken format rules, remedies and one example; the report has all examples."""
    click.echo()
    counts = ", ".join(f"{rule} {count}" for rule, count in lost.rules.items())
    output.facts(
        [
            ("by form", f"{lost.suite}: the candidate {lost.remedy.what}"),
            ("rules broken", counts),
            ("as scored", f"{format_points(lost.strict_delta)} points"),
            ("form forgiven", f"{format_points(lost.lenient_delta)} points"),
            *_example(lost),
            *[(f"remedy {n}", mend.what) for n, mend in enumerate(lost.mends, start=1)],
            (
                "or",
                f"a parser in your application that can {lost.remedy.parser}",
            ),
        ]
    )
    click.echo("for the first remedy:")
    for command in lost.mends[0].commands:
        click.echo(f"  {command}")


def _example(lost: FormatFailure) -> Sequence[tuple[str, str]]:
    if not lost.examples:
        return ()
    shown = lost.examples[0]
    return (
        ("example", f"{shown.item}, {shown.rule or 'unnamed rule'}"),
        (
            "  incumbent",
            textwrap.shorten(shown.incumbent, EXAMPLE_CHARACTERS),
        ),
        (
            "  candidate",
            textwrap.shorten(shown.candidate, EXAMPLE_CHARACTERS),
        ),
    )


def _print_slices(verdict: Verdict) -> None:
    if rows := slice_rows(verdict):
        click.echo()
        heads = ("SUITE", "SLICE", "SHOWN", "DELTA", "95 % INTERVAL", "USED")
        output.table(heads, rows, empty="")


def _print_progress(comparison: Comparison) -> None:
    output.table_of(
        comparison.suites,
        lambda side: {
            "SUITE": side.plan.suite,
            "INCUMBENT": len(side.figures.incumbent),
            "CANDIDATE": len(side.figures.candidate),
            "OF": _wanted(side),
        },
        empty="no run has started yet",
    )


def _wanted(side: SuiteAnswers) -> int:
    return side.plan.planned_items * side.plan.epochs


def _print_arms(comparison: Comparison) -> None:
    arms = [
        (comparison.incumbent.name, comparison.incumbent_figures),
        (comparison.candidate.name, comparison.candidate_figures),
    ]
    if any(figures.samples for _, figures in arms):
        click.echo()
        output.table(
            [
                "TARGET",
                "ANSWERS",
                "COST PER 1,000",
                "95 % INTERVAL",
                "MEDIAN",
                "95 % INTERVAL",
                "95TH PERCENTILE",
                "TOKENS/S",
                "FAILED",
            ],
            [[name, figures.samples, *figure_cells(figures)] for name, figures in arms],
            empty="",
        )


def _print_money(comparison: Comparison) -> None:
    judged = [side for side in comparison.suites if side.pin.judged]
    for side in judged:
        cost = side.judging
        click.echo(
            f"{side.plan.suite}: judging cost {format_usd(cost.usd)}, {cost.calls:,} calls"
        )
    click.echo()
    click.echo(monthly_bill.describe_forecast(comparison.forecast))
    if why := monthly_bill.describe_basis(comparison.forecast):
        click.echo(why)


def as_json(
    comparison: Comparison,
    status: CanaryStatus | None,
    *,
    standalone: bool = False,
) -> dict[str, object]:
    """Converts a comparison without answers, which `eval show RUN --samples` prints."""
    return {
        **output.pick(comparison, *SHOWN),
        "pins": [
            {
                "suite": side.plan.suite,
                "pin": side.pin,
                "digest": side.pin.digest,
                "served": side.served,
                "order_seed": side.plan.order_seed,
                "seed_origin": side.plan.seed_origin,
            }
            for side in comparison.suites
        ],
        "progress": [
            {
                "suite": side.plan.suite,
                "incumbent": len(side.figures.incumbent),
                "candidate": len(side.figures.candidate),
                "of": _wanted(side),
                "judging": side.judging,
            }
            for side in comparison.suites
        ],
        "lost_by_form": find_format_failures(comparison, standalone=standalone),
        "canary": canary_facts.as_json(status) if status else None,
    }
