"""`python -m benchmarks.mutants.run`: how many faults that are put into the code tests find.

Draws mutants in gate, canary, routing and proposals by a seed, and runs for each the test
files that are closest to it, in a copy of the checkout. Prints killed and surviving ones. To
compare two commits, check each out and name it: `--at CHECKOUT`.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.mutants.covering_tests import CoveringTests
from benchmarks.mutants.drawing import FOLDERS, Mutant, draw

NUMBER: Final = 120
SEED: Final = 1
FILES: Final = 10
# Only a mutant that makes an endless loop needs that long; it counts as killed.
PATIENCE_S: Final = 900
ALL_PASSED: Final = 0
SOME_FAILED: Final = 1
NONE_COLLECTED: Final = 5
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py(?:::\S+)?)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """killer: the test that failed; empty for a survivor. tests: how many files ran."""

    mutant: Mutant
    killer: str
    tests: int


class Laboratory:
    """A copy of a checkout where a file may be wrong for a while."""

    def __init__(self, copy: Path, python: Path) -> None:
        self.copy = copy
        self._python = python
        self.tests = CoveringTests(copy)

    def outcome(self, mutant: Mutant, files: int) -> Outcome:
        chosen = self.tests.of(mutant, files)
        file = self.copy / mutant.file
        source = file.read_bytes()
        times = file.stat()
        file.write_bytes(mutant.applied(source))
        try:
            killer = self.first_failure(list(map(str, chosen))) if chosen else ""
        finally:
            file.write_bytes(source)
            # Python keeps bytecode by a file's time, and must not take the mutant's.
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        return Outcome(mutant, killer, len(chosen))

    def first_failure(self, tests: Sequence[str]) -> str:
        """Returns the first test that fails, or an empty text."""
        command = [str(self._python), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
        command += ["-m", "not (slow or postgres or browser or verify or soak)", *tests]
        # In CI hypothesis draws the same examples each time.
        environment = os.environ | {"PYTHONPATH": str(self.copy), "CI": "true"}
        try:
            run = subprocess.run(  # noqa: S603 - pytest, with file names of the checkout
                command,
                cwd=self.copy,
                env=environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "no end"
        if run.returncode in (ALL_PASSED, NONE_COLLECTED):
            return ""
        found = _FAILED.search(run.stdout)
        return found[1] if found else f"exit {run.returncode}"


@contextmanager
def laboratory(checkout: Path) -> Iterator[Laboratory]:
    """Copies what Git knows of the checkout; the copy is thrown away at the end."""
    listed = subprocess.run(  # noqa: S603 - a fixed command
        ["git", "-C", str(checkout), "ls-files", "-z"],  # noqa: S607 - the Git of this machine
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    own = checkout / ".venv/bin/python"
    with tempfile.TemporaryDirectory(prefix="swapgate-mutants-") as folder:
        for name in filter(None, listed.split("\0")):
            if (checkout / name).is_file():
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(checkout / name, target)
        yield Laboratory(Path(folder), own if own.exists() else Path(sys.executable))


def report(outcomes: Sequence[Outcome], doubtful: frozenset[str]) -> None:
    """Prints a row for each folder, and the survivors. doubtful: fail without a mutant too."""
    clear = [o for o in outcomes if o.killer not in doubtful]
    killed = Counter(o.mutant.folder for o in clear if o.killer)
    drawn = Counter(o.mutant.folder for o in clear)
    for folder in FOLDERS:
        if drawn[folder]:
            ratio = killed[folder] / drawn[folder]
            print(f"{folder:10} {killed[folder]:3} of {drawn[folder]:3} killed ({ratio:.2f})")
    if clear:
        total = killed.total()
        print(f"{'all':10} {total:3} of {len(clear):3} killed ({total / len(clear):.2f})")
    for outcome in clear:
        if not outcome.killer:
            print(f"survived, {outcome.tests} test files: {outcome.mutant}")
    for name in sorted(doubtful):
        print(f"fails without a mutant, so its mutants do not count: {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", type=int, default=NUMBER, help="the first N mutants alone")
    parser.add_argument("--skip", type=int, default=0, help="without the first N mutants")
    parser.add_argument("--at", type=Path, default=Path(), help="the checkout; here by default")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--files", type=int, default=FILES, help="test files for each mutant")
    chosen = parser.parse_args()
    with laboratory(chosen.at.resolve()) as lab:
        outcomes = []
        for mutant in draw(lab.copy, NUMBER, chosen.seed)[chosen.skip : chosen.only]:
            outcomes.append(lab.outcome(mutant, chosen.files))
            print(f"{outcomes[-1].killer or 'survived'}: {mutant}", flush=True)
        killers = sorted({o.killer for o in outcomes if "::" in o.killer})
        doubtful = frozenset(k for k in killers if lab.first_failure([k]))
    report(outcomes, doubtful)


if __name__ == "__main__":
    main()
