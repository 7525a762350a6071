"""`swapgate proof` writes what a swap rests on into a file, and verifies such a file."""

from pathlib import Path

import click

from harness.cli.frame import output
from harness.cli.frame.command import EXISTING_FILE, FILE, arg, command, opt
from harness.cli.frame.session import Session
from harness.control.serialize import to_plain
from harness.domain.errors import Conflict
from harness.domain.formatting import escape_controls
from harness.domain.proposals.proposal import ProposalPhase

FORMATS = ("markdown", "junit")


@command(name="report")
def proposal_report(
    session: Session,
    proposal_id: str = arg("ID"),
    *,
    form: str = opt(
        "What to write.", "--format", type=click.Choice(FORMATS), default="markdown"
    ),
    file: Path | None = opt("A file. [default: standard output]", "--output"),
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


DOES_NOT_HOLD = 1


@click.group()
def proof() -> None:
    """Proofs: what one swap rests on, in a file that others can verify."""


@command(proof)
def export(
    session: Session,
    proposal_id: str = arg("PROPOSAL"),
    *,
    file: Path = opt(
        "The file to write.",
        "-o",
        "--output",
        type=FILE,
        default="proof.json",
    ),
) -> None:
    """Write the proof of a proposal.

    It has the signed rows of the plans, pins, policy, scores, verdict, approvals and changes of
    the route, and no text of people or models. `swapgate proof verify` needs only this file and
    `signing.pub`.
    """
    from harness.domain.proposals.proof import format_proof  # noqa: PLC0415 - `--help` stays quick

    context = session.context
    with context.store.read() as tx:
        proposal = tx.proposals.get(proposal_id)
        if proposal.verdict is None:
            raise Conflict(f"{proposal.id} has no verdict yet: there is nothing to prove")
        if proposal.phase is ProposalPhase.EVALUATING:
            raise Conflict(
                f"{proposal.id} is being measured again: export its proof after the "
                f"verdict; `swapgate proposal show {proposal.id} --watch` shows it"
            )
        found = tx.export_proof(proposal, context.clock.now())
    file.write_text(format_proof(found), encoding="utf-8")
    if session.json:
        rows = {table: len(stored) for table, stored in found.rows.items()}
        output.document({"proposal": found.proposal, "file": str(file), "rows": rows})
    else:
        click.echo(f"{file}: verify it with `swapgate proof verify {file} --key signing.pub`")


@command(proof)
def verify(
    session: Session,
    file: Path = arg(type=EXISTING_FILE),
    *,
    key: Path = opt(
        "The installation's public keys: its file `signing.pub`.",
        type=EXISTING_FILE,
    ),
) -> int:
    """Verify a proof, and say what it shows.

    It needs no database, no secret and no configuration. It checks each signature, computes the
    verdict again from the scores, and checks that plan, margin and alpha were registered before
    the first answer. Exit code: 1 where something does not hold; each fault is named.
    """
    from harness.app.proof import verify_proof  # noqa: PLC0415 - `--help` stays quick

    found = verify_proof(file, key)
    if session.json:
        output.document({"holds": found.holds, "found": to_plain(found)})
    else:
        for sentence in found.shown:
            click.echo(escape_controls(sentence))
        for fault in found.faults:
            click.echo(f"DOES NOT HOLD: {escape_controls(fault)}")
        click.echo("The proof holds." if found.holds else "The proof does not hold.")
    return 0 if found.holds else DOES_NOT_HOLD
