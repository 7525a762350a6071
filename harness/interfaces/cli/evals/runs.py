"""`swapproof eval` queues, lists, shows and cancels runs of one suite on one target. A run that
a person queues never decides about a swap.
"""

from collections.abc import Iterable, Mapping
from statistics import fmean

import click

from harness.app.processes import describe_missing_control
from harness.evals.spending import sum_cost_so_far
from harness.frame.formatting import (
    DASH,
    NOT_RECORDED,
    format_excerpt,
    format_latency,
    format_percent,
    format_thousand_price,
)
from harness.frame.pagination import PageRequest
from harness.gate.run import (
    AnswerColumns,
    EvalRun,
    RunBudget,
    RunState,
    SampleError,
    count_cut,
)
from harness.interfaces.cli.frame import output
from harness.interfaces.cli.frame.command import (
    PAGE,
    FiniteRange,
    command,
    opt,
)
from harness.interfaces.cli.frame.operation_command import operation_group
from harness.interfaces.cli.frame.output import timestamp
from harness.interfaces.cli.frame.session import Session
from harness.interfaces.cli.frame.waiting import TIMED_OUT, Progress, follow
from harness.operations import queries
from harness.operations.context import Context
from harness.proposals import eval_queue
from harness.proposals.eval_queue import QueuedRun, load_queue
from harness.proposals.labels.blindness import hide_sample
from harness.proposals.operations import EVAL_RUNS
from harness.proposals.report import comparison
from harness.routing.records.runs import EvalRuns

# Exit code for each end of a run.
EXIT_CODES = {
    RunState.DONE: 0,
    RunState.STOPPED: 1,
    RunState.FAILED: 1,
    RunState.OVER_BUDGET: 4,
}


eval_group = operation_group(EVAL_RUNS)


@command(
    eval_group, "run", example="swapproof eval run tickets openai/gpt-6-luna --items 50 --wait"
)
def run_suite(
    session: Session,
    suite: str,
    target: str,
    *,
    items: int | None = opt("Number of items. [default: all]", metavar="N"),
    max_tokens: int | None = opt("Token limit of the run. [default: none]", metavar="N"),
    max_cost: float | None = opt("Cost limit of the run. [default: none]", metavar="USD"),
    wait: bool = opt("Wait until the run has ended."),
    timeout_s: float | None = opt(
        "With --wait: seconds, then exit code 5. [default: none]",
        "--timeout",
        type=FiniteRange(min=0),
    ),
) -> int:
    """Queue a run of SUITE on TARGET, for the control process.

    Exit code with --wait: 0 done, 1 failed or stopped, 4 over its budget, 5 timeout.
    """
    context = session.context_with_providers
    budget = RunBudget(max_tokens, max_cost)
    run = eval_queue.start_run(
        context,
        session.actor,
        suite,
        target,
        items=items,
        budget=budget,
    )
    if advice := describe_missing_control(session.settings.control):
        output.note(advice)
    code = 0
    if wait:
        (run, _, _), in_time = follow(
            session,
            lambda: _load_progress(context, run.id),
            ended=lambda progress: progress[0].state in EXIT_CODES,
            describe=lambda progress: _build_progress(*progress, queue=load_queue(context)),
            timeout_s=timeout_s,
        )
        code = EXIT_CODES[run.state] if in_time else TIMED_OUT
    _show_run(session, run.id, with_samples=False)
    return code


def _load_progress(ctx: Context, run_id: str) -> tuple[EvalRun, int, float | None]:
    """Returns the run, its number of stored answers, and their cost (None without a price)."""
    run, samples, _ = queries.load_run_progress(ctx, run_id)
    with ctx.store.read() as tx:
        return run, samples, sum_cost_so_far(tx, [run_id])


def _build_progress(
    run: EvalRun,
    samples: int,
    cost_usd: float | None,
    *,
    queue: Mapping[str, QueuedRun],
) -> Progress:
    queued_run = queue.get(run.id)
    waits = queued_run is not None and not queued_run.leased
    return Progress(
        f"{run.id}: {_format_state(run)}",
        samples,
        run.wanted * run.epochs,
        cost_usd=cost_usd,
        note=queued_run.text if queued_run is not None and waits else "",
    )


def _format_state(run: EvalRun) -> str:
    return run.state.value.replace("_", " ")


