"""`python -m benchmarks.mutants.run`: how many faults that are put into the code tests find.

Draws mutants in gate, canary, routing and proposals by a seed. Runs the test files that are
closest to them once, to see which test executes which mutant and how fast it is. Then runs for
each mutant the tests that execute it, the fastest first, until one fails. Prints killed and
surviving mutants. To compare two commits, check each out and name it: `--at CHECKOUT`.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.mutants.covering_tests import CoveringTests
from benchmarks.mutants.drawing import FOLDERS, Mutant, draw
from benchmarks.mutants.schemata import put_in
from benchmarks.mutants.warm_tests import TestRun, WarmTests, collect

NUMBER: Final = 120
SEED: Final = 1
FILES: Final = 2
# Bounds in seconds of CPU: one file without a mutant, all files without one, the tests chosen
# for one mutant as they ran without it, and the same tests with it. Only an endless loop meets
# the last.
FILE_S: Final = 15
ALL_FILES_S: Final = 120
CHOSEN_S: Final = 6.0
MUTANT_S: Final = 30
# A module that is imported anew for its mutant costs seconds for each further file.
IMPORTED_FILES: Final = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """killer: the test that failed; empty for a survivor. tests: how many were chosen."""

    mutant: Mutant
    killer: str
    tests: int

    def __str__(self) -> str:
        return f"{self.killer or f'survived {self.tests} tests'}: {self.mutant}"


class Laboratory:
    """The tests of one checkout, and what each executes."""

    def __init__(
        self,
        checkout: Path,
        mutants: Mapping[int, Mutant],
        *,
        files: int,
        seed: int,
        seconds: int,
    ) -> None:
        self._left_s = float(seconds)
        self._seed = seed
        self._checkout = checkout
        self._mutants = mutants
        covering = CoveringTests(checkout)
        self._closest = {n: covering.of(mutant, files) for n, mutant in mutants.items()}
        self._runs: list[TestRun] = []
        self.outcomes: list[Outcome] = []

    def test_files(self) -> list[str]:
        """Returns the files closest to any mutant: unit tests, then those of most mutants."""
        wanted = Counter(file for files in self._closest.values() for file in files)
        return [
            str(f) for f in sorted(wanted, key=lambda f: (f.parts[1] != "unit", -wanted[f]))
        ]

    def work(self, warm: WarmTests) -> None:
        self._observe(warm)
        for number, mutant in self._mutants.items():
            if number in warm.executed_by_import:
                tests = self._choose(self._touching(number), IMPORTED_FILES)
                killer = self._import_and_run(number, tests) if tests else ""
            else:
                tests = self._choose(self._executing(number), len(self._runs))
                killer = first_failure(warm, tests, number) if tests else ""
            self.outcomes.append(Outcome(mutant, killer, len(tests)))
            print(f"{number} {self.outcomes[-1]}", flush=True)

    def _observe(self, warm: WarmTests) -> None:
        by_file: dict[str, list[str]] = {}
        for name in warm.names:
            by_file.setdefault(name.split("::")[0], []).append(name)
        for file in filter(by_file.__contains__, self.test_files()):
            if self._left_s <= 0:
                print(f"# {file}: not run, the CPU's bound is met", flush=True)
                continue
            runs, is_cut = warm.run(by_file[file], mutant=None, stops=False, cpu_s=FILE_S)
            self._runs += runs
            self._left_s -= FILE_S if is_cut else sum(run.cpu_s for run in runs)
            failed = [run.test for run in runs if not run.has_passed]
            total_s = sum(run.cpu_s for run in runs)
            end = " (cut)" if is_cut else ""
            print(
                f"# {file}: {len(runs)} tests, {total_s:.1f} s{end}, failed {failed}",
                flush=True,
            )

    def _executing(self, number: int) -> list[TestRun]:
        """The tests that execute the mutant, then the other tests of their files.

        A function that caches its result executes for the first test of a file only.
        """
        direct = [run for run in self._runs if number in run.executed]
        files = {_file(run) for run in direct} or set(map(str, self._closest[number]))
        others = [r for r in self._runs if number not in r.executed and _file(r) in files]
        return [*_by_speed(direct), *_by_speed(others)]

    def _touching(self, number: int) -> list[TestRun]:
        """The tests that run a function of the module; else all of the closest files."""
        file = str(self._mutants[number].file)
        found = [run for run in self._runs if file in run.files]
        names = {str(file) for file in self._closest[number]}
        return _by_speed(found or [run for run in self._runs if _file(run) in names])

    def _choose(self, runs: Iterable[TestRun], files: int) -> list[str]:
        """Returns the first tests within the bounds, without those that fail unchanged."""
        chosen: list[str] = []
        left_s = CHOSEN_S
        taken: set[str] = set()
        for run in runs:
            if not run.has_passed or (_file(run) not in taken and len(taken) == files):
                continue
            left_s -= run.cpu_s
            if chosen and left_s < 0:
                break
            taken.add(_file(run))
            chosen.append(run.test)
        return chosen

    def _import_and_run(self, number: int, tests: Sequence[str]) -> str:
        """Runs the tests in a process that imports the module with its mutant on."""
        command = [sys.executable, "-m", "benchmarks.mutants.run", "--one", str(number)]
        command += ["--at", str(self._checkout), "--seed", str(self._seed)]
        found = subprocess.run(  # noqa: S603 - this module
            command,
            input=json.dumps(tests),
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=MUTANT_S * 10,
            check=False,
        )
        last = found.stdout.splitlines()[-1:] or [""]
        return json.loads(last[0])["killer"] if last[0].startswith('{"killer"') else "import"


def _file(run: TestRun) -> str:
    return run.test.split("::")[0]


def _by_speed(runs: Iterable[TestRun]) -> list[TestRun]:
    return sorted(runs, key=lambda run: run.cpu_s)


def first_failure(warm: WarmTests, tests: Sequence[str], number: int) -> str:
    """Returns the first test that fails with this mutant, or an empty text."""
    runs, is_cut = warm.run(tests, mutant=number, stops=True, cpu_s=MUTANT_S)
    failed = next((run.test for run in runs if not run.has_passed), "")
    return failed or ("no end" if is_cut else "")


def run_one(checkout: Path, number: int, mutant: Mutant) -> None:
    """Collects the tests named on standard input with one mutant on, and prints its killer."""
    tests = json.load(sys.stdin)
    switch = put_in(checkout, {number: mutant})
    switch.active = number
    killers: list[str] = []

    def work(warm: WarmTests) -> None:
        known = set(warm.names)
        # A parametrized test may have another name with the mutant.
        chosen = [test for test in tests if test in known]
        killers.append(first_failure(warm, chosen, number))

    files = list(dict.fromkeys(test.split("::")[0] for test in tests))
    collect(checkout, files, WarmTests(switch, work))
    print("\n" + json.dumps({"killer": killers[0] if killers else "import"}))


def report(outcomes: Sequence[Outcome]) -> None:
    """Prints a row for each folder, and the survivors."""
    killed = Counter(o.mutant.folder for o in outcomes if o.killer)
    drawn = Counter(o.mutant.folder for o in outcomes)
    for folder in FOLDERS:
        if drawn[folder]:
            ratio = killed[folder] / drawn[folder]
            print(f"{folder:10} {killed[folder]:3} of {drawn[folder]:3} killed ({ratio:.2f})")
    if outcomes:
        total = killed.total()
        print(f"{'all':10} {total:3} of {len(outcomes):3} killed ({total / len(outcomes):.2f})")
    for outcome in outcomes:
        if not outcome.killer:
            print(outcome)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, default=NUMBER, help="the first N mutants alone")
    parser.add_argument("--skip", type=int, default=0, help="without the first N mutants")
    parser.add_argument("--these", type=int, nargs="+", help="the mutants of these numbers")
    parser.add_argument("--at", type=Path, default=Path(), help="the checkout; here by default")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--files", type=int, default=FILES, help="test files for each mutant")
    parser.add_argument(
        "--seconds", type=int, default=ALL_FILES_S, help="CPU to see which test executes what"
    )
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    checkout = chosen.at.resolve()
    mutants = dict(enumerate(draw(checkout, NUMBER, chosen.seed)))
    if chosen.one is not None:
        run_one(checkout, chosen.one, mutants[chosen.one])
        return
    mutants = {n: mutants[n] for n in chosen.these or range(chosen.skip, chosen.only)}
    laboratory = Laboratory(
        checkout, mutants, files=chosen.files, seed=chosen.seed, seconds=chosen.seconds
    )
    plugin = WarmTests(put_in(checkout, mutants), laboratory.work)
    collect(checkout, laboratory.test_files(), plugin)
    report(laboratory.outcomes)


if __name__ == "__main__":
    main()
