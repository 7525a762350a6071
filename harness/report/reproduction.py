"""Says in a report how others can check it: what was pinned, and the commands that decide again
from the stored answers or measure anew.
"""

import shlex
from collections.abc import Iterable, Iterator

from harness.control.evals.proof_validity import ProofValidity
from harness.control.proposals import format_failures
from harness.domain.evals.pins import ServedModel, named_models
from harness.domain.evals.verdict import Verdict
from harness.gate.text.sentences import clusters_text, spending_text
from harness.report.answer_examples import cell, code, table
from harness.report.content import Report, variables


def describe_pins(report: Report) -> Iterator[str]:
    """Lists what the comparison was made with, then the commands to check it."""
    comparison = report.comparison
    yield from ("", "## What was pinned", "")
    rows = [
        (
            cell(pin.name),
            cell(pin.version),
            f"`{pin.data_sha256[:12]}`",
            code(pin.scorer_alone),
            f"`{pin.judge_pin}`" if pin.judge_pin else "–",
            f"`{pin.template}`",
            f"`{pin.digest[:12]}`",
        )
        for pin in (part.side.pin for part in report.suites)
    ]
    heads = ("suite", "version", "data", "scorer", "judge", "prompt and settings", "together")
    yield from table(heads, rows)
    yield ""
    parts = [part.side.served for part in report.suites]
    for head, target, served in (
        ("Incumbent", comparison.incumbent, {s for part in parts for s in part.incumbent}),
        ("Candidate", comparison.candidate, {s for part in parts for s in part.candidate}),
    ):
        yield f"- {head} `{target.id}`; its provider reported serving {_reported(served)}."
    if judges := {s for part in parts for s in part.judge}:
        yield f"- The judge's provider reported serving {_reported(judges)}."
    for part in report.suites:
        plan = part.side.plan
        how = f"{plan.epochs} epoch(s), order seed {plan.order_seed}"
        look = spending_text(plan.look, plan.alpha, plan.spend, plan.candidates)
        yield f"- {plan.suite}: {how}" + (f"; {look}" if look else "") + "."
        if plan.cluster:
            yield f"  {clusters_text(plan)}"
    verdict = comparison.verdict
    if verdict is not None:
        yield f"- Verdict `{verdict.id}`, of {verdict.decided_at:%Y-%m-%d %H:%M} UTC,"
        yield f"  {_until(verdict, comparison.standing)}."
    yield from _rerun_lines(report, verdict)


def _rerun_lines(report: Report, verdict: Verdict | None) -> Iterator[str]:
    """How to recompute the verdict, and how to measure anew."""
    yield from ("", "## To check it")
    if verdict is not None:
        yield from _replaying(report, verdict)
    command = format_failures.build_rerun_command(report.comparison)
    if not command:
        return
    proposal = report.comparison.proposal
    yield from ("", "```", command, "```", "")
    yield "asks both models anew, with the suites and the policy"
    yield f"{code(proposal.policy.name)} of your configuration."
    if any(plan.look > 1 for plan in proposal.plans):
        yield "It knows of no earlier look, so that alpha is that of a first one."


def _replaying(report: Report, verdict: Verdict) -> Iterator[str]:
    if report.standalone and report.kept is None:
        yield from ("", "The answers were not kept. `swapgate gate run … --keep FOLDER` keeps")
        yield "them, so that `swapgate gate replay` can decide again from them."
        return
    words = ["swapgate", "gate", "replay", verdict.id]
    place = "" if report.kept is None else f"{variables(report.kept)} "
    yield from ("", "```", place + shlex.join(words), "```")
    yield from ("", "decides again from the stored answers, and must give the same bytes.")


def _reported(served: Iterable[ServedModel]) -> str:
    return ", ".join(code(model.label) for model in named_models(served)) or "nothing"


def _until(verdict: Verdict, standing: ProofValidity | None) -> str:
    if standing is None or standing.holds:
        return f"holds until {verdict.expires_at:%Y-%m-%d}"
    return f"proof no more: **{standing.proof.value.upper()}**, {cell(standing.why)}"