@command(eval_group, "list", example="swapproof eval list")
def list_runs(
    session: Session,
    *,
    states: tuple[RunState, ...] = opt("Only runs in this state; may be repeated.", "--state"),
    page_request: PageRequest = PAGE,
) -> None:
    """List the runs, newest first. A waiting run shows its place and why it waits."""
    runs = session.context.store.lists.runs(page_request, states=states)
    with session.context.store.read() as tx:
        sample_counts = {run.id: EvalRuns(tx).progress(run.id)[0] for run in runs}
    names = queries.load_target_names(session.context, {run.target for run in runs})
    queue = load_queue(session.context)
    output.listing(
        runs,
        lambda run: {
            "RUN": run.id,
            "SUITE": run.suite,
            "TARGET": names.get(run.target, run.target),
            "STATE": _format_state(run),
            "SAMPLES": f"{sample_counts[run.id]} of {run.wanted * run.epochs}",
            "CREATED (UTC)": timestamp(run.created_at),
            "PROPOSAL": _name_proposals(queue.get(run.id)),
            "WHY": _explain_state(run, queue.get(run.id)),
        },
        empty="no runs yet: `swapproof eval run SUITE TARGET` queues one",
        as_document=lambda rows: [
            {
                **output.plain_fields(run),
                "samples": sample_counts[run.id],
                **_build_queue_json(queue.get(run.id)),
            }
            for run in rows
        ],
    )


def _name_proposals(queued_run: QueuedRun | None) -> str | None:
    return ", ".join(queued_run.needed_by) if queued_run else None


def _explain_state(run: EvalRun, queued_run: QueuedRun | None) -> str | None:
    """Returns why a run waits, or why it ended."""
    return queued_run.text if queued_run else run.message or None


def _build_queue_json(queued_run: QueuedRun | None) -> dict[str, object]:
    if queued_run is None:
        return {
            "needed_by": [],
            "position": None,
            "waits": None,
        }
    waits = None if queued_run.leased and not queued_run.away else queued_run.text
    place = queued_run.position or None
    return {
        "needed_by": list(queued_run.needed_by),
        "position": place,
        "waits": waits,
    }


@command(eval_group, example="swapproof eval show run_51d0a8c37be2f946")
def show(
    session: Session,
    run: str,
    *,
    samples: bool = opt("Show every answer."),
) -> None:
    """Show one run: score, failures, cost and time."""
    _show_run(session, run, with_samples=samples)


def _show_run(
    session: Session,
    run_id: str,
    *,
    with_samples: bool,
) -> None:
    run, _, _ = queries.load_run_progress(session.context, run_id)
    hidden = queries.find_why_hidden(session.context, run_id)
    with session.context.store.read() as tx:
        samples = EvalRuns(tx).samples(run_id)
    if hidden:
        samples = [hide_sample(sample, hidden) for sample in samples]
    names = queries.load_target_names(session.context, {run.target})
    answers = AnswerColumns.from_samples(samples)
    figures = comparison.compute_arm_figures(answers)
    unscored = len(samples) - answers.error.count(None)
    cut = count_cut(answers)
    queued_run = load_queue(session.context).get(run_id)
    strict = _average(sample.strict for sample in samples)
    lenient = _average(sample.lenient for sample in samples)
    if session.json:
        document = {
            "run": output.plain_fields(run),
            **_build_queue_json(queued_run),
            "figures": figures,
            "strict": strict,
            "lenient": lenient,
            "unscored": sum(sample.error is SampleError.UNSCORED for sample in samples),
            "cut": cut,
            "hidden": hidden,
        }
        output.document({**document, "answers": samples} if with_samples else document)
        return
    output.facts(
        [
            ("run", run.id),
            ("suite", run.suite),
            ("target", names.get(run.target, run.target)),
            ("state", _format_state(run)),
            ("queue", queued_run.text if queued_run else None),
            ("proposal", _name_proposals(queued_run) or None),
            ("samples", f"{len(samples)} of {run.wanted * run.epochs}"),
            ("score", hidden or _format_scores(strict, lenient)),
            (
                "without a score",
                f"{unscored} of {len(samples)}" if unscored else None,
            ),
            (
                "cut",
                f"{cut.number} of {len(samples)} {cut.text}; {cut.advice}" if cut else None,
            ),
            ("failed calls", format_percent(figures.failed, 1, "") or None),
            (
                "cost",
                _format_cost(figures.cost_usd_per_1000, hidden),
            ),
            (
                "time",
                _format_time(figures.p50_s, hidden) if samples else None,
            ),
            ("message", run.message or None if queued_run is None else None),
        ]
    )
    if with_samples:
        click.echo()
        output.table_of(
            samples,
            lambda sample: {
                "ITEM": sample.item,
                "SCORE": sample.strict,
                "LENIENT": sample.lenient,
                "RULE": sample.rule,
                "ANSWER": format_excerpt(sample.answer, 80),
            },
            empty="no answers yet",
        )


def _format_cost(cost_usd_per_1000: float | None, hidden: str) -> str:
    cost_text = format_thousand_price(cost_usd_per_1000, "")
    return hidden or (f"{cost_text} per 1,000 answers" if cost_text else NOT_RECORDED)


def _format_time(median_s: float | None, hidden: str) -> str:
    return hidden or f"{format_latency(median_s, DASH)} (median)"


def _average(scores: Iterable[float | None]) -> float | None:
    present_scores = [score for score in scores if score is not None]
    return fmean(present_scores) if present_scores else None


def _format_scores(strict: float | None, lenient: float | None) -> str | None:
    if strict is None or lenient is None:
        return None
    return f"{strict:.3f} ({lenient:.3f} if format errors are forgiven)"
