"""`swapgate gate run` compares two targets in a temporary installation without a server, for
CI.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.evals.try_suite import exit_code, print_report, progress_pauses
from harness.cli.frame.command import FiniteRange, command, opt, taken_from
from harness.cli.frame.session import Session
from harness.cli.routing.route_options import TargetOptions, requested_target
from harness.config.routing import target_seed
from harness.control.proposals.gate_run import (
    ComparisonRequest,
    register_comparison,
    run_until_decided,
    without_patience,
)
from harness.domain.evals.suite_plan import Claim

if TYPE_CHECKING:
    from harness.control.context import Context
    from harness.domain.proposals.proposal import Proposal
    from harness.report.content import Report


@command(name="run")
def gate_run(
    session: Session,
    *,
    suites: tuple[str, ...] = opt(
        "A suite of the configuration; the first is the primary one, others are required.",
        "--suite",
        required=True,
    ),
    guards: tuple[str, ...] = opt(
        "Suite that fails a candidate shown to be worse; may be repeated.",
        "--guard",
        metavar="SUITE",
    ),
    incumbent: str = opt("As `provider/model`.", metavar="TARGET"),
    candidate: str = opt("As `provider/model`.", metavar="TARGET"),
    settings: TargetOptions = taken_from(TargetOptions),
    policy: str = opt("Name of a policy.", default="default"),
    claim: Claim | None = opt("What the candidate has to show. [default: as the policy says]"),
    margin: float | None = opt(
        "Allowed loss, a share of 1: 0.05 is 5 points. [default: as the policy says]",
        metavar="SHARE",
    ),
    min_saving: float | None = opt(
        "With cheaper_and_not_worse: share of the cost to save. [default: the policy's]",
        metavar="SHARE",
    ),
    unreadable_as_wrong: bool = opt(
        "Go on where nothing can be read in a model's first 5 answers: they count as wrong."
    ),
    reason: str = opt("Why.", default="swapgate gate run"),
    markdown_file: Path | None = opt("Write the report here.", "--markdown"),
    junit_file: Path | None = opt("Write JUnit XML here.", "--junit"),
    keep: Path | None = opt(
        "Keep the database with every answer, for `swapgate gate replay`. "
        "[default: thrown away]",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="FOLDER",
    ),
    timeout_s: float | None = opt(
        "Seconds, then exit code 5. [default: none]", "--timeout", type=FiniteRange(min=0)
    ),
) -> int:
    """Compare two targets without a server.

    Suites, providers and policies are the configuration's. Your database is not touched.
    --param, --patch-param, --prompt-addendum and --response-format are the candidate's.
    Exit code: 0 passed, 3 failed or format mismatch, 4 not enough evidence, 5 timeout, 1 not
    measured.
    """
    question = ComparisonRequest(
        suites,
        target_seed(incumbent),
        requested_target(candidate, settings),
        policy,
        claim,
        margin,
        reason,
        guards,
        min_saving,
    )
    from harness.app.set_up import temporary_installation  # noqa: PLC0415 - `--help` stays quick

    with tempfile.TemporaryDirectory(prefix="swapgate-gate-") as scratch:
        with temporary_installation(session.config, keep or Path(scratch)) as installation:
            ctx = without_patience(
                installation.context, unreadable_is_wrong=unreadable_as_wrong
            )
            proposal = register_comparison(ctx, session.actor, installation.settings, question)
            with progress_pauses(ctx, installation.clock, timeout_s) as pause:
                found = run_until_decided(ctx, proposal.id, pause)
            report = _report(installation.context, found, keep)
        _write(markdown_file, junit_file, report)
        print_report(report, keep)
    return exit_code(report)


def _report(ctx: "Context", proposal: "Proposal", kept: Path | None) -> "Report":
    from harness.report.content import gather_report  # noqa: PLC0415 - only when there is something

    return gather_report(ctx, proposal.id, standalone=True, kept=kept)


def _write(markdown_file: Path | None, junit_file: Path | None, report: "Report") -> None:
    from harness.report.junit import render_junit  # noqa: PLC0415 - as above
    from harness.report.markdown import render_markdown  # noqa: PLC0415

    for file, render in ((markdown_file, render_markdown), (junit_file, render_junit)):
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(render(report), encoding="utf-8")
