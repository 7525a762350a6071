"""Measures how often the gate and simpler rules err on data with a known truth:
`python -m benchmarks.gate.run [--replications 2000] [--size 500] [MATRIX …]`.

Resamples the items of real pairs of models, with weights that place the candidate exactly at
the null, or 5 or 10 points above. Then searches for the null that passes most often. A MATRIX
has a line per model: `model,0110…`, `model,0,1,…` or `model,55,90,…`. Ends with 3 when the gate
misses a goal of docs/explanation/benchmarks.md.
"""

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.gate.drawn_cells import print_drawn_cells
from benchmarks.gate.file_levels import RUNS, measure_file_levels
from benchmarks.gate.gate_benchmark import (
    MOST_FALSE_WORST,
    MOST_PROVEN,
    SIZES,
    GateBenchmarkPlan,
    measure_quarter,
    measure_spares,
    missed_goals,
    run_gate_benchmark,
)
from benchmarks.gate.label_cells import RUNS as LABEL_RUNS
from benchmarks.gate.label_cells import print_label_cells
from benchmarks.gate.labeller_cells import RUNS as LABELLER_RUNS
from benchmarks.gate.labeller_cells import print_labeller_cells
from benchmarks.gate.people_pairs import VOTES, print_people_pairs
from benchmarks.gate.score_matrix import (
    ScoreKind,
    ScoreMatrix,
    close_pairs,
    generate_scores,
    load_epochs,
    load_matrix,
)
from benchmarks.gate.shadow_cells import RUNS as SHADOW_RUNS
from benchmarks.gate.shadow_cells import print_shadow_cells
from benchmarks.gate.slice_levels import measure_slices
from benchmarks.gate.traffic_cells import RUNS as TRAFFIC_RUNS
from benchmarks.gate.traffic_cells import measure_traffic_cells
from benchmarks.gate.worst_null import (
    MOST_FOUND,
    TWO_ERRORS,
    search_worst_nulls,
)
from benchmarks.print_rows import print_cells, print_rows
from harness.frame import package_data
from harness.gate.suite_plan import Claim
from harness.routing.candidate_schedule import QUARTER_ALPHA
from tests.support.gate.gate_answers import measure_repeats
from tests.support.gate.gate_clusters import ClusterRow, measure_clusters
from tests.support.gate.gate_missing import MissingRow, measure_missing

MISSED = 3


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "matrix",
        nargs="*",
        type=Path,
        help="default: three real and four generated",
    )
    options.add_argument(
        "--replications",
        type=int,
        default=2000,
        help="per pair at the null",
    )
    options.add_argument(
        "--size",
        type=int,
        action="append",
        help="items: 200 and 500",
    )
    chosen = options.parse_args()
    files = chosen.matrix or sorted(package_data.path("datasets/gatebench").glob("*.csv"))
    matrices = [load_matrix(file) for file in files]
    if not chosen.matrix:
        matrices += [generate_scores(kind, 1) for kind in ScoreKind]
    plan = GateBenchmarkPlan(
        replications=chosen.replications,
        power=max(50, chosen.replications // 10),
        sizes=tuple(chosen.size or SIZES),
    )
    lines = run_gate_benchmark(matrices, plan)
    print_rows("rules: shares promoted at the null, at +5 and +10 points", lines)
    few = matrices[:5:2]  # one of each kind: pass/fail, graded, means of epochs
    with ProcessPoolExecutor(2) as processes:
        clusters = processes.submit(cluster_rows, matrices[0], plan)
        missing = processes.submit(missing_rows, matrices[0], plan)
    print_rows("items in clusters", clusters.result())
    with ProcessPoolExecutor(2) as processes:
        quarters = [*processes.map(partial(measure_quarter, n=plan.sizes[0]), few)]
    print_rows("a quarter of weekly rounds of useless candidates", quarters)
    with ProcessPoolExecutor(2) as processes:
        spare_rows = [*processes.map(partial(measure_spares, n=plan.sizes[0]), few)]
    print_rows("a quarter of spares at the margin, renewed within 30 days", spare_rows)
    title = "missing scores: passed at the null, failed if equal"
    print_rows(title, missing.result())
    unsafe = (row for row in missing.result() if max(row.passed, row.failed) > MOST_FALSE_WORST)
    levels = measure_file_levels(RUNS)
    print_rows("files and seeds: useless candidates that pass, before and now", levels)
    slices = [*measure_slices(plan.replications)]
    print_rows("ten slices proposed alone: shares promoted", slices)
    cells = [*measure_traffic_cells(min(TRAFFIC_RUNS, plan.replications))]
    print_rows("suites of traffic: useless candidates that pass", cells)
    missed: list[object] = [*missed_goals(lines), *unsafe]
    missed += [row for row in slices if row.missed]
    missed += [cell for cell in cells if cell.missed]
    missed += [row for row in levels if row.missed]
    missed += [
        *print_labels(),
        *print_shadow_cells(min(SHADOW_RUNS, plan.replications)),
    ]
    missed += [row for row in quarters if row.worst_pair > QUARTER_ALPHA]
    missed += [row for row in spare_rows if max(row.worst_pair, row.weekly_worst) > MOST_PROVEN]
    if not chosen.matrix:
        repeats = load_epochs(package_data.path("datasets/gatebench/suite_epochs.csv"))
        found = measure_repeats(repeats, plan.replications, plan.seed)
        heads = ("model", "passes as better than itself")
        print_cells(
            "claims about these items, each asked twice",
            [heads, *found.items()],
        )
        worst = [*search_worst_nulls(seed=plan.seed)]
        print_rows("worst nulls that a search finds: shares promoted", worst)
        missed += [one for one in worst if one.promoted > MOST_FOUND + TWO_ERRORS]
    for one in missed:
        print(f"MISSED: {one}")
    if not missed:
        print("the gate reaches its goals")
    return MISSED if missed else 0


def print_labels() -> list[object]:
    """Prints the tables of people's labels, and returns the cells that miss their goal."""
    return [
        *print_drawn_cells(LABEL_RUNS),
        *print_label_cells(LABEL_RUNS),
        *print_labeller_cells(LABELLER_RUNS),
        *print_people_pairs(VOTES, LABEL_RUNS),
    ]


def cluster_rows(matrix: ScoreMatrix, plan: GateBenchmarkPlan) -> list[ClusterRow]:
    """Measures clustered items, with the claim *superior* and the last size."""
    pairs = close_pairs(matrix, plan.pairs)[: max(1, plan.pairs // 2)]
    replications = plan.replications // 2
    rows = measure_clusters(pairs, Claim.SUPERIOR, plan.sizes[-1], replications=replications)
    return [*rows]


def missing_rows(matrix: ScoreMatrix, plan: GateBenchmarkPlan) -> list[MissingRow]:
    draws = {
        "n": plan.sizes[0],
        "replications": plan.replications // 2,
        "seed": plan.seed,
    }
    pairs = close_pairs(matrix, 2)
    return [row for claim in plan.claims for row in measure_missing(pairs, claim, **draws)]


if __name__ == "__main__":
    sys.exit(main())
