"""Prints a proposal for `proposal show`, `gate run` and `replay`, or converts it to JSON."""

from collections.abc import Iterable, Sequence
from typing import assert_never

import click

from harness.canary.status import CanaryStatus
from harness.frame.formatting import escape_controls
from harness.gate.verdict_sentences import describe_reason
from harness.interfaces.cli import canary_facts
from harness.interfaces.cli.frame import output
from harness.proposals.report.blocks import (
    Block,
    BulletList,
    Commands,
    Facts,
    Folded,
    Heading,
    Interval,
    Quotation,
    Sentence,
    Table,
    Text,
    plain_text,
)
from harness.proposals.report.comparison import Comparison
from harness.proposals.report.document import describe_comparison
from harness.proposals.report.findings import find_format_failures

# Attributes of a comparison that the document copies.
DOCUMENT_ATTRIBUTES = (
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
    "hidden",
)


def describe_outcome(comparison: Comparison) -> str:
    state = f"{comparison.proposal.id} {comparison.proposal.predicate}"
    if comparison.verdict is None:
        reason = comparison.proposal.closed_because
        return state + (f": {reason}" if reason else "")
    reason = describe_reason(comparison.verdict)
    return f"{comparison.verdict.words}: {reason} ({state})"


def print_comparison(comparison: Comparison, status: CanaryStatus | None) -> None:
    print_blocks(describe_comparison(comparison))
    if status:
        click.echo()
        output.facts(canary_facts.list_brief_facts(status))


def print_blocks(blocks: Iterable[Block]) -> None:
    """Prints a document's blocks, without folded details and answers, which the report has."""
    for block in blocks:
        _print_block(block)


def _print_block(block: Block) -> None:
    match block:
        case Heading(text):
            click.echo()
            _echo(plain_text(text))
        case Sentence(text):
            _echo(plain_text(text))
        case Facts(rows):
            _print_facts(rows)
        case BulletList(name, items):
            _echo(*(f"{name.lower()}: {plain_text(item)}" for item in items))
        case Table(headings, rows):
            _print_table(headings, rows)
        case Commands(lines):
            _echo(*(f"{output.INDENT}{line}" for line in lines))
        case Folded(name):
            _echo(f"the report shows {name}")
        case Quotation() | Interval():
            return
        case _:
            assert_never(block)


def _print_facts(rows: Sequence[tuple[str, Text]]) -> None:
    output.facts([(name.lower(), plain_text(text)) for name, text in rows])


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[Text]]) -> None:
    cells = [[plain_text(cell) for cell in row] for row in rows]
    output.table([heading.upper() for heading in headings], cells, empty="")


def _echo(*lines: str) -> None:
    for line in lines:
        click.echo(escape_controls(line))


def as_json(
    comparison: Comparison,
    status: CanaryStatus | None,
    *,
    standalone: bool = False,
) -> dict[str, object]:
    """Converts a comparison to JSON, without answers: `eval show RUN --samples` prints them."""
    return {
        **output.pick(comparison, *DOCUMENT_ATTRIBUTES),
        "pins": [
            {
                "suite": suite.plan.suite,
                "pin": suite.pin,
                "digest": suite.pin.digest,
                "served": suite.served,
                "order_seed": suite.plan.order_seed,
                "seed_origin": suite.plan.seed_origin,
            }
            for suite in comparison.suites
        ],
        "progress": [
            {
                "suite": suite.plan.suite,
                "incumbent": len(suite.figures.incumbent),
                "candidate": len(suite.figures.candidate),
                "of": suite.plan.planned_items * suite.plan.epochs,
                "judging": suite.judging,
            }
            for suite in comparison.suites
        ],
        "lost_by_form": find_format_failures(comparison, standalone=standalone),
        "canary": canary_facts.as_json(status) if status else None,
    }
