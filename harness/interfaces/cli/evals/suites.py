"""`swapproof suite` lists suites and builds them from labelled captures or other data sets.
`swapproof capture` lists, shows, exports and deletes redacted requests from production.
"""

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from harness.frame.configuration.config_conversion import SUITE_SOURCES, NothingTaken
from harness.frame.errors import InputError
from harness.frame.formatting import format_quantity
from harness.frame.pagination import INVALID_ROWS_HINT
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    ANSWER_LIMIT,
    FILE,
    ONLY_ROUTE,
    FiniteRange,
    arg,
    command,
    opt,
)
from harness.interfaces.cli.frame.operation_command import operation_group
from harness.interfaces.cli.frame.session import Session
from harness.operations import captures, queries
from harness.operations.operations import CAPTURES
from harness.routing.capture import MOST_OF_A_CALLER

if TYPE_CHECKING:
    from harness.app.capture_import import RequestsToLabel
    from harness.app.suite_import import SuiteImport


@click.group()
def suite() -> None:
    """Suites: items with a scorer, which measure models."""


@command(suite, "list", example="swapproof suite list")
def list_suites(session: Session) -> None:
    """List the suites of the configuration, and the routes that use each."""
    suites = queries.list_suites(session.context, pinned=session.json)
    users, invalid = queries.list_route_users(
        session.context,
        lambda route: [route_suite.suite for route_suite in route.settings.suites],
    )
    for fault in invalid:
        output.note(f"{fault.name}: {INVALID_ROWS_HINT}")
    output.listing(
        suites,
        lambda summary: {
            "SUITE": summary.name,
            "ITEMS": summary.items,
            "SCORER": summary.scorer,
            "VERSION": summary.version,
            "ROUTES": output.name_some(users.get(summary.name, ())),
            "FAULT": summary.error,
        },
        empty="no suite yet: add one under `suites` in swapproof.yaml, or build one from "
        "labelled captures with `swapproof suite import`",
        as_document=lambda rows: [
            {**output.plain_fields(row), "routes": users.get(row.name, ())} for row in rows
        ],
    )


@command(suite, "import", example="swapproof suite import questions.csv --suite questions")
def import_suite(
    session: Session,
    source: str = arg("SOURCE"),
    *,
    suite: str = opt("The new suite's name.", metavar="NAME"),
    from_: str | None = opt(
        "The source's format; without it, recognised by content.",
        "--from",
        type=click.Choice(SUITE_SOURCES),
    ),
    scorer: str = opt(
        "Scorer, which compares an answer with its label.",
        metavar="NAME",
        default="exact",
    ),
    item_files: tuple[Path, ...] = opt(
        "File with a run or the items of an OpenAI eval; may be repeated.",
        "--items",
        type=FILE,
    ),
    judge: str = opt(
        "Model that scores promptfoo's llm-rubric, and graders of OpenAI that ask a model.",
        metavar="PROVIDER/MODEL",
        default="",
    ),
    options: tuple[str, ...] = opt(
        "Option of the scorer, such as ignore_case=true; may be repeated.",
        "--option",
        metavar="NAME=JSON",
    ),
    max_output_tokens: int | Literal["auto"] = opt(
        "Token limit of an answer; auto measures it.",
        type=ANSWER_LIMIT,
        default=512,
    ),
    slices: tuple[str, ...] = opt(
        "Metadata field whose values are slices, or `tags`; may be repeated.",
        "--slice",
        metavar="FIELD",
    ),
    human_score: str = opt(
        "Human score that labels records without a right answer.",
        metavar="NAME",
        default="",
    ),
    route: str = opt(
        "Route of logged requests, which gives their data class.",
        metavar="ROUTE",
        default="",
    ),
    replace_: bool = opt("Replace the suite of this name, with its settings."),
) -> None:
    """Build a suite from another tool's file or data set, or from labelled captures.

    SOURCE is a file, langfuse://DATASET, langsmith://DATASET or braintrust://PROJECT/DATASET.
    Writes suites/NAME.jsonl, and adds the suite to swapproof.yaml. Leaves out records without a
    right answer. Builds one suite per prompt of a promptfoo configuration, and one suite of an
    OpenAI eval. OpenTelemetry spans and LiteLLM's spend logs become
    suites/NAME-to-label.jsonl, a file to label.
    """
    from harness.app import suite_import  # noqa: PLC0415 - only this command needs it
    from harness.evals.settings import JudgeSettings, SuiteSettings  # noqa: PLC0415
    from harness.providers.target import Target  # noqa: PLC0415

    suite_settings = SuiteSettings(
        name=suite,
        scorer=scorer,
        scorer_options=dict(map(_read_option, options)),
        max_output_tokens=max_output_tokens,
        judge=JudgeSettings(Target.from_name(judge)) if judge else None,
        slices=slices,
    )
    choice = suite_import.SourceChoice(from_ or "", human_score, route, item_files)
    try:
        result = suite_import.import_source(
            session.installation,
            session.actor,
            source,
            suite_settings,
            choice,
            replace_=replace_,
        )
    except NothingTaken as error:
        if not session.json:
            output.conversion(error.notes)
        raise
    if session.json:
        suites = [
            {
                **vars(new_suite),
                "data": str(new_suite.data),
                "manifest": str(new_suite.manifest),
            }
            for new_suite in result.suites
        ]
        requests = result.to_label and output.plain_fields(result.to_label)
        output.document(
            {
                "suites": suites,
                "notes": result.notes,
                "configured": result.configured,
                "replaced": result.replaced,
                **({"to_label": requests} if requests else {}),
            }
        )
        return
    output.conversion(result.notes)
    if result.to_label is not None:
        _show_requests_to_label(result.to_label, suite)
        return
    for new_suite in result.suites:
        click.echo(
            f"suite {new_suite.suite}: {format_quantity(new_suite.items, 'item')} "
            f"in {new_suite.data}"
        )
        if new_suite.unlabelled:
            output.note(f"{new_suite.unlabelled} more have no label: their scores are missing")
        if new_suite.left_out:
            output.note(
                f"left out {new_suite.left_out} of {new_suite.suite} that its scorer "
                "cannot judge"
            )
    _show_settings(result, session.settings.source)


