"""`swapgate gate bench` and `canary bench` measure the error rates of the gate's and the
canary's rules on data with a known truth, beside simpler rules; exit code 3 where a goal is
missed.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.frame import output
from harness.cli.frame.finite_range import FiniteRange
from harness.domain.evals.suite_plan import QUALITY_CLAIMS, Claim
from harness.domain.formatting import format_percent, format_score, format_usd

if TYPE_CHECKING:
    from harness.bench.canary_benchmark import CanaryBenchmark, CanaryBenchmarkRow
    from harness.bench.gate_answers import AnswersRow
    from harness.bench.gate_benchmark import (
        GateBenchmark,
        GateBenchmarkRow,
        MissedGoal,
        PromotionRates,
    )
    from harness.bench.gate_clusters import ClusterRow
    from harness.bench.gate_slices import SliceRow

MISSED = 3


@click.command("bench")
@click.option(
    "--matrix",
    "matrices",
    type=click.Path(path_type=Path),
    multiple=True,
    help="File of your own scores, models by items; may be repeated. "
    "[default: three shipped, four generated]",
)
@click.option(
    "--generated",
    "seeds",
    type=int,
    multiple=True,
    help="Also measure on four generated matrices with this seed; may be repeated.",
)
@click.option(
    "--claim",
    "claims",
    type=click.Choice([claim.value for claim in QUALITY_CLAIMS]),
    multiple=True,
    help="[default: both]",
)
@click.option(
    "--size",
    "sizes",
    type=click.IntRange(20, 20_000),
    multiple=True,
    help="Items of a suite. [default: 200 and 500]",
)
@click.option(
    "--replications",
    type=click.IntRange(20, 100_000),
    default=2000,
    show_default=True,
    help="Comparisons per pair of models without a true difference.",
)
@click.option(
    "--pairs",
    type=click.IntRange(1, 1000),
    default=6,
    show_default=True,
    help="Pairs of models of each matrix.",
)
@click.option(
    "--seed", type=int, default=11, show_default=True, help="Seed of the random draws."
)
@click.option(
    "--usd-per-item",
    type=FiniteRange(min=0.0),
    help="Cost of one item for both models; prints costs in US dollars.",
)
@click.option(
    "--svg",
    "picture",
    type=click.Path(path_type=Path),
    help="Also draw a chart into this SVG file.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def bench_gate(  # noqa: PLR0913 - one per option
    *,
    matrices: tuple[Path, ...],
    seeds: tuple[int, ...],
    claims: tuple[str, ...],
    sizes: tuple[int, ...],
    replications: int,
    pairs: int,
    seed: int,
    usd_per_item: float | None,
    picture: Path | None,
    as_json: bool,
) -> None:
    """Measure how often the gate errs, compared with simpler rules, on data with a known truth.

    Items of real pairs of models are resampled with weights that make the candidate exactly
    as good as the null hypothesis says, or 5 or 10 points better.
    A matrix has a line per model: `model,0110…`, `model,0,1,…` or `model,55,90,…`.
    Exit code: 3 when the gate misses a goal of docs/explanation/benchmarks/gate-error-rates.md.
    """
    from harness import package_data  # noqa: PLC0415 - numpy takes its time
    from harness.bench.charts import draw_gate_chart  # noqa: PLC0415
    from harness.bench.gate_answers import run_answers_benchmark  # noqa: PLC0415
    from harness.bench.gate_benchmark import SIZES, GateBenchmarkPlan, run_gate_benchmark  # noqa: PLC0415
    from harness.bench.gate_clusters import run_cluster_benchmark  # noqa: PLC0415
    from harness.bench.gate_slices import run_slice_benchmark  # noqa: PLC0415
    from harness.bench.score_matrix import (  # noqa: PLC0415
        ScoreKind,
        generate_scores,
        load_matrix,
    )

    files = list(matrices)
    if not matrices and not seeds:
        files, seeds = sorted(package_data.path("datasets/gatebench").glob("*.csv")), (1,)
    plan = GateBenchmarkPlan(
        replications=replications,
        power=max(50, replications // 10),
        pairs=pairs,
        seed=seed,
        sizes=sizes or SIZES,
        claims=tuple(map(Claim, claims)) or QUALITY_CLAIMS,
    )
    measured = [
        *map(load_matrix, files),
        *(generate_scores(kind, number) for number in seeds for kind in ScoreKind),
    ]
    benchmark = run_gate_benchmark(
        measured, plan, lambda what: output.note(f"measuring {what}")
    )
    output.note(f"measuring {measured[0].name} in clusters")
    clusters, missed = run_cluster_benchmark(measured[0], plan)
    answers: Sequence[AnswersRow] = ()
    missed_anew: Sequence[MissedGoal] = ()
    if not matrices:  # a matrix does not say how its models would answer anew
        output.note("measuring answers that are given anew")
        answers, missed_anew = run_answers_benchmark(plan)
    output.note(f"measuring {measured[0].name} in slices")
    sliced, unguarded = run_slice_benchmark(measured[0], plan)
    missed = (*missed, *missed_anew, *unguarded)
    benchmark = replace(benchmark, missed=(*benchmark.missed, *missed))
    if picture is not None:
        picture.write_text(draw_gate_chart(benchmark), encoding="utf-8")
    if as_json:
        grouped = {
            "clusters": [asdict(row) for row in clusters],
            "answers": [asdict(row) for row in answers],
            "slices": [asdict(row) for row in sliced],
        }
        output.document({**_document(benchmark, usd_per_item), **grouped})
    else:
        _print(benchmark, usd_per_item)
        if answers:
            _print_answers(answers)
        _print_clusters(clusters)
        _print_slices(sliced)
        _print_goals(benchmark)
    sys.exit(MISSED if benchmark.missed else 0)


def _document(benchmark: "GateBenchmark", usd_per_item: float | None) -> dict[str, object]:
    return {
        "plan": asdict(benchmark.plan),
        "lines": [
            {
                **asdict(line),
                "spent_ten": line.spent_ten,
                "usd_ten": line.items_ten * usd_per_item if usd_per_item is not None else None,
            }
            for line in benchmark.lines
        ],
        "missed": [asdict(goal) for goal in benchmark.missed],
    }


def _print(benchmark: "GateBenchmark", usd_per_item: float | None) -> None:
    headings = ["matrix", "claim", "n", "rule", "false", "worst", "at +5", "at +10", "items 0",
                "+5", "+10", "cost +10"]  # fmt: skip
    output.table(headings, [_row(line, usd_per_item) for line in benchmark.lines], empty="")
    plan = benchmark.plan
    output.note(
        f"false, worst: promotions of a candidate no better than the null, {plan.replications} "
        f"draws of each pair; +5 and +10: {plan.power} draws where it is so many points better"
    )


def _print_goals(benchmark: "GateBenchmark") -> None:
    for goal in benchmark.missed:
        output.note(
            f"MISSED: {goal.matrix}, {goal.claim.value}, {goal.n} items: {goal.what} "
            f"{goal.found:.3f}, goal at most {goal.limit:.3f}"
        )
    if not benchmark.missed:
        output.note("the gate reaches its goals on every matrix")


def _print_clusters(rows: "Sequence[ClusterRow]") -> None:
    """Prints what clusters do to the gate, and what items taken as independent would."""
    headings = ["claim", "items", "of a cluster", "ICC", "by items", "by clusters", "worst",
                "at +5", "at +10"]  # fmt: skip
    output.table(
        headings,
        [
            [
                row.claim.value,
                row.items,
                row.group_text,
                f"{row.icc:g}",
                f"{row.by_items:.3f}",
                f"{row.by_clusters:.3f}",
                f"{row.worst:.3f}",
                f"{row.five:.2f}",
                f"{row.ten:.2f}",
            ]
            for row in rows
        ],
        empty="",
    )


def _rates(row: "PromotionRates") -> list[str]:
    return [
        f"{row.false_mean:.3f}",
        f"{row.worst:.3f}",
        f"{row.five:.2f}",
        f"{row.ten:.2f}",
        f"{row.items_five:.0f}",
        f"{row.items_ten:.0f}",
    ]


def _print_answers(rows: "Sequence[AnswersRow]") -> None:
    """Prints what planned analyses do where models answer anew, once and twice an item."""
    headings = ["claim", "items", "of", "answers each", "about", "false", "worst", "at +5",
                "at +10", "items at +5", "items at +10", "candidate's answers at +5",
                "incumbent's answers"]  # fmt: skip
    output.table(
        headings,
        [
            [
                row.suite.claim.value,
                row.suite.n,
                row.suite.items,
                row.suite.answers,
                row.population.value,
                *_rates(row),
                f"{row.candidate_answers:.0f}",
                row.incumbent_answers,
            ]
            for row in rows
        ],
        empty="",
    )


def _print_slices(rows: "Sequence[SliceRow]") -> None:
    """Prints how often the guard of slices errs, and what it finds."""
    headings = ["slices", "units of each", "false alarms", "-10", "-20", "-10, first look",
                "-20, first look", "plan sees from", "of these found"]  # fmt: skip
    output.table(
        headings,
        [
            [
                row.slices,
                row.size,
                f"{row.false_alarms:.3f}",
                f"{row.ten:.2f}",
                f"{row.twenty:.2f}",
                f"{row.ten_first:.2f}",
                f"{row.twenty_first:.2f}",
                format_score(row.sees),
                f"{row.found:.2f}",
            ]
            for row in rows
        ],
        empty="",
    )


def _row(line: "GateBenchmarkRow", usd_per_item: float | None) -> list[object]:
    cost = (
        format_percent(line.spent_ten, 0)
        if usd_per_item is None
        else format_usd(line.items_ten * usd_per_item)
    )
    return [
        line.matrix,
        line.claim.value,
        line.n,
        line.rule,
        f"{line.false_mean:.3f}",
        f"{line.false_worst:.3f}",
        f"{line.five:.2f}",
        f"{line.ten:.2f}",
        f"{line.items_null:.0f}",
        f"{line.items_five:.0f}",
        f"{line.items_ten:.0f}",
        cost,
    ]


@click.command("bench")
@click.option(
    "--rollouts",
    type=click.IntRange(20, 100_000),
    default=400,
    show_default=True,
    help="Simulated rollouts per row; fewer with all guardrails.",
)
@click.option(
    "--table",
    "tables",
    type=click.Choice(["default", "days", "errors", "latency", "guarded", "segments"]),
    multiple=True,
    help="[default: all]",
)
@click.option(
    "--seed", type=int, default=5, show_default=True, help="Seed of the random draws."
)
@click.option(
    "--svg",
    "picture",
    type=click.Path(path_type=Path),
    help="Also draw a chart into this SVG file.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def bench_canary(
    *, rollouts: int, tables: tuple[str, ...], seed: int, picture: Path | None, as_json: bool
) -> None:
    """Measure how soon harm is detected, and how often none was there.

    Simulates traffic with a known truth: a canary at 1 % beside an incumbent with 1 % errors.
    First the default policy; then our rule of errors beside simpler ones, on the same traffic;
    then latency, then all guardrails by the rule before.
    Exit code: 3 when our rule misses a goal of docs/explanation/benchmarks/canary-detection.md.
    """
    from harness.bench.canary_benchmark import TABLES, CanaryBenchmarkPlan, run_canary_benchmark  # noqa: PLC0415
    from harness.bench.charts import draw_canary_chart  # noqa: PLC0415 - numpy takes its time

    if picture is not None and tables and "errors" not in tables:
        raise click.UsageError("--svg draws the table of errors: leave --table away")
    plan = CanaryBenchmarkPlan(rollouts, seed, tables or TABLES)
    benchmark = run_canary_benchmark(plan, lambda what: output.note(f"measuring {what}"))
    if picture is not None:
        picture.write_text(draw_canary_chart(benchmark), encoding="utf-8")
    if as_json:
        output.document(
            {
                "plan": asdict(benchmark.plan),
                "lines": [{**asdict(line), "never": line.never} for line in benchmark.lines],
                "goals": [
                    {**asdict(goal), "reached": goal.reached} for goal in benchmark.goals
                ],
            }
        )
    else:
        _print_canary(benchmark)
    sys.exit(0 if all(goal.reached for goal in benchmark.goals) else MISSED)


def _print_canary(benchmark: "CanaryBenchmark") -> None:
    headings = ["rule", "case", "median", "95 %", "never", "false", "cap", "rollouts"]
    output.table(headings, [_canary_row(line) for line in benchmark.lines], empty="")
    output.note(
        "median, 95 %: canary exposures to the rollback; never: rollouts that reached the cap; "
        "false: rollouts in which a healthy canary was rolled back"
    )
    for goal in benchmark.goals:
        word = "reached" if goal.reached else "NOT REACHED"
        output.note(f"{word}: {goal.what} {goal.found:.3g}, goal at most {goal.limit:g}")


def _canary_row(line: "CanaryBenchmarkRow") -> list[object]:
    def shown(exposures: int | None) -> str:
        return f"> {line.cap}" if exposures is None else str(exposures)

    if line.false:
        rate = f"{line.rolled_back:.3f}"
        return [line.rule, line.case, "", "", "", rate, line.cap, line.rollouts]
    median, late = shown(line.median), shown(line.p95)
    never = format_percent(line.never, 0)
    return [line.rule, line.case, median, late, never, "", line.cap, line.rollouts]
