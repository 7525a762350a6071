"""`swapproof attach` reads the traffic that a team has logged, and says what a swap needs."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import click

from harness.frame.errors import InputError
from harness.frame.formatting import escape_controls
from harness.interfaces.cli.evals.next_command import is_small_program
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import FILE, arg, command, opt
from harness.interfaces.cli.frame.session import Session
from harness.proposals.report.blocks import (
    Block,
    BulletList,
    Commands,
    Facts,
    Heading,
    Sentence,
    Table,
    plain_text,
)


@command(name="attach", example="swapproof attach spend-logs.jsonl")
def attach_(
    session: Session,
    sources: tuple[str, ...] = arg("SOURCE…", type=click.Path()),
    *,
    from_: str = opt(
        "Format of the files; Swapproof recognises it otherwise.",
        "--from",
        metavar="FORMAT",
        default="",
    ),
    key_env: str = opt(
        "Environment variable with a source's read-only key.",
        metavar="NAME",
        default="LITELLM_API_KEY",
    ),
    source_key_file: Path | None = opt("File with a source's read-only key.", type=FILE),
    days: int = opt(
        "Days that an API is read, up to now.", type=click.IntRange(min=1), default=14
    ),
    otlp: str = opt(
        "Receive OpenTelemetry's spans on this machine.", metavar="ADDRESS", default=""
    ),
    for_: timedelta = opt("How long to receive.", "--for", default="60s"),
    model: str = opt("Estimate a proof for this model.", metavar="MODEL", default=""),
    candidate: str = opt(
        "Compare the traffic's models with this one. Default: the first shown model that is "
        "known to cost no more.",
        metavar="PROVIDER/MODEL",
        default="",
    ),
    judge: str = opt("Price the proof with this judge.", metavar="PROVIDER/MODEL", default=""),
    route: str = opt("Route of the next command.", metavar="ROUTE", default=""),
    page: Path | None = opt("Write the report as a page, too.", "--html", type=FILE),
) -> None:
    """Read the traffic that you have logged, and say what a swap would save and need.

    SOURCE: a file, or the address of a LiteLLM proxy, whose spend logs Swapproof reads with a
    read-only key. Formats of files: LiteLLM's spend logs, Langfuse, LangSmith, Braintrust,
    Phoenix, OpenTelemetry's GenAI spans (OTLP JSON), promptfoo's results, and Swapproof's
    captures; JSON, JSON lines or CSV.

    Shows the models in use with requests, spend, time, errors and their ends; what could take
    their place, and which requests it could not take; and what a proof would take. An unknown
    cost, time or number of tokens stays unknown.

    Swapproof writes nothing to a source, and sends contents nowhere.
    """
    # Late, so that `--help` stays quick.
    from harness.app.attach.attach import AttachRequest, attach  # noqa: PLC0415
    from harness.app.attach.attach_blocks import describe_report, write_json  # noqa: PLC0415
    from harness.app.attach.attach_report import AttachChoice  # noqa: PLC0415

    request = AttachRequest(
        sources=sources,
        kind=from_,
        key_variable=key_env,
        key_file=source_key_file,
        days=days,
        otlp=otlp,
        for_s=for_.total_seconds(),
        choice=AttachChoice(model, candidate, judge, route),
    )
    found = attach(request, output.note)
    blocks = list(describe_report(found))
    if page is not None:
        _write_page(page, blocks)
    if session.json:
        output.document(write_json(found))
        return
    for line in _list_lines(blocks):
        click.echo(escape_controls(line))
    if is_small_program():
        output.note("this command needs the package swapproof")


def _write_page(page: Path, blocks: Sequence[Block]) -> None:
    from harness.proposals.report.page import render_page  # noqa: PLC0415 - `--help` stays quick

    try:
        page.write_text(render_page(blocks), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{page}: cannot be written: {error.strerror}") from None
    output.note(f"report: {page}")


def _list_lines(blocks: Iterable[Block]) -> Iterator[str]:
    """Yields a report's lines in plain text, because swapproof-try draws no tables."""
    for block in blocks:
        match block:
            case Heading(text, level):
                yield from ([] if level == 1 else [""])
                yield plain_text(text)
            case Sentence(text):
                yield plain_text(text)
            case Facts(rows):
                yield from _align(
                    [(f"{name.lower()}:", plain_text(text)) for name, text in rows]
                )
            case BulletList(name, items):
                yield from (f"{name.lower()}: {plain_text(item)}" for item in items)
            case Table(heads, rows):
                cells = [[plain_text(cell) for cell in row] for row in rows]
                yield from _align([[head.upper() for head in heads], *cells])
            case Commands(lines):
                yield from (f"{output.INDENT}{line}" for line in lines)
            case _:  # a report of traffic has no other block
                pass


def _align(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields rows in columns of equal width, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