@command(
    suite,
    "draw",
    example="swapproof suite draw support-traffic --route support --from spend.jsonl "
    "--judge anthropic/claude-sonnet-5-5",
)
def draw_suite(
    session: Session,
    suite: str = arg("NAME"),
    *,
    route: str = opt("Route whose incumbent answered.", metavar="ROUTE"),
    from_: str = opt(
        "Log of requests (LiteLLM, OpenTelemetry), or `captures`.", "--from", metavar="SOURCE"
    ),
    judge: str = opt(
        "Model that compares the answers, of another maker than both models.",
        metavar="PROVIDER/MODEL",
    ),
    days: int | None = opt(
        "Whole days, ending yesterday; at most the policy's `draw_days`, its default.",
        type=click.IntRange(min=1),
    ),
    items: int | None = opt("Maximum of drawn records.", type=click.IntRange(min=1)),
    rubric: Path | None = opt("File with the judge's rubric.", type=FILE),
    judge_anyway: str = opt(
        "Why the judge may be of a compared model's maker; each verdict shows it.",
        metavar="WHY",
        default="",
    ),
    ask_again: bool = opt("Ask the incumbent every record again, instead of its answers then."),
    replace_: bool = opt("Replace the suite of this name, with its settings."),
) -> None:
    """Draw a suite from a route's traffic: the answers that users got are its targets.

    Sends nothing. A later `swapproof proposal create` sends the contents to the providers that
    it names. Requests that would act at the provider are left out, and counted.
    """
    from harness.app import traffic_suite  # noqa: PLC0415 - only this command needs it
    from harness.gate.sentences import RECORDED_HISTORY  # noqa: PLC0415 - likewise

    criteria = {} if rubric is None else {"criteria": rubric.read_text(encoding="utf-8")}
    request = traffic_suite.DrawRequest(
        suite,
        route,
        from_,
        judge,
        days,
        items,
        judge_anyway=judge_anyway,
        ask_again=ask_again,
        **criteria,
    )
    drawn = traffic_suite.draw_suite(
        session.installation, session.actor, request, replace_=replace_
    )
    if session.json:
        output.document(
            {
                "suite": suite,
                "items": drawn.added.suites[0].items,
                "data": str(drawn.added.suites[0].data),
                "manifest": str(drawn.added.suites[0].manifest),
                "summary": drawn.summary,
                "not_drawn": drawn.left_out,
                "dated": drawn.dated,
                **({"runs": drawn.runs} if drawn.runs else {}),
                "receivers": drawn.receivers,
                "configured": drawn.added.configured,
            }
        )
        return
    click.echo(f"suite {suite}: {drawn.summary}")
    for reason, count in sorted(drawn.left_out.items()):
        output.note(f"not drawn: {count:,} {reason}")
    if drawn.dated:
        output.note(
            f"{format_quantity(drawn.dated, 'prompt')} with a date or a tool's result, which "
            "may have expired"
        )
    if drawn.runs:
        counts = ", ".join(f"{count:,} {name}" for name, count in sorted(drawn.runs.items()))
        output.note(f"runs in the log: {counts}")
        output.note(RECORDED_HISTORY)
    _show_settings(drawn.added, session.settings.source)
    receivers = ", ".join(f"{target} ({part})" for part, target in drawn.receivers.items())
    output.note(
        f"this draw sent nothing; a comparison sends its contents to {receivers} and to each "
        "candidate"
    )
    replaced = [
        used.suite
        for used in queries.find_route(session.context, route).settings.suites
        if used.suite != suite
    ]
    note = f" (it replaces {', '.join(replaced)}: add a suite to keep it)" if replaced else ""
    output.note(
        f"next: `swapproof route settings {route} --suite {suite}`{note}, then `swapproof "
        f"proposal create {route} PROVIDER/MODEL`"
    )


