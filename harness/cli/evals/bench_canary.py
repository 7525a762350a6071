"""`swapgate bench canary`: the rollback rule, measured on simulated traffic."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.frame import output

if TYPE_CHECKING:
    from harness.bench.canary_benchmark import CanaryBenchmark, CanaryBenchmarkRow

MISSED = 3


@click.command("canary")
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
    type=click.Choice(["errors", "latency", "guarded"]),
    multiple=True,
    help="[default: all three]",
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
    Our rule and simpler ones see the same traffic; then latency, then all guardrails.
    Exit code: 3 when our rule misses a goal that docs/benchmarks.md names.
    """
    from harness.bench.canary_benchmark import TABLES, CanaryBenchmarkPlan, run_canary_benchmark  # noqa: PLC0415
    from harness.bench.canary_chart import draw_canary_chart  # noqa: PLC0415 - numpy takes its time

    if picture is not None and tables and "errors" not in tables:
        raise click.UsageError("--svg draws the table of errors: leave --table away")
    plan = CanaryBenchmarkPlan(rollouts, seed, tables or TABLES)
    found = run_canary_benchmark(plan, lambda what: output.note(f"measuring {what}"))
    if picture is not None:
        picture.write_text(draw_canary_chart(found), encoding="utf-8")
    if as_json:
        output.document(
            {
                "plan": asdict(found.plan),
                "lines": [{**asdict(each), "never": each.never} for each in found.lines],
                "goals": [{**asdict(each), "reached": each.reached} for each in found.goals],
            }
        )
    else:
        _print(found)
    sys.exit(0 if all(goal.reached for goal in found.goals) else MISSED)


def _print(found: "CanaryBenchmark") -> None:
    headings = ["rule", "case", "median", "95 %", "never", "false", "cap", "rollouts"]
    output.table(headings, [_row(line) for line in found.lines], empty="")
    output.note(
        "median, 95 %: canary exposures to the rollback; never: rollouts that reached the cap; "
        "false: rollouts in which a healthy canary was rolled back"
    )
    for goal in found.goals:
        word = "reached" if goal.reached else "NOT REACHED"
        output.note(f"{word}: {goal.what} {goal.found:.3g}, goal at most {goal.limit:g}")


def _row(line: "CanaryBenchmarkRow") -> list[object]:
    def shown(exposures: int | None) -> str:
        return f"> {line.cap}" if exposures is None else str(exposures)

    if line.false:
        rate = f"{line.rolled_back:.3f}"
        return [line.rule, line.case, "", "", "", rate, line.cap, line.rollouts]
    median, late = shown(line.median), shown(line.p95)
    never = f"{line.never:.0%}"
    return [line.rule, line.case, median, late, never, "", line.cap, line.rollouts]
