"""`swapproof proof` writes the evidence for a swap into a file; `proof_verification` checks the
file. `swapproof gate replay` decides a verdict or a canary's action again from the stored data,
and compares the results.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from harness.canary import audit
from harness.canary.audit import ReplayedAction
from harness.frame.errors import InputError
from harness.gate.verdict_sentences import describe_reason
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    FILE,
    LazyCommandGroup,
    arg,
    command,
    opt,
)
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.proposals.proof_verification import VERIFY
from harness.proposals import recomputation
from harness.proposals.recomputation import ReplayedVerdict

FORMATS = ("markdown", "junit")


@command(name="report", example="swapproof proposal report p_3f9c2a61b7e04d58")
def proposal_report(
    session: Session,
    proposal_id: str = arg("ID"),
    *,
    form: str = opt(
        "Format of the report.",
        "--format",
        type=click.Choice(FORMATS),
        default="markdown",
    ),
    file: Path | None = opt("File to write. [default: standard output]", "--output"),
) -> None:
    """Write the report of a comparison."""
    from harness.proposals.report.answer_examples import describe_report  # noqa: PLC0415 - `--help` stays quick
    from harness.proposals.report.content import gather_report  # noqa: PLC0415
    from harness.proposals.report.junit import render_junit  # noqa: PLC0415
    from harness.proposals.report.markdown import render_markdown  # noqa: PLC0415

    report = gather_report(session.context, proposal_id)
    if form == "markdown":
        text = render_markdown(describe_report(report))
    else:
        text = render_junit(report)
    if file is not None:
        file.write_text(text, encoding="utf-8")
    if session.json:
        output.document({"report": text, "telling": report.telling})
    elif file is None:
        click.echo(text, nl=False)


@click.command(cls=LazyCommandGroup, lazy={"verify": VERIFY})
def proof() -> None:
    """Proofs: the evidence for a swap, in a file that anyone can verify."""


@command(proof, example="swapproof proof export p_3f9c2a61b7e04d58")
def export(
    session: Session,
    proposal_id: str = arg("PROPOSAL"),
    *,
    file: Path = opt(
        "File to write.",
        "-o",
        "--output",
        type=FILE,
        default="proof.json",
    ),
) -> None:
    """Write the proof of a proposal.

    The file holds the signed rows behind the swap, but no text of people or models. `swapproof
    proof verify` needs only this file and `signing.pub`. The command overwrites no file. It
    also says if the former incumbent could not serve at the promotion.
    """
    from harness.app.proof import export_proof, find_missing_way_back  # noqa: PLC0415 - `--help` stays quick
    from harness.routing.evidence import format_proof  # noqa: PLC0415

    proof_content = export_proof(session.context, proposal_id)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(format_proof(proof_content))
    except FileExistsError:
        raise InputError(f"{file} exists: delete it, or name another file with -o") from None
    except OSError as error:
        raise InputError(
            f"{file} cannot be written: {error.strerror}. Name a file in a folder that exists"
        ) from None
    missing_way_back = find_missing_way_back(session.context, proposal_id)
    rows = {table: len(table_rows) for table, table_rows in proof_content.rows.items()}
    if not output.documented(
        {
            "proposal": proof_content.proposal,
            "file": str(file),
            "rows": rows,
            "no_way_back": missing_way_back,
        }
    ):
        click.echo(f"{file}: verify it with `swapproof proof verify {file} --key signing.pub`")
        if missing_way_back:
            click.echo(f"At the promotion there was {missing_way_back}")


DIFFERS_CODE = 1


@command(example="swapproof gate replay p_3f9c2a61b7e04d58")
def replay(
    session: Session,
    decision: str = arg("VERDICT|ACTION"),
) -> int:
    """Decide a verdict again from the stored samples.

    VERDICT is the id of a verdict or a proposal. ACTION is the number of a canary's audit
    event, decided again from the canary's blocks. Exit code 1 if the result differs.
    """
    if decision.isdigit():
        return 0 if _replay_action(session, int(decision)) else DIFFERS_CODE
    repetition = recomputation.replay_verdict(session.context, decision)
    _print_verdict_replay(repetition)
    return 0 if repetition.agrees else DIFFERS_CODE


def _replay_action(session: Session, number: int) -> bool:
    repetition = audit.replay_action(session.context, number)
    event = repetition.event
    decided = repetition.decided
    at = f"{timestamp(event.at)} UTC"
    document = {
        "event": event.number,
        "action": event.action,
        "decided": decided,
        "rollout": repetition.rollout,
        "blocks": repetition.blocks,
    }
    facts = [
        (
            "action",
            f"{event.action}, event {event.number}, by {event.actor}",
        ),
        ("of", f"{event.subject}, rollout {repetition.rollout}, {at}"),
        ("said", event.details.get("reason", "")),
        (
            "evidence",
            decided.reason if decided else "cannot be decided again",
        ),
        ("blocks", f"{repetition.blocks:,}"),
    ]
    _print_replay(document, facts, repetition, ", from the stored blocks")
    return repetition.agrees


def _print_replay(
    document: dict[str, object],
    facts: Sequence[tuple[str, object]],
    repetition: ReplayedVerdict | ReplayedAction,
    ending: str,
) -> None:
    """Prints a repeated decision.

    Args:
        ending: end of the sentence if nothing differs.
    """
    digests = {
        "stored_sha256": repetition.stored_sha256,
        "again_sha256": repetition.again_sha256,
    }
    differences = {
        "differences": list(repetition.differences),
        "agrees": repetition.agrees,
    }
    if output.documented(
        {
            **document,
            **digests,
            **differences,
        }
    ):
        return
    output.facts(
        [
            *facts,
            ("stored", f"sha256 {repetition.stored_sha256}"),
            ("again", f"sha256 {repetition.again_sha256}" if repetition.again_sha256 else None),
        ]
    )
    if repetition.agrees:
        click.echo(f"The same, to the byte{ending}.")
    for difference in repetition.differences:
        click.echo(f"NOT THE SAME: {difference}")


def _print_verdict_replay(repetition: ReplayedVerdict) -> None:
    verdict = repetition.stored
    _print_replay(
        {
            "verdict": verdict.id,
            "outcome": verdict.outcome,
            "items": dict(repetition.items),
        },
        [
            ("verdict", verdict.id),
            ("says", f"{verdict.words}: {describe_reason(verdict)}"),
            (
                "items",
                ", ".join(f"{suite} {n}" for suite, n in repetition.items.items()),
            ),
        ],
        repetition,
        "; and its pairs follow from the stored samples",
    )