def _show_settings(result: "SuiteImport", config_file: Path | None) -> None:
    from harness.app.config_entries import format_entry  # noqa: PLC0415 - only one command needs it

    if result.configured:
        if result.replaced:
            names = ", ".join(result.replaced)
            click.echo(f"replaced the settings of {names} in {config_file}")
        if len(result.replaced) < len(result.suites):
            click.echo(f"added to {config_file}")
    else:
        entries = "".join(
            format_entry(new_suite.suite, new_suite.settings) for new_suite in result.suites
        )
        old = ", instead of the old settings" if result.replaced else ""
        output.note(f"write this into {config_file}, under `suites:`{old}\n{entries.rstrip()}")


def _show_requests_to_label(requests: "RequestsToLabel", suite: str) -> None:
    count = format_quantity(requests.written, "request")
    click.echo(f"{count} in {requests.file} without a label")
    redacted = ", ".join(f"{name} {n}" for name, n in requests.redactions.items())
    output.note(f"redacted: {redacted or 'no match of a rule'}")
    if not requests.data_class:
        output.note("no data class: if the requests are personal, name their --route")
    output.note(
        "fill in `label` and `label_author` of each line, then run `swapproof suite import "
        f"{requests.file} --suite {suite}`"
    )


def _read_option(text: str) -> tuple[str, object]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise InputError(f"--option {text!r}: write NAME=JSON, such as ignore_case=true")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


capture = operation_group(CAPTURES)


@command(capture, example="swapproof capture show cap_0a1b2c3d4e5f60718293a4b5")
def show(session: Session, capture_id: str = arg("CAPTURE")) -> None:
    """Show a captured request with its content. The audit log records the reader."""
    request = captures.read_capture(session.context, session.actor, capture_id)
    output.document(request if session.json else captures.build_export_line(request))


@command(capture, example="swapproof capture export to-label.jsonl --route support")
def export(
    session: Session,
    file: Path = arg(type=FILE),
    *,
    route: str | None = ONLY_ROUTE,
    since: timedelta | None = opt("How far back: 2h, 7d."),
    near: float = opt(
        "Minimum similarity of duplicates; 1: identical texts.",
        type=FiniteRange(min=0, max=1, min_open=True),
        default=captures.NEAR_DUPLICATE_SIMILARITY,
    ),
) -> None:
    """Write captured requests to FILE for labelling, one JSON object per line.

    Fill in `label` and `label_author`, then run `swapproof suite import FILE`.
    """
    capture_export = captures.export_captures(
        session.context,
        session.actor,
        route=route,
        since=since,
        near=near,
    )
    captures.write_export(file, capture_export.lines, advice="name another")
    result = {
        "file": str(file),
        "written": len(capture_export.lines),
        "near_duplicates": dict(capture_export.near_duplicates),
        "of_frequent_users": capture_export.of_frequent_callers,
        "sample": capture_export.sample,
    }
    left_out = [
        f"{number} {kind}"
        for number, kind in (
            (len(capture_export.near_duplicates), "near duplicates"),
            (
                capture_export.of_frequent_callers,
                f"of users with more than {MOST_OF_A_CALLER} requests",
            ),
        )
        if number
    ]
    sample = capture_export.sample.text
    output.answer(
        result,
        f"wrote {format_quantity(len(capture_export.lines), 'request')} to {file}",
        advice=f"left out {', '.join(left_out)}; {sample}" if left_out else sample,
    )
