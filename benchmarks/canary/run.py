"""How soon the canary detects harm, and how often it rolls back a healthy candidate:
`python -m benchmarks.canary.run [--rollouts 400] [--table default] [--seed 5]`.

Simulates traffic with a known truth: a canary at 1 % beside an incumbent with 1 % errors. Ends
with 3 when the canary misses a goal of docs/explanation/benchmarks.md.
"""

import argparse
import sys

from benchmarks.canary.canary_benchmark import TABLES, CanaryBenchmarkPlan, run_canary_benchmark
from benchmarks.print_rows import print_rows

MISSED = 3


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rollouts", type=int, default=400, help="per row")
    options.add_argument("--table", choices=TABLES, action="append", help="default: all")
    options.add_argument("--seed", type=int, default=5)
    chosen = options.parse_args()
    plan = CanaryBenchmarkPlan(chosen.rollouts, chosen.seed, chosen.table or TABLES)
    benchmark = run_canary_benchmark(plan, lambda what: print(what, file=sys.stderr))
    print_rows("exposures to the rollback", benchmark.lines)
    missed = [goal for goal in benchmark.goals if not goal.reached]
    print_rows("goals", benchmark.goals)
    print_rows("MISSED", missed)
    return MISSED if missed else 0


if __name__ == "__main__":
    sys.exit(main())
