"""`swapgate proposal report` writes one comparison as a document: Markdown for people, or
JUnit XML for a build server.
"""

from pathlib import Path

import click

from harness.cli.frame import output
from harness.cli.frame.session import Session, pass_session
from harness.control.serialize import to_plain

FORMATS = ("markdown", "junit")


@click.command("report")
@click.argument("proposal_id", metavar="ID")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="markdown",
    show_default=True,
    help="What to write.",
)
@click.option(
    "--output",
    "file",
    type=click.Path(path_type=Path),
    help="A file. [default: standard output]",
)
@pass_session
def proposal_report(
    session: Session, *, proposal_id: str, form: str, file: Path | None
) -> None:
    """Write a comparison as a document.

    The verdict and why, figures by suite and by tag, cost and time, the most telling answers,
    what was pinned, and how to check it.
    """
    from harness.report.content import gather_report  # noqa: PLC0415 - `--help` stays quick
    from harness.report.junit import render_junit  # noqa: PLC0415
    from harness.report.markdown import render_markdown  # noqa: PLC0415

    report = gather_report(session.context, proposal_id)
    text = render_markdown(report) if form == "markdown" else render_junit(report)
    if file is not None:
        file.write_text(text, encoding="utf-8")
    if session.json:
        tags = {part.side.plan.suite: to_plain(part.tags) for part in report.suites}
        output.document({"report": text, "tags": tags, "telling": to_plain(report.telling)})
    elif file is None:
        click.echo(text, nl=False)
